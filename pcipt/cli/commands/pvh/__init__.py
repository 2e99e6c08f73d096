"""The parts of `pcipt pvh`, one module each."""
