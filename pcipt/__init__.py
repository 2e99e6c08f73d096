"""Keep the PCI views of a Xen hardware domain (the hardware's, Linux's and Xen's) in agreement."""

__version__ = "0.1.0"
