"""Desired pages: the pages of dom0's 1:1 map that each function needs now, and who maps them. Pure.

A function that decodes memory needs the whole pages of its BARs. vPCI maps the BARs of the functions that it
handles: dom0 is PVH, Xen lists the function as dom0's, its header has type 0 or 1, and it is not virtual.
pcipt maps the BARs of all other functions, except those in segments that Xen cannot name: their BARs lie
inside BARs of a controller (VMD), to which the pages belong. On a PVH dom0, the MSI-X pages of a function
that Xen lists as dom0's are not desired, because vPCI must trap accesses to them. If something cannot be
known now, the mapped pages stay as they are: nothing is unmapped in doubt.
Source: xen/drivers/vpci/header.c (modify_bars, init_bars), vpci/msix.c (vpci_make_msix_hole).
"""

import enum
from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType

import attrs

from pcipt.pci import Address, Bar, BarKind, Frames, Function, HeaderType, Range, Sbdf, frames_from_range
from pcipt.remap.bar_ranges import decoding_range
from pcipt.remap.guard.protected import Protected
from pcipt.remap.intervals import without
from pcipt.remap.view import XenView
from pcipt.remap.vpci.msix import has_no_vpci, may_have_vpci, msix_frames
from pcipt.remap.vpci.sizes import NO_SIZES, Sizes, sees_resizing, sizes_at_setup
from pcipt.xen.releases import (
    E820_CUTS_BARS,
    VPCI_GOES_BAR_BY_BAR,
    Version,
)

Followed = Mapping[Sbdf, tuple[Sbdf, ...]]  # by Linux's address: other addresses of it in Xen's list
NOWHERE: Followed = MappingProxyType({})
PCIBACK = "pciback"
INSIDE = "Xen cannot name its segment (VMD): its BARs lie inside the BARs of its controller"
CAME_FROM_OUTSIDE = "decoded while it came here from a place where vPCI maps no BAR"
GROWN = "has grown, and vPCI of this Xen maps only its former size"
SIZE_UNKNOWN = "can be resized, and nobody knows how much of it vPCI of this Xen has mapped"
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
    vPCI handles the function, but nobody knows whether vPCI has mapped these pages, or it has not; `by` is US
    then, and `because` says why. Pages that vPCI has mapped behind the end of a BAR that has shrunk are among
    `spans`, too: they must stay mapped.
    """

    place: str
    sbdf: Sbdf
    bar: int
    spans: tuple[Frames, ...]
    by: By
    unsure: bool = False
    because: str = ""


@attrs.frozen
class LostBar:
    """A BAR that vPCI takes for mapped at `range` although a reset has cleared its register.

    `bar` is 0 to 5, or 6 for the ROM. `linux` is the address that Linux has for it, by its line of the sysfs
    file `resource`; without such a line it is the start of `range`. The two differ if Linux has assigned
    another address since, because vPCI drops what Linux writes.
    """

    bar: int
    range: Range
    linux: Address = attrs.field(default=attrs.Factory(lambda lost: lost.range.start, takes_self=True))


@attrs.frozen
class Desired:
    """The pages that all BARs of one function need now.

    `bars` has the BARs with pages that should be mapped, in BAR order; it may be empty. A BAR is there twice
    if vPCI maps a part of it, and pcipt the rest. If `hold_reason` is set, nothing may be concluded now for
    that reason: `bars` is empty, and the mapped pages must stay as they are. `untrapped` is the reason why
    vPCI does not handle the function, or None if vPCI handles it. `gone` is True if Linux has dropped the
    function. `outside_window` has the numbers of the BARs that decode at an address where vPCI maps nothing,
    and of the BARs that have just been moved away from such an address: vPCI lets such a BAR move, but maps
    nothing at the new address. With a `hold_reason`, these are the BARs of the last plan. `lost` are the
    BARs that vPCI takes for mapped although a reset has cleared them: their pages are needed, because vPCI's
    next unmap fails if one of them is not mapped. `rom_unmaps` is True if vPCI, when it unmaps the ROM,
    unmaps pages that BARs of the same function need.
    """

    place: str
    sbdf: Sbdf
    bars: tuple[DesiredBar, ...] = ()
    hold_reason: str | None = None
    untrapped: str | None = None
    gone: bool = False
    outside_window: frozenset[int] = frozenset()
    lost: tuple[LostBar, ...] = ()
    rom_unmaps: bool = False

    def spans(self, bar: int) -> tuple[Frames, ...]:
        """Return the pages that one BAR needs, whoever maps them, in the order of `bars`."""
        return tuple(span for wanted in self.bars if wanted.bar == bar for span in wanted.spans)

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
        return INSIDE
    if function.sbdf in xen.orphans:
        return "Xen lists it without an owner"
    if not xen.in_dom0(function.sbdf):
        return "Xen does not handle it for dom0"
    if has_no_vpci(function, version):
        return "this Xen has no vPCI for it, because its MSI-X table lies in no BAR"
    return None


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
    lost: tuple[LostBar, ...] = (),
    given_up: bool = False,
    sizes: Sizes | None = None,
    doubt: str | None = None,
) -> Desired:
    """Return the pages that one function needs now, or the reason why they cannot be known (`hold_reason`).

    If `function` is virtual and `functions` does not have its physical function, `hold_reason` is set. A
    function in a segment above ffff needs no pages of its own (see the module). `version` is that of Xen.
    `followed` are the addresses at which pcipt told Xen of renumbered functions. `protected` (RAM and pages
    that Xen does not give to dom0) matters only for a function that vPCI handles: if a BAR overlaps such a
    page, no page of the BAR is desired, because vPCI does not map the BAR. But where only entries of the
    memory map are in the way, some versions map the other pages (`E820_CUTS_BARS`): these are desired, and
    the BAR counts as mapped, also at address 0: vPCI drops writes to it while it decodes. `outside_window`
    are the BARs that `Desired.outside_window` had at the last plan. If vPCI handles the function and such a
    BAR now decodes at an address where vPCI maps BARs, the BAR is `unsure`, and pcipt maps it. `lost` are the
    BARs that vPCI takes for mapped although a reset has cleared them (`lost_bars`); they count only if vPCI
    handles the function. `given_up` is True if vPCI does not handle it any more, because it could not map a
    page. `sizes` are those that vPCI has of the function's Resizable BARs; None means that vPCI has just set
    the function up. They do not matter if vPCI sees BARs change their sizes. `doubt` is the reason why its
    registers are not believed (`vpci.shape.doubt_of`), which is a `hold_reason`.
    Source: xen/drivers/vpci/header.c (modify_bars).
    """
    place, untrapped = place_of(function), untrapped_reason(function, xen, pvh=pvh, version=version)
    if untrapped is None and given_up:
        untrapped = "vPCI could not set it up, or gave it up after a failed map"
    lost = lost if untrapped is None else ()
    physfn = functions.get(function.physfn) if function.physfn is not None else None
    hold_reason = doubt or _doubt(function, physfn, xen)
    if hold_reason is not None:
        return Desired(
            place,
            function.sbdf,
            hold_reason=hold_reason,
            untrapped=untrapped,
            outside_window=frozenset(outside_window),
            lost=lost,
        )
    if not function.sbdf.fits_xen:
        return Desired(place, function.sbdf, untrapped=untrapped)
    function = as_vpci_has_it(function, lost) if lost else function
    by = By.US if untrapped is not None else By.XEN
    old = _sizes_in_vpci(function, by, version, sizes)
    bars: list[DesiredBar] = []
    outside: set[int] = set()
    holes: tuple[Frames, ...] | None = None
    for bar in function.bars:
        span = decoding_range(bar)
        size = old.get(bar.index, bar.size)
        is_outside = by is By.XEN and size == bar.size and _is_outside_window(bar, span, protected)
        beside = _beside_map(span, protected, version) if is_outside else None
        if is_outside and beside is None:
            outside.add(bar.index)
            continue
        if span is None:
            continue
        if holes is None:
            holes = trapped_frames(
                function, xen, pvh=pvh, version=version, followed=followed, given_up=given_up
            )
        pages: tuple[Frames, ...] = (frames_from_range(span),) if beside is None else beside
        if holes:
            pages = without(pages, holes)
        unsure = by is By.XEN and bar.index in outside_window
        outside |= {bar.index} if unsure and pages else set()
        for spans, because in _parts(bar, pages, size, holes, protected, unsure=unsure):
            mapper = By.US if because else by
            bars.append(DesiredBar(place, function.sbdf, bar.index, spans, mapper, bool(because), because))
    return Desired(
        place, function.sbdf, tuple(bars), untrapped=untrapped, outside_window=frozenset(outside), lost=lost,
        rom_unmaps=by is By.XEN and VPCI_GOES_BAR_BY_BAR.of(version),
    )  # fmt: skip


def as_vpci_has_it(function: Function, lost: Iterable[LostBar]) -> Function:
    """Return the function with its lost BARs decoding where vPCI has them."""
    where = {each.bar: each.range.start for each in lost}
    bars = tuple(
        attrs.evolve(bar, address=where[bar.index], decoding=True) if bar.index in where else bar
        for bar in function.bars
    )
    return attrs.evolve(function, bars=bars)


def _sizes_in_vpci(function: Function, by: By, version: Version, sizes: Sizes | None) -> Sizes:
    """Return the sizes that vPCI has of Resizable BARs; empty if it sees them change, or does not map them.

    `sizes` is as in `desired_of`.
    """
    if by is By.US or not function.rebar or sees_resizing(version, pvh=True):
        return NO_SIZES
    return sizes_at_setup(function) if sizes is None else sizes


def _parts(
    bar: Bar,
    pages: tuple[Frames, ...],
    size: int | None,
    holes: tuple[Frames, ...],
    protected: Protected | None,
    *,
    unsure: bool,
) -> list[tuple[tuple[Frames, ...], str]]:
    """Return the pages of a BAR in parts: those of its usual mapper, and those that pcipt maps in any case.

    `pages` are those of the BAR as it is now, without the `holes` for MSI-X. `size` is the size that vPCI has
    of it, None if nobody knows; it is that of the BAR if that does not matter. If `unsure` is True, nobody
    knows whether vPCI has mapped the BAR. Each part has (pages, why pcipt maps them, or ""); a part without
    pages is left out.
    """
    parts: list[tuple[tuple[Frames, ...], str]]
    if unsure or size is None:
        parts = [(pages, CAME_FROM_OUTSIDE if unsure else SIZE_UNKNOWN)]
    elif size == bar.size:
        parts = [(pages, "")]
    else:
        whole = frames_from_range(Range(bar.address, size))
        refused = protected is not None and protected.why(whole) is not None
        theirs = () if refused else without((whole,), holes)
        parts = [(theirs, ""), (without(pages, theirs), GROWN)]
    return [(spans, because) for spans, because in parts if spans]


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
    function: Function,
    xen: XenView,
    *,
    pvh: bool,
    version: Version,
    followed: Followed = NOWHERE,
    given_up: bool = False,
) -> tuple[Frames, ...]:
    """Return the pages of a function that vPCI must trap: the pages of its MSI-X table and pending bit array.

    The result is empty on a PV dom0, and if `is_trapped` is False. A virtual function can have MSI-X
    structures, too.
    """
    if not pvh or not is_trapped(function, xen, version=version, followed=followed, given_up=given_up):
        return ()
    return tuple(msix_frames(function))


def is_trapped(
    function: Function,
    xen: XenView,
    *,
    version: Version,
    followed: Followed = NOWHERE,
    given_up: bool = False,
) -> bool:
    """Return True if the vPCI of a PVH dom0 must trap the MSI-X pages of a function.

    That is so if Xen lists the function as dom0's, except if this Xen has no vPCI for it (`has_no_vpci`), or
    has none any more (`given_up`): Xen then deletes what it knows of the tables, and traps no access to them.
    If nobody knows whether this build of Xen has vPCI for it, the result is that of one that has.
    Xen may list the function at Linux's address, or at one of the addresses `followed[function.sbdf]`, at
    which pcipt told Xen of it after bus renumbering.
    Source: Xen drivers/vpci/vpci.c (vpci_remove_device), msix.c (msix_find).
    """
    if given_up or (has_no_vpci(function, version) and not may_have_vpci(function, version)):
        return False
    return any(xen.in_dom0(at) for at in (function.sbdf, *followed.get(function.sbdf, ())))


def _doubt(function: Function, physfn: Function | None, xen: XenView) -> str | None:
    """Return why the pages of a function cannot be known now, or None if they can be computed.

    There is a reason if a guest, Xen itself or quarantine owns the function, or if it is bound to
    xen-pciback. There is one if a function that is not virtual does not answer or cannot be read. For a
    virtual function, there is one if its physical function (`physfn`) is None, does not answer, cannot be
    read or has no known SR-IOV structure.
    """
    owner = xen.elsewhere.get(function.sbdf)
    if owner is not None:
        return f"it belongs to {owner}: pcipt does not change what dom0 had mapped of it"
    if function.sbdf in xen.quarantined:
        return "it is quarantined: pcipt does not change what dom0 had mapped of it"
    if function.driver == PCIBACK:
        return "xen-pciback has it: pcipt does not change what dom0 had mapped of it"
    if function.physfn is not None:
        if physfn is None or not physfn.answers or physfn.sriov is None:
            return "its physical function cannot be read now, and only that function tells where its BARs are"
        return None
    if function.answers is None:
        return "its config space cannot be read now"
    if not function.answers:
        return "it does not answer now: it is leaving, or its bus was renumbered"
    if function.command is None:
        return "its command register cannot be read now"
    return None
