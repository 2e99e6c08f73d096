"""Each fault that pcipt must survive, from outside: through the command line, or the daemon's own sources."""
