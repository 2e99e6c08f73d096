"""The subcommands of `pcipt`, one module each."""
