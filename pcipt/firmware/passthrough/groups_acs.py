"""Judge by ACS whether a function forwards requests to its neighbours around the IOMMU.

Source: PCI Express Base 6.0 §6.12 (ACS); linux drivers/pci/pci.c, pci_acs_enabled and pci_acs_flags_enabled:
        which port types need it, which four controls, and that a control that a port does not have need not
        be on.
"""

from pcipt import values as attrs
from pcipt.firmware.passthrough.groups_quirks import Separation, acs_quirk
from pcipt.firmware.passthrough.reasons import Guest
from pcipt.firmware.passthrough.verdict import Evidence
from pcipt.pci import Function
from pcipt.pci.isolation import ACS_BITS, Acs
from pcipt.pci.requester import Vendor, vendor_of

_PORTS = (0x4, 0x6)  # root and downstream ports
_NEVER = (0x7, 0x8, 0xA)  # bridges from and to conventional PCI, event collectors: they never have ACS


@attrs.frozen
class Judgement:
    """Whether requests of a function, or from below a port, go upstream and nowhere else.

    `separates` is None if the registers were not read. `why` says in a few words what is missing; it is empty
    if `separates` is True.
    """

    separates: bool | None
    why: str = ""


_YES = Judgement(separates=True)
_UNREAD = Judgement(None, "its ACS registers were not read")
_NOT_SET_UP = Judgement(separates=False, why="it has no ACS; Linux sets such a port up in a PV dom0 only")


def judge_acs(function: Function, evidence: Evidence) -> Judgement:
    """Return whether the function separates its neighbours.

    Of a root or downstream port, the neighbours are all that is below it and beside it. Of any other
    function, they are the other functions of its device: a device with one function, and a virtual function,
    need nothing.
    """
    row = acs_quirk(function)
    if row is not None and (
        row.separation is not Separation.SOUTHBRIDGE or _in_southbridge(function, evidence)
    ):
        if row.separation is Separation.WIDE:
            return _by_registers(function, evidence, wide=True)
        by_linux = row.separation is Separation.BY_LINUX
        return _NOT_SET_UP if by_linux and evidence.host.dom0 is Guest.PVH else _YES
    if function.physfn is not None:
        return _YES  # always PCI Express, whatever was read of it
    express = function.express
    if express is None:
        if not evidence.knows_capabilities(function.sbdf):
            return _UNREAD
        return Judgement(separates=False, why="conventional PCI has no ACS")
    if express.port_type in _NEVER:
        return Judgement(separates=False, why=f"a {express.port_name} has no ACS")
    if express.port_type not in _PORTS and not is_multifunction(function, evidence):
        return _YES
    return _by_registers(function, evidence)


def is_multifunction(function: Function, evidence: Evidence) -> bool:
    """Return True if the function is one of several of its device number, as Linux counts.

    Source: linux drivers/pci/probe.c, pci_scan_slot; drivers/pci/iov.c, pci_iov_add_virtfn.
    """
    if function.physfn is not None:
        return False
    if function.sbdf.function > 0 or (function.isolation is not None and function.isolation.multifunction):
        return True
    others = (function.sbdf._replace(function=number) for number in range(1, 8))
    found = (evidence.machine.functions.get(other) for other in others)
    return any(other is not None and other.physfn is None for other in found)


def words_of(bits: int) -> str:
    """Return what ACS controls do, joined by ", "."""
    return ", ".join(words for bit, words in ACS_BITS.items() if bits & bit)


def _by_registers(function: Function, evidence: Evidence, *, wide: bool = False) -> Judgement:
    """Return the judgement by the ACS registers. `wide` takes the control register of `Acs.wide`."""
    acs: Acs | None = function.isolation.acs if function.isolation is not None else None
    if acs is None:
        known = evidence.knows_extended(function.sbdf)
        return Judgement(separates=False, why="it has no ACS") if known else _UNREAD
    missing = acs.missing(wide=wide)
    if not missing:
        return _YES
    switches = "Linux in a PV dom0" if wide else "a Xen that uses an IOMMU"
    why = f"its ACS has these controls off: {words_of(missing)}; {switches} switches them on"
    return Judgement(separates=False, why=why)


def _in_southbridge(function: Function, evidence: Evidence) -> bool:
    """Return True for a function of a device with several functions, on a root bus of an AMD machine with an
    IOMMU (known or not looked at).
    """
    absent = evidence.iommu is not None and evidence.iommu.absent
    amd = vendor_of(evidence.machine) is Vendor.AMD
    return is_multifunction(function, evidence) and function.parent is None and amd and not absent
