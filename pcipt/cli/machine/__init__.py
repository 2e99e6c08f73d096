"""The machine that a command shows or changes: read from files or a dump, or asked of the daemon."""
