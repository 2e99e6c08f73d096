"""The three views on which the engine decides: Linux and hardware, Xen's answers, and pcipt's memory."""
