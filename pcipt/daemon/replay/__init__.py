"""Runs the engine on a recorded machine, with a simulated Xen."""
