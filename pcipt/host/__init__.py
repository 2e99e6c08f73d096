"""dom0's Linux: sysfs, dumps, uevents, ACPI tables, recording a machine."""
