"""Decode what decides whether a function can be separated from its neighbours.

Source: PCI Express Base 6.0 §7.7.11 (ACS), §7.5.3.3 (Device Capabilities: phantom functions, FLR), §6.6.2;
        PCI-PM 1.2 §3.2.4 (No_Soft_Reset); Advanced Capabilities for Conventional PCI ECN (AF); PCI Local Bus
        3.0 §6.2.1 (header type, bit 7).
"""

from pcipt.pci.isolation.decode import ACS_BITS, REDIRECTING, Acs, Isolation, decode_isolation

__all__ = ["ACS_BITS", "REDIRECTING", "Acs", "Isolation", "decode_isolation"]
