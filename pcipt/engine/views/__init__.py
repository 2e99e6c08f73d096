"""The three views that decisions are made from: reading Linux and hardware, asking Xen, and what follows."""
