"""The control socket: protocol, listener, connections, methods."""
