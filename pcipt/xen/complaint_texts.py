"""Texts for complaints of Xen: what a complaint means, and the cure on this release. Pure.

Source: Xen drivers/vpci (what follows each failure), `pcipt.xen.releases`.
"""

from collections.abc import Callable, Mapping
from errno import EEXIST, EINVAL, ENODEV, EPERM

from pcipt.pci import Finding
from pcipt.xen.complaints import LASTING, Code, Complaint
from pcipt.xen.releases import (
    FAULTY_CAPABILITY_HIDDEN,
    MSIX_HOLE_NEEDS_MAPPED_BAR,
    VPCI_SURVIVES_FAILURE,
    Version,
)

# (kind, id): what dom0 does not see of a hidden capability
_CAPABILITIES = {
    ("legacy", 0x05): ("MSI", "Message Control, Address and Data"),
    ("legacy", 0x11): ("MSI-X", "Message Control, table and pending bits"),
    ("extended", 0x10): ("SR-IOV", "VF Enable, NumVFs and the VF BARs"),
    ("extended", 0x15): ("Resizable BAR", "the sizes of its BARs"),
}
_AGAIN = "remove the function in Linux and rescan its bus"
_STAYS = "do not remove the function in Linux: Xen would not take it again, and it would have no owner"
# errno: why a function could not be set up at boot, and what helps
_AT_BOOT = {
    ENODEV: "the firmware's table (DMAR or IVRS) does not name it: ask the vendor for firmware",
    EINVAL: "Xen takes neither a bridge from PCI to PCI Express nor a function that does not answer",
}
_PASSING = "pcipt resync forgets it"


def finding_of_complaint(complaint: Complaint, times: int, version: Version) -> Finding:
    """Return the finding of a complaint that Xen made `times` times."""
    text = f"Xen's console: {_TEXTS[complaint.code](complaint, version)}"
    if times > 1:
        text = f"{text} ({times} times)"
    return Finding(complaint.code.value, text if complaint.code in LASTING else f"{text}; {_PASSING}")


def _hidden(complaint: Complaint, version: Version) -> str:
    kind, number = complaint.kind, complaint.capability or 0
    name, registers = _CAPABILITIES.get((kind, number), (f"the {kind} capability", "all of its registers"))
    what = f"{name} (capability {number:x}h, {kind}) could not be set up ({complaint.error}) and is hidden"
    why = f"{what}: dom0 does not see {registers}"
    if name != "MSI-X":
        return f"{why}; its driver must work without this capability"
    if complaint.rc == EEXIST:  # something is mapped where the table is, or where it seems to be
        mended = MSIX_HOLE_NEEDS_MAPPED_BAR  # tables in BARs without an address
        newer = "" if mended.known_of(version) else f", or use Xen {mended.begins} or newer"
        return f"{why}, and the driver must use MSI or INTx; when its BARs have addresses, {_AGAIN}{newer}"
    return (
        f"{why}, and the driver must use MSI or INTx; this Xen never shows MSI-X of virtual functions to dom0"
    )


def _not_hidden(complaint: Complaint, _version: Version) -> str:
    return (
        f"the {complaint.kind} capability {complaint.capability or 0:x}h could be neither set up nor hidden "
        f"({complaint.error}): Xen does not trap the function's registers; {_STAYS}"
    )


def _no_vpci(complaint: Complaint, _version: Version) -> str:
    return (
        f"a function could not be given to vPCI ({complaint.error}). Either the function has no owner, or "
        "dom0 has it and Xen does not trap its registers; pcipt status names functions without an owner "
        "(orphans)"
    )


def _no_setup(complaint: Complaint, _version: Version) -> str:
    """Source: Xen drivers/passthrough/pci.c (setup_one_hwdom_device: it goes on after a phantom function that
    failed), vtd/iommu.c (domain_context_mapping), amd/pci_amd_iommu.c (amd_iommu_add_device: EPERM).
    """
    if complaint.rc == EPERM:
        return (
            "at boot one of its phantom functions could not be set up in the IOMMU for dom0: DMA with the id "
            "of that one is refused, because the firmware's table (IVRS) does not name it: ask the vendor "
            "for firmware"
        )
    why = _AT_BOOT.get(complaint.rc or 0)
    return (
        f"at boot it could not be set up in the IOMMU for dom0 ({complaint.error}). dom0 has the function, "
        f"but Xen does not trap its registers, and its DMA is refused; {f'{why}; ' if why else ''}{_STAYS}"
    )


def _msix(complaint: Complaint, version: Version) -> str:
    if complaint.at is not None:
        return (
            f"something else is mapped where its MSI-X structure lies; when its BARs have addresses, {_AGAIN}"
        )
    text = "its MSI-X structure names a place that is in none of its BARs; no address of a BAR helps: "
    if FAULTY_CAPABILITY_HIDDEN.of(version):
        return f"{text}this Xen hides MSI-X from dom0, and the driver must use MSI or INTx"
    return (
        f"{text}this Xen has no vPCI for the function, and pcipt maps its BARs; {_STAYS}; "
        f"Xen {FAULTY_CAPABILITY_HIDDEN.begins} hides its MSI-X instead"
    )


def _map(complaint: Complaint, version: Version) -> str:
    verb = "unmapped" if complaint.kind == "un" else "mapped"
    where = f"pages {complaint.pages}" if complaint.pages is not None else f"BAR {complaint.bar}"
    then = (
        "memory decode was switched off, and a part of its BARs may be mapped; unbind its driver and bind "
        "the driver again"
        if VPCI_SURVIVES_FAILURE.of(version)
        else f"memory decode was switched off, and Xen does not trap the function any more; {_AGAIN}"
    )
    return f"{where} could not be {verb} ({complaint.error}): {then}"


def _misplaced(complaint: Complaint, _version: Version) -> str:
    return (
        f"the BAR at pages {complaint.pages} lies over an entry of the memory map or at 0, so Xen does not "
        "map it and dom0 reads all ones; remove the function in sysfs and rescan its bus; if this does not "
        "help, boot Linux with pci=realloc"
    )


def _dropped(complaint: Complaint, _version: Version) -> str:
    what = "the ROM" if complaint.kind == "ROM" else f"BAR register {complaint.bar}"
    return f"a write to {what} was dropped, because memory decode was on; unbind its driver, then {_AGAIN}"


def _resize(complaint: Complaint, _version: Version) -> str:
    return (
        f"a new size of BAR {complaint.bar} was refused, because memory decode was on; the BAR keeps its "
        "old size"
    )


def _interrupt(complaint: Complaint, _version: Version) -> str:
    return (
        f"its interrupt {complaint.at or 0:#x} was refused: its driver uses a vector that Xen did not give; "
        "unbind the driver and bind the driver again"
    )


def _iommu(complaint: Complaint, _version: Version) -> str:
    what = "could not be added to" if complaint.kind == "add" else "could not be removed from"
    return (
        f"it {what} the IOMMU's tables ({complaint.error}): its DMA is refused, or is possible although it "
        "should not be; reboot"
    )


def _assign(complaint: Complaint, version: Version) -> str:
    what = "given to a guest" if complaint.kind == "assign" else "taken back"
    then = (
        "; if dom0 still has it, Xen does not trap its registers, and its MSI and MSI-X fail; remove the "
        "function in sysfs and rescan its bus"
        if VPCI_SURVIVES_FAILURE.of(version)
        else ""
    )
    return f"it could not be {what} ({complaint.error}){then}"


_TEXTS: Mapping[Code, Callable[[Complaint, Version], str]] = {
    Code.HIDDEN: _hidden,
    Code.NOT_HIDDEN: _not_hidden,
    Code.NO_VPCI: _no_vpci,
    Code.NO_SETUP: _no_setup,
    Code.MSIX: _msix,
    Code.MAP: _map,
    Code.MISPLACED: _misplaced,
    Code.DROPPED: _dropped,
    Code.RESIZE: _resize,
    Code.INTERRUPT: _interrupt,
    Code.IOMMU: _iommu,
    Code.ASSIGN: _assign,
}
