"""How a function alone can be reset by its own registers.

Source: PCI Express Base 6.0 §7.5.3.3 (Device Capabilities, bit 28), §6.6.2 (FLR); PCI-SIG ECN Conventional
        PCI Advanced Capabilities 2006 (AF); PCI-PM 1.2 §3.2.4 (No_Soft_Reset); linux drivers/pci/pci.c,
        pcie_reset_flr, pci_af_flr, pci_pm_reset.
"""

from pcipt.pci.capabilities import Capability, find_capability
from pcipt.pci.config import ConfigSpace
from pcipt.pci.structures import AF, EXPRESS, PM

_FLR = 1 << 28
_AF_TP_AND_FLR = 3
_NO_SOFT_RESET = 1 << 3


def has_flr(config: ConfigSpace, capabilities: tuple[Capability, ...]) -> bool | None:
    """Return True if the function has a Function Level Reset, of PCI Express or of Advanced Features.

    Return None if it has one of these structures and the register that tells was not read, or if only the
    header was read.
    """
    answers: list[bool | None] = []
    if (express := find_capability(capabilities, EXPRESS)) is not None:
        features = config.u32(express.offset + 4)
        answers.append(None if features is None else bool(features & _FLR))
    if (af := find_capability(capabilities, AF)) is not None:
        bits = config.u8(af.offset + 3)
        answers.append(None if bits is None else bits & _AF_TP_AND_FLR == _AF_TP_AND_FLR)
    if True in answers:
        return True
    return None if None in answers or len(config) <= 64 else False


def reset_ways(config: ConfigSpace, capabilities: tuple[Capability, ...]) -> tuple[str, ...]:
    """Return how the function alone can be reset, by its own registers, in Linux's words: "flr", "af_flr",
    "pm".

    "pm" means that the way from D3hot to D0 resets it: No_Soft_Reset is clear. Resets of a bus or a slot,
    which hit other functions too, are not in the list, and neither are Linux's methods for single devices.
    """
    found = []
    if (express := find_capability(capabilities, EXPRESS)) is not None:
        found += ["flr"] if (config.u32(express.offset + 4) or 0) & _FLR else []
    if (af := find_capability(capabilities, AF)) is not None:
        both = (config.u8(af.offset + 3) or 0) & _AF_TP_AND_FLR == _AF_TP_AND_FLR
        found += ["af_flr"] if both else []
    if (power := find_capability(capabilities, PM)) is not None:
        control = config.u16(power.offset + 4)
        found += ["pm"] if control is not None and not control & _NO_SOFT_RESET else []
    return tuple(found)
