"""The PVH boot contract: start info, memory layout, ACPI tables: build, read, check."""
