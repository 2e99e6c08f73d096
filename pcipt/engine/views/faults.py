"""Notes DMA that an IOMMU refused, from Xen's console: whose it was, what lies there, which region it needs.

A line is believed only if nobody but Xen can have printed it (`Hearing`). What was printed before the service
started is over and is not noted. A storm is told once, and again at each tenfold of its number.
"""

from collections.abc import Callable, Iterable, Iterator

import attrs

from pcipt.engine.views.regions import kept_of
from pcipt.engine.views.views import Views
from pcipt.pci import Finding, Frames, Gfn, Sbdf
from pcipt.pci.bars import name_of_bar
from pcipt.pci.config import COMMAND_MASTER
from pcipt.pci.requester import Vendor, vendor_of
from pcipt.pci.units import PAGE_SIZE
from pcipt.remap.desired import PCIBACK
from pcipt.remap.plan_reserved import Kept
from pcipt.remap.view import DOM0, QUARANTINE
from pcipt.xen.dma_faults import Cause, DmaFault, Fault, There, parse_faults

KEPT = 256  # different refusals: a device may try any address
_PAGES = frozenset({Cause.PAGE, Cause.UNTOLD})  # a mapping would cure it


def note_faults(
    views: Views, text: str, clock: Callable[[], str], *, whole: bool
) -> tuple[tuple[DmaFault, ...], set[Sbdf]]:
    """Note the refused DMA in a text of Xen's console; return what is to be told, and the devices.

    `clock` returns the time (UTC, RFC 3339). With `whole`, what was noted before is deleted first: it was
    about a moment. If the lines are not believed, only their number is noted.
    Shape:  one DmaFault for each sort that is new or has reached a further tenfold; the devices are those
            with refused DMA in this text that Linux has.
    """
    memory, hearing = views.memory, views.complaints.hearing
    if whole:
        memory.faults.clear()
        memory.not_believed = 0
    faults = [*parse_faults(text)]
    if hearing is None or not hearing.believed:
        memory.not_believed += len(faults)
        return (), set()
    when = clock() if faults else ""
    reached: dict[tuple[Sbdf, object], DmaFault] = {}
    for fault in faults:
        noted = _sort_of(views, fault, when)
        memory.fault_counts[noted.there] += 1
        held = memory.faults.get(noted.sbdf, {}).get(noted.key)
        if held is None and sum(map(len, memory.faults.values())) >= KEPT:
            continue
        now = noted if held is None else attrs.evolve(held, count=held.count + 1, when=when)
        memory.faults.setdefault(now.sbdf, {})[now.key] = now
        if now.count == _tens(now.count):
            reached[now.sbdf, now.key] = now
    told = (memory.faults[sbdf][now.key] for (sbdf, _), now in reached.items())
    devices = {_linux_address(views, device) for device in {fault.device for fault in faults}}
    return tuple(told), {device for device in devices if device in views.machine.functions}


def _linux_address(views: Views, device: Sbdf) -> Sbdf:
    """Return Linux's address of a device that the IOMMU sees at `device`: they differ after a renumbering."""
    moves = views.state.renumbered.items()
    return next((linux for linux, now in moves if now == device), device)


def _tens(count: int) -> int:
    """Return the largest power of ten that is not above `count`."""
    return int(10 ** (len(str(count)) - 1))


def _sort_of(views: Views, fault: Fault, when: str) -> DmaFault:
    """Return the record of one refused access. If it needs a withdrawn region, note the device for it."""
    memory, sbdf = views.memory, _linux_address(views, fault.device)
    there, what, region = _what_lies_there(views, fault)
    place = views.state.place_at(sbdf)
    if there is There.WITHDRAWN and region is not None and place is not None:
        memory.faulted.setdefault(region, set()).add(place)
    owner = views.view.owner(fault.device)
    return DmaFault(sbdf, owner, fault.access, fault.at, fault.cause, there, what, 1, when, region)


def _what_lies_there(views: Views, fault: Fault) -> tuple[There, str, Frames | None]:
    """Return what lies at the address of a refused access, in words, and the reserved region if it is one.

    An address of a guest's device is the guest's, and nothing is known about it. A device in quarantine uses
    a table of its own, with its own reserved regions only. Any other device uses the machine's addresses.
    Source: Xen drivers/passthrough/pci.c (quarantine), x86/iommu.c (arch_iommu_hwdom_init).
    """
    owner = views.view.owner(fault.device)
    if fault.cause is Cause.ENTRY:
        return There.NO_ENTRY, "not looked up", None
    if views.view.guest(fault.device) is not None:
        return There.GUEST, f"memory of {owner}", None
    if owner == QUARANTINE:
        return There.QUARANTINE, "no reserved region of this device", None
    page = Frames(Gfn(fault.at // PAGE_SIZE), 1)
    region = next((each for each in sorted(views.reserved.scopes) if each.overlaps(page)), None)
    if region is None:
        return *_beside_regions(views, page), None
    needs = owner == DOM0 and fault.cause in _PAGES
    if not needs or not _is_withdrawn(views, region):
        return There.REGION, f"reserved region {region}", region
    at = views.memory.withdrawn_at.get(region)
    since = f"at {at}" if at is not None else "before the service started"
    return There.WITHDRAWN, f"reserved region {region}, which pcipt withdrew {since}", region


def _is_withdrawn(views: Views, region: Frames) -> bool:
    """Return True if pcipt has unmapped a region; on a PV dom0 that is only noted and never done."""
    return views.pvh and kept_of(views, region) is Kept.WITHDRAWN


def _beside_regions(views: Views, page: Frames) -> tuple[There, str]:
    """Return what lies at a page that is in no reserved region, and its words."""
    for bar in views.state.bars.over(page):
        return There.BAR, f"{name_of_bar(bar.bar)} of {bar.sbdf}"
    if (ram := views.protected.why_ram(page)) is not None:
        return There.RAM, ram
    why = views.protected.why(page)
    return (There.NOTHING, "nothing") if why is None else (There.PLATFORM, why)


# Findings.


def faults_of(views: Views, sbdf: Sbdf) -> Iterator[Finding]:
    """Yield the findings about refused DMA of one function of the machine.

    A region that is mapped again has none. If bus mastering is off after refused DMA, that is a finding of
    its own: Xen switches it off when a device is refused about ten times with less than 10 ms between two.
    Source: Xen drivers/passthrough/pci.c (pci_check_disable_device; PT_FAULT_THRESHOLD), 4.17 to 4.22.
    """
    noted = [*views.memory.faults.get(sbdf, {}).values()]
    yield from _findings(views, noted)
    function = views.machine.functions.get(sbdf)
    if not noted or function is None or function.command is None or function.command & COMMAND_MASTER:
        return
    guest = views.view.guest(sbdf)
    if guest is not None:
        user, cure = f"guest {guest}", "shut the guest down, and give the function to the guest again"
    elif function.driver not in (None, PCIBACK):
        user, cure = f"the driver {function.driver}", "unbind the driver and bind it again"
    else:
        return  # nobody uses the function: its bus mastering is off for this reason
    yield Finding(
        "bus-master-off",
        f"bus mastering is off, so the function cannot use DMA, and {user} uses the function. When the IOMMU "
        "refuses DMA of a device many times at once, Xen switches bus mastering of the device off without a "
        f"message. Repair what the finding dma-fault names, then {cure}",
    )


def faults_of_service(views: Views) -> Iterator[Finding]:
    """Yield the findings about refused DMA of what Linux does not have, and about what is not heard."""
    for sbdf, noted in views.memory.faults.items():
        if sbdf not in views.machine.functions:
            yield from _findings(views, noted.values(), f"requester {sbdf}: ")
    hearing, readable = views.complaints.hearing, views.complaints.readable
    if hearing is not None and views.memory.not_believed:
        yield Finding(
            "dma-faults-not-believed",
            f"Xen's console has lines about refused DMA, but {hearing.why}. Text of dom0 can look the same, "
            "so pcipt does not use these lines; boot Xen without console_to_ring; pcipt resync forgets the "
            "lines",
        )
    deaf = "" if readable else "Xen's console cannot be read"
    if readable and hearing is not None:
        unheard = not hearing.vtd and vendor_of(views.machine) is Vendor.INTEL
        deaf = hearing.why if unheard or not hearing.believed else ""
    if deaf and views.restores_on_fault:
        yield Finding(
            "dma-faults-not-heard",
            f"reserved.restore_on_fault is on, but pcipt does not learn of refused DMA: {deaf}; so pcipt "
            "restores no region",
        )


def _findings(views: Views, noted: Iterable[DmaFault], before: str = "") -> Iterator[Finding]:
    """Yield a finding for each sort of refused DMA, except those whose region is mapped again."""
    for fault in noted:
        region = fault.region if fault.there is There.WITHDRAWN else None
        if region is None or _is_withdrawn(views, region):
            text = _text(fault, restores=views.restores_on_fault)
            yield Finding("dma-fault", f"Xen's console: {before}{text}")


def _text(fault: DmaFault, *, restores: bool) -> str:
    """Return the text of a finding: what was refused, what lies there, and what cures it."""
    times = _tens(fault.count)
    often = "" if times == 1 else f" ({times} times or more)"
    return (
        f"the IOMMU refused a DMA {fault.access or 'access'} of this device at {fault.at:#x}{often}: "
        f"{fault.cause.value}. The device belongs to {fault.owner}. What lies at this address: {fault.what}. "
        f"What to do: {_cure(fault, restores=restores)}; pcipt resync deletes this finding"
    )


def _cure(fault: DmaFault, *, restores: bool) -> str:
    """Return what helps, in words."""
    if fault.there is There.WITHDRAWN:
        if restores:
            return "pcipt restores the region; if this fails, pcipt status says why"
        return (
            "take a device of this region back to dom0 (pcipt rmrr names the devices, pcipt reclaim takes "
            "one back), or set reserved.restore_on_fault"
        )
    return _CURES[fault.there]


_CURES = {
    There.REGION: "pcipt rmrr shows whether the region is mapped",
    There.BAR: (
        "the device uses memory of another device, which the IOMMU's table has at most while that BAR decodes"
    ),
    There.RAM: "the driver of the device uses memory that the driver has freed, or memory that is not dom0's",
    There.PLATFORM: (
        "the driver of the device has an error, or the firmware's table (DMAR or IVRS) does not name memory "
        "that the device needs"
    ),
    There.NOTHING: "update the driver or the firmware of the device, which has an error",
    There.GUEST: (
        "the guest's driver has an error, or the guest's firmware does not know a reserved region (rdm= in "
        "xl.cfg)"
    ),
    There.QUARANTINE: "reset the device: it goes on with DMA that its former driver started",
    There.NO_ENTRY: "pcipt status shows whether Xen knows the device; pcipt resync announces the device",
}
