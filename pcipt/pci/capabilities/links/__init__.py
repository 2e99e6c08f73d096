"""The capabilities about a function's links: PCI Express itself, slots, channels, the root complex, time."""
