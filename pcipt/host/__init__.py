"""Access dom0's Linux: sysfs, hot-plug messages, ACPI tables, drivers, lspci dumps, recordings."""
