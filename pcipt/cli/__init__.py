"""The `pcipt` command."""
