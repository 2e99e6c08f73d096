"""ACPI tables: one module per table, which parses it, builds it, or does both."""
