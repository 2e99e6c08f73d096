"""The `pcipt` command: one module per group of subcommands."""
