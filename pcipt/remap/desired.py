"""Desired pages: the pages of dom0's 1:1 map that each function needs now, and who maps them. Pure.

A function that decodes memory needs the whole pages of its BARs. vPCI maps the BARs of the functions that it
handles: dom0 is PVH, Xen lists the function as dom0's, its header has type 0 or 1, and it is not virtual.
pcipt maps the BARs of all other functions. On a PVH dom0, the MSI-X pages of a function that Xen lists as
dom0's are not desired, because vPCI must trap accesses to them. If something cannot be known now, the mapped
pages stay as they are: nothing is unmapped in doubt.
Source: xen/drivers/vpci/header.c (modify_bars, init_bars), vpci/msix.c (vpci_make_msix_hole).
"""

import enum
from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType

import attrs

from pcipt.pci import Address, Bar, BarKind, Frames, Function, HeaderType, Range, Sbdf, frames_from_range
from pcipt.pci.structures import Place
from pcipt.remap.guard.protected import Protected
from pcipt.remap.intervals import without
from pcipt.remap.view import XenView
from pcipt.xen.releases import E820_CUTS_BARS, FAULTY_CAPABILITY_HIDDEN, MSIX_CHECKED, Version

Followed = Mapping[Sbdf, tuple[Sbdf, ...]]  # by Linux's address: other addresses of it in Xen's list
NOWHERE: Followed = MappingProxyType({})
ADDRESS_BITS = 52  # no x86 has more physical address bits
PCIBACK = "pciback"
_TRAPPED_HEADERS = (HeaderType.ENDPOINT, HeaderType.BRIDGE)


class By(enum.Enum):
    """Who maps pages: pcipt (US), or Xen's vPCI (XEN)."""

    US = "us"
    XEN = "xen"


@attrs.frozen
class DesiredBar:
    """The pages of one BAR that should be mapped now, and who maps them (`by`).

    `place` is the name of the function's place (`place_of`). `bar` is 0 to 5, or 6 for the ROM; a virtual
    function has BARs of its own. `spans` are runs of whole pages, sorted, at least one. If `unsure` is True,
    vPCI handles the function, but nobody knows whether vPCI has mapped these pages; `by` is US then.
    """

    place: str
    sbdf: Sbdf
    bar: int
    spans: tuple[Frames, ...]
    by: By
    unsure: bool = False


@attrs.frozen
class Desired:
    """The pages that all BARs of one function need now.

    `bars` has the BARs with pages that should be mapped, in BAR order; it may be empty. If `hold_reason` is
    set, nothing may be concluded now for that reason: `bars` is empty, and the mapped pages must stay as they
    are. `untrapped` is the reason why vPCI does not handle the function, or None if vPCI handles it. `gone`
    is True if Linux has dropped the function. `outside_window` has the numbers of the BARs that decode at an
    address where vPCI maps nothing, and of the BARs that have just been moved away from such an address: vPCI
    lets such a BAR move, but maps nothing at the new address. With a `hold_reason`, these are the BARs of the
    last plan.
    """

    place: str
    sbdf: Sbdf
    bars: tuple[DesiredBar, ...] = ()
    hold_reason: str | None = None
    untrapped: str | None = None
    gone: bool = False
    outside_window: frozenset[int] = frozenset()

    @property
    def by(self) -> By:
        """XEN if vPCI handles the function, else US. It does not matter whether the function decodes now."""
        return By.US if self.untrapped is not None else By.XEN


def place_of(function: Function) -> str:
    """Return the name of a function's place: its PCI path, or its address if it has no path.

    A path stays the same when buses are renumbered.
    """
    return str(function.path or function.sbdf)


def untrapped_reason(function: Function, xen: XenView, *, pvh: bool, version: Version) -> str | None:
    """Return why vPCI does not handle a function, or None if vPCI handles it and maps its BARs itself.

    On a PV dom0 (`pvh` is False) there is always a reason. `version` is that of Xen: some versions have no
    vPCI for a function of dom0 whose MSI-X structure is faulty (`refuses_msix`).
    """
    if not pvh:
        return "a PV dom0 has no 1:1 map"
    if function.physfn is not None:
        return "vPCI does not map BARs of virtual functions"
    if function.header not in _TRAPPED_HEADERS:
        return f"vPCI does not know headers of type {function.header.value}"
    if not function.sbdf.fits_xen:
        return "its segment has more bits than Xen knows"
    if function.sbdf in xen.orphans:
        return "Xen lists it without an owner"
    if not xen.in_dom0(function.sbdf):
        return "Xen does not handle it for dom0"
    if has_no_vpci(function, version):
        return "this Xen has no vPCI for it, because its MSI-X table lies in no BAR"
    return None


def refuses_msix(version: Version) -> bool:
    """Return True if a version of Xen fails the set-up of vPCI for a function with a faulty MSI-X structure.

    Other versions do not look, or hide the structure.
    """
    return MSIX_CHECKED.of(version) and not FAULTY_CAPABILITY_HIDDEN.of(version)


def has_no_vpci(function: Function, version: Version) -> bool:
    """Return True if this Xen has no vPCI for a function of dom0, because its MSI-X structure is faulty."""
    return refuses_msix(version) and has_faulty_msix(function)


def has_faulty_msix(function: Function) -> bool:
    """Return True if an MSI-X table or pending bit array lies in no memory BAR, or beyond the end of its BAR.

    A virtual function has no BARs of its own, so it is faulty if it has MSI-X. The result is False if the
    size of the BAR is not known.
    Source: Xen drivers/vpci/msix.c (init_msix).
    """
    if function.msix is None:
        return False
    bars = {bar.index: bar for bar in function.bars if bar.kind not in (BarKind.IO, BarKind.ROM)}
    return function.physfn is not None or any(
        place.bar not in bars or _is_beyond(place, bars[place.bar].size)
        for place in (function.msix.table, function.msix.pba)
    )


def _is_beyond(place: Place, size: int | None) -> bool:
    """Return True if an MSI-X structure ends beyond a BAR of `size` bytes; False if the size is not known."""
    return size is not None and place.offset + place.size > size


def desired_of(
    function: Function,
    functions: Mapping[Sbdf, Function],
    xen: XenView,
    *,
    pvh: bool,
    version: Version,
    protected: Protected | None = None,
    followed: Followed = NOWHERE,
    outside_window: Collection[int] = (),
) -> Desired:
    """Return the pages that one function needs now, or the reason why they cannot be known (`hold_reason`).

    If `function` is virtual and `functions` does not have its physical function, `hold_reason` is set.
    `version` is that of Xen. `followed` are the addresses at which pcipt told Xen of renumbered functions.
    `protected` (RAM and pages that Xen does not give to dom0) matters only for a function that vPCI handles:
    if a BAR overlaps such a page, no page of the BAR is desired, because vPCI does not map the BAR. But where
    only entries of the memory map are in the way, some versions map the other pages (`E820_CUTS_BARS`): these
    are desired, and the BAR counts as mapped, also at address 0: vPCI drops writes to it while it decodes.
    `outside_window` are the BARs that `Desired.outside_window` had at the last plan. If vPCI handles the
    function and such a BAR now decodes at an address where vPCI maps BARs, the BAR is `unsure`, and pcipt
    maps it.
    Source: xen/drivers/vpci/header.c (modify_bars).
    """
    place, untrapped = place_of(function), untrapped_reason(function, xen, pvh=pvh, version=version)
    physfn = functions.get(function.physfn) if function.physfn is not None else None
    hold_reason = _doubt(function, physfn, xen)
    if hold_reason is not None:
        return Desired(
            place,
            function.sbdf,
            hold_reason=hold_reason,
            untrapped=untrapped,
            outside_window=frozenset(outside_window),
        )
    by = By.US if untrapped is not None else By.XEN
    bars: list[DesiredBar] = []
    lost: set[int] = set()
    holes: tuple[Frames, ...] | None = None
    for bar in function.bars:
        span = decoding_range(bar)
        outside = by is By.XEN and _is_outside_window(bar, span, protected)
        beside = _beside_map(span, protected, version) if outside else None
        if outside and beside is None:
            lost.add(bar.index)
            continue
        if span is None:
            continue
        if holes is None:
            holes = trapped_frames(function, xen, pvh=pvh, version=version, followed=followed)
        pages: tuple[Frames, ...] = (frames_from_range(span),) if beside is None else beside
        if holes:
            pages = without(pages, holes)
        if pages:
            unsure = by is By.XEN and bar.index in outside_window
            lost |= {bar.index} if unsure else set()
            mapper = By.US if unsure else by
            bars.append(DesiredBar(place, function.sbdf, bar.index, pages, mapper, unsure))
    return Desired(place, function.sbdf, tuple(bars), untrapped=untrapped, outside_window=frozenset(lost))


def _is_outside_window(bar: Bar, span: Range | None, protected: Protected | None) -> bool:
    """Return True if a memory BAR decodes where vPCI maps nothing: at address 0 or on protected pages.

    `span` is the `decoding_range` of the BAR. If it is None, the result is True only for a BAR that decodes
    at address 0.
    """
    if span is None:
        return bar.kind is not BarKind.IO and bool(bar.decoding) and not bar.address
    return protected is not None and protected.why(frames_from_range(span)) is not None


def _beside_map(
    span: Range | None, protected: Protected | None, version: Version
) -> tuple[Frames, ...] | None:
    """Return the pages that vPCI maps of a BAR over the memory map; None if it maps none and lets it move.

    `span` is None for a BAR at address 0. None is returned if other protected pages are in the way.
    Source: xen/arch/x86/pci.c (pci_check_bar, pci_sanitize_bar_memory).
    """
    if not E820_CUTS_BARS.of(version):
        return None
    return protected.outside_map(frames_from_range(span)) if span is not None and protected else ()


def gone(place: str, sbdf: Sbdf) -> Desired:
    """Return the desired pages of a function that Linux has dropped: no pages, and `gone` is True."""
    return Desired(place, sbdf, untrapped="Linux has dropped it", gone=True)


def trapped_frames(
    function: Function, xen: XenView, *, pvh: bool, version: Version, followed: Followed = NOWHERE
) -> tuple[Frames, ...]:
    """Return the pages of a function that vPCI must trap: the pages of its MSI-X table and pending bit array.

    The result is empty on a PV dom0, if Xen does not list the function as dom0's (`is_trapped`), and if this
    Xen has no vPCI for it. A virtual function can have MSI-X structures, too.
    """
    if not pvh or not is_trapped(function.sbdf, xen, followed):
        return ()
    return () if has_no_vpci(function, version) else tuple(msix_frames(function))


def is_trapped(sbdf: Sbdf, xen: XenView, followed: Followed) -> bool:
    """Return True if Xen lists the function as dom0's. On a PVH dom0, vPCI must then trap its MSI-X pages.

    `sbdf` is Linux's address. Xen may list the function at this address, or at one of the addresses
    `followed[sbdf]`, at which pcipt told Xen of it after bus renumbering.
    """
    return any(xen.in_dom0(at) for at in (sbdf, *followed.get(sbdf, ())))


def decoding_range(bar: Bar) -> Range | None:
    """Return the bytes of memory that a BAR or ROM decodes now.

    None is returned if it does not decode, if it is unknown whether it decodes, or if `assigned_range`
    returns None.
    """
    if bar.kind is BarKind.IO or not bar.decoding:
        return None
    return assigned_range(bar)


def assigned_range(bar: Bar) -> Range | None:
    """Return the bytes of memory that the register of a BAR or ROM names, whether or not it decodes.

    None is returned for an I/O BAR, for address 0, if the size is unknown, or if the range reaches above 52
    bits.
    """
    span = bar.range
    if bar.kind is BarKind.IO or not bar.address or span is None or span.last >> ADDRESS_BITS:
        return None
    return span


def msix_frames(function: Function) -> Iterator[Frames]:
    """Yield the pages of the MSI-X table, then of the pending bit array, at the present BAR addresses.

    A structure is yielded whether or not its BAR decodes. A structure is left out if its BAR has no
    `assigned_range` (for example no address or no known size), or if the structure begins behind the end of
    the BAR. The two runs may have pages in common.
    """
    if function.msix is None:
        return
    for place in (function.msix.table, function.msix.pba):
        span = next(_inside(function.bars, place), None)
        if span is not None:
            yield frames_from_range(span)


def _inside(bars: Iterable[Bar], place: Place) -> Iterator[Range]:
    """Yield the bytes of an MSI-X structure in its BAR, cut at the end of the BAR.

    `place` is the structure's BAR, offset and size. Nothing is yielded if the BAR has no address or size, or
    if the structure begins behind the end of the BAR.
    """
    for bar in bars:
        span = assigned_range(bar)
        if bar.index == place.bar and span is not None and place.offset < span.size:
            size = min(place.size, span.size - place.offset)
            yield Range(Address(span.start + place.offset), size)


def _doubt(function: Function, physfn: Function | None, xen: XenView) -> str | None:
    """Return why the pages of a function cannot be known now, or None if they can be computed.

    There is a reason if a guest, Xen itself or quarantine owns the function, or if it is bound to
    xen-pciback. There is one if a function that is not virtual does not answer or cannot be read. For a
    virtual function, there is one if its physical function (`physfn`) is None, does not answer, cannot be
    read or has no known SR-IOV structure.
    """
    owner = xen.elsewhere.get(function.sbdf)
    if owner is not None:
        return f"it belongs to {owner}: what dom0 had mapped stays as Xen left it"
    if function.sbdf in xen.quarantined:
        return "it is quarantined: what dom0 had mapped stays as Xen left it"
    if function.driver == PCIBACK:
        return "it is given to xen-pciback: what dom0 had mapped stays as Xen left it"
    if function.physfn is not None:
        if physfn is None or not physfn.answers or physfn.sriov is None:
            return "its physical function cannot be read now, which alone tells where its BARs are"
        return None
    if function.answers is None:
        return "its config space cannot be read now"
    if not function.answers:
        return "it does not answer now: it is leaving, or its bus was renumbered"
    if function.command is None:
        return "its command register cannot be read now"
    return None
