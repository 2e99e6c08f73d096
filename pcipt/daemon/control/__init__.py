"""The control socket: protocol, listening socket, connections, methods."""
