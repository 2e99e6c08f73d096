"""ACPI: one parser or builder a table."""
