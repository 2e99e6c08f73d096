"""Rules of passthrough about Xen's boot options that decide about single functions: iommu=no-igfx, ats, msi.

Nothing is said where Xen's command line is not known (`Host.boot`), as in a recording without it.
Source: xen/drivers/passthrough/vtd/dmar.c (acpi_parse_dev_scope: gfx_only), vtd/iommu.c
        (iommu_enable_translation: a unit for graphics only stays off with iommu=no-igfx), ats.c and
        docs/misc/xen-command-line.pandoc (ats), arch/x86/msi.c (pci_enable_msi: EPERM with msi=off); alike
        from 4.17 to 4.22.
"""

from pcipt.firmware.passthrough.host import IommuKind
from pcipt.firmware.passthrough.index import is_display
from pcipt.firmware.passthrough.verdict import Evidence, Reason, Rule, Said, Unknown, Verdict
from pcipt.hints import TYPE_CHECKING
from pcipt.pci import Function
from pcipt.pci.capabilities import find_capability
from pcipt.pci.requester import requester_of
from pcipt.pci.structures import ATS, MSI, MSIX

if TYPE_CHECKING:
    from pcipt.firmware.acpi.dmar import RemappingUnit
    from pcipt.firmware.coverage import IommuScope

_PLACE = "Xen's command line"


def graphics_unit(function: Function, evidence: Evidence) -> Said:
    """Yield a REFUSE reason if Xen left the function's IOMMU unit off because it serves graphics only.

    Yield `Unknown` for a display on the root bus if dom0 cannot read the table that says what its unit
    serves.
    """
    boot, host = evidence.host.boot, evidence.host
    if boot is None or boot.igfx or host.used is False or host.kind is IommuKind.AMD_VI:
        return
    scope = evidence.iommu
    if scope is None or scope.dmar is None or not scope.dmar.units:
        if function.parent is None and is_display(function):
            yield Unknown("IOMMU unit of the graphics, which iommu=no-igfx leaves off", Verdict.REFUSE)
        return
    unit = scope.drhd_of(requester_of(function, evidence.machine))
    if unit is not None and _graphics_only(unit, scope, evidence):
        text = (
            "Xen was started with iommu=no-igfx, so the IOMMU unit of the graphics is off. DMA of the "
            "function is not translated, and a guest could reach all memory"
        )
        yield Reason("igfx-off", Verdict.REFUSE, text, "start Xen without iommu=no-igfx", place=_PLACE)


def _graphics_only(unit: "RemappingUnit", scope: "IommuScope", evidence: Evidence) -> bool:
    """Return True if Xen takes a unit for one that serves graphics only: it names endpoints, and all of them
    that are there are displays.
    """
    from pcipt.firmware.acpi.dmar import SCOPE_ENDPOINT  # only root may read the tables

    if unit.include_all or not unit.scopes:
        return False
    if any(each.kind != SCOPE_ENDPOINT for each in unit.scopes):
        return False
    places = (scope.resolve(unit.segment, each) for each in unit.scopes)
    named = (evidence.machine.functions.get(place) for place in places if place is not None)
    return all(is_display(each) for each in named if each is not None)


def translation_services(function: Function, evidence: Evidence) -> Said:
    """Yield a WARN reason if Xen was started with ats and the function has ATS."""
    boot = evidence.host.boot
    if boot is None or not boot.ats:
        return
    if find_capability(function.capabilities, ATS, extended=True) is not None:
        text = (
            "Xen was started with ats, and the function translates addresses by itself (ATS). Xen waits for "
            "answers of the function, so a guest with this function can stop the whole host"
        )
        yield Reason("ats-on", Verdict.WARN, text, "start Xen without ats", place=_PLACE)


def message_interrupts(function: Function, evidence: Evidence) -> Said:
    """Yield a reason if Xen was started with msi=off and the function has MSI or MSI-X: REFUSE for a virtual
    function, which has no line interrupt, else WARN.
    """
    boot = evidence.host.boot
    if boot is None or boot.msi:
        return
    verdict = verdict_without(function, MSI, MSIX)
    if verdict is None:
        return
    left = (
        "a virtual function has no other interrupt"
        if verdict is Verdict.REFUSE
        else "it has only its line interrupt, if it has one"
    )
    text = f"Xen was started with msi=off and refuses MSI and MSI-X: {left}"
    yield Reason("msi-off", verdict, text, "start Xen without msi=off", place=_PLACE)


def verdict_without(function: Function, *refused: int) -> Verdict | None:
    """Return the verdict on a function whose guest does not get some kinds of message interrupt.

    `refused` are the capabilities (MSI, MSIX) that the guest does not get. REFUSE: no interrupt is left,
    because a virtual function has no line interrupt. WARN: one may be left. None: the function has none of
    these capabilities.
    """
    found = {each for each in (MSI, MSIX) if find_capability(function.capabilities, each) is not None}
    if found.isdisjoint(refused):
        return None
    return Verdict.REFUSE if function.physfn is not None and found <= set(refused) else Verdict.WARN


RULES: tuple[Rule, ...] = (graphics_unit, translation_services, message_interrupts)
