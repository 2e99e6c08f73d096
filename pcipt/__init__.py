"""Keeps the PCI views of a Xen hardware domain (hardware, Linux, Xen) in agreement."""

__version__ = "0.1.0"
