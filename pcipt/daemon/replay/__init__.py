"""Replay: the engine runs on a recorded machine, with a simulated Xen."""
