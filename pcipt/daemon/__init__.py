"""Wires host, Xen, sources and engine together and serves until told to stop."""
