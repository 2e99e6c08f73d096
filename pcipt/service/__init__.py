"""The daemon: engine, control socket, journal, notification."""
