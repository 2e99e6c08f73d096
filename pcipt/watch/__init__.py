"""How configuration writes become known; every source yields pci's ConfigWrite."""
