"""The parts of `pcipt policy`, one module each."""
