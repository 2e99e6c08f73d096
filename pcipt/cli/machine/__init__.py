"""Where the machine that a command shows comes from."""
