"""Build, read and check what a PVH domain boots with: start info, memory layout, ACPI tables."""
