"""What the firmware says: ACPI tables, the PVH boot ABI, memory layout. Pure."""
