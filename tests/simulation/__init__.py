"""The whole daemon from one seed: its clock, kernel, Xen, disk and peers are simulated."""
