"""Watch writes to configuration space. Every source yields `ConfigWrite` values of the room pci."""
