"""The guards of pages: the conditions under which dom0's 1:1 map, or a BAR, may be changed. Pure; PVH only.

A map over RAM loses that RAM, a map over other MMIO kills dom0, an unmap of a BAR in use takes the BAR from
its driver. The rules look at the machine as it was just read, and at the mapped pages; no rule walks the
whole machine. A rule returns the reason for a refusal, in words for the user, or None if it does not object.
Source: xen/arch/x86/mm/p2m.c (set_typed_p2m_entry, clear_mmio_p2m_entry).
"""

from collections.abc import Iterable

from pcipt.pci import Address, Bar, Bridge, Frames, Function, Machine, Range, WindowKind, frames_from_range
from pcipt.pci.bars import name_of_bar
from pcipt.pci.space.windows import is_subtractive
from pcipt.remap.actions import Action, MapMmio, RestoreReserved, RewriteBar, UnmapMmio, WithdrawReserved
from pcipt.remap.bar_ranges import assigned_range
from pcipt.remap.desired import By
from pcipt.remap.guard.facts import Facts, Rule
from pcipt.remap.intervals import common, without
from pcipt.remap.life import State
from pcipt.remap.plan_moves import bridges_above, subtree
from pcipt.remap.plan_reserved import who_needs
from pcipt.remap.vpci.trapped import lost_tables

#  functions that dom0 needs all the time although no driver is bound (a disk or serial console has a driver)
NOT_SPARED = {
    0x0600: "a host bridge",
    0x0806: "an IOMMU, which Xen drives",
    0x0300: "a display, which may be the console",
}
MEMORY_WINDOWS = (WindowKind.MEMORY, WindowKind.PREFETCHABLE)

Mapping = MapMmio | UnmapMmio
Region = WithdrawReserved | RestoreReserved


def _subject(action: Mapping | RewriteBar, facts: Facts) -> Function | None:
    """Return the function at the action's address, or None if Linux has no function there."""
    return facts.machine.functions.get(action.sbdf)


def _certain(action: Mapping, facts: Facts) -> str | None:
    """Refuse to change pages of a function whose desired pages are unknown now (`Desired.hold_reason`).

    A function that Linux does not have is not refused.
    """
    desired = facts.desired(action.sbdf)
    return desired.hold_reason if desired is not None else None


def _claimed(action: MapMmio, facts: Facts) -> str | None:
    """Refuse to map pages if some of them are not desired for this BAR now.

    All pages are refused if Linux does not have the function.
    """
    desired = facts.desired(action.sbdf)
    spans = (
        [span for wanted in desired.bars if wanted.bar == action.bar for span in wanted.spans]
        if desired
        else []
    )
    if without((action.frames,), spans):
        return f"{name_of_bar(action.bar)} does not decode there now"
    return None


def _left_to_vpci(action: MapMmio, facts: Facts) -> str | None:
    """Refuse to map pages of a function that vPCI handles, except pages that vPCI may not have mapped.

    The exceptions are desired pages of an `unsure` BAR, and pages that are recorded as INTENDED or DOUBTFUL
    for the function's place: a call of pcipt that failed may have unmapped them.
    """
    desired = facts.desired(action.sbdf)
    if desired is None or desired.by is By.US:
        return None
    unsure = (State.DOUBTFUL, State.INTENDED)
    ours = [run.frames for run in facts.mapped.of(action.place) if run.state in unsure]
    ours += [
        span for wanted in desired.bars if wanted.bar == action.bar and wanted.unsure for span in wanted.spans
    ]
    if not without((action.frames,), ours):
        return None
    return "vPCI handles this function and maps its BARs itself"


def _unprotected(action: Mapping, facts: Facts) -> str | None:
    """Refuse to map or unmap pages that overlap protected pages (`Protected.why`)."""
    why = facts.protected.why(action.frames)
    return f"the pages overlap {why}" if why is not None else None


def _no_trapped_pages(action: MapMmio | RestoreReserved, facts: Facts) -> str | None:
    """Refuse to map pages if vPCI must trap some of them for MSI-X.

    Cause: vPCI would not see accesses to the MSI-X table if its pages were mapped.

    Source: xen/drivers/vpci/msix.c.
    """
    for sbdf in facts.bars.tables_over(action.frames):
        if facts.is_trapped(facts.machine.functions[sbdf]):
            return f"MSI-X structures of {sbdf} lie in these pages, and Xen must trap the pages"
    for sbdf, counted in facts.counted.items():
        function = facts.answered(sbdf)
        if function and any(table.overlaps(action.frames) for table in lost_tables(function, counted)):
            return f"MSI-X structures of {sbdf} were in these pages before a reset, and Xen still traps them"
    hidden = facts.hidden_msix and facts.hidden_msix & {bar.sbdf for bar in facts.bars.over(action.frames)}
    why = "Xen hides MSI-X of {} from dom0 but traps its pages, and dom0 cannot read which pages these are"
    return why.format(min(hidden)) if hidden else None


def _no_other_owner(action: MapMmio, facts: Facts) -> str | None:
    """Refuse to map pages of a BAR if a BAR of another function decodes some of the same bytes.

    If the BAR has no address or size, the bytes of the pages count as its bytes. Pages that overlap a
    decoding BAR of a guest's or Xen's function are refused, too. Nothing is refused if Linux does not have
    the function. `_conflict` names BARs that are left out.
    """
    function = _subject(action, facts)
    bar = _bar_of(function, action.bar)
    span = assigned_range(bar) if bar is not None else None
    return _conflict(function, span or action.frames.range, action.frames, facts)


def _conflict(function: Function | None, span: Range, frames: Frames, facts: Facts) -> str | None:
    """Return a BAR of another function that decodes bytes of `span`, in words, or None if there is none.

    A BAR of a guest's or Xen's function is returned even if only its pages overlap `frames`. BARs that do not
    decode now are left out. BARs of functions in segments above ffff are left out, because such a BAR (VMD)
    lies inside its controller's BAR. None is returned if `function` is None or in such a segment.
    """
    for other in facts.bars.over(frames):
        if function is None or other.sbdf == function.sbdf or not other.decoding:
            continue
        if not other.sbdf.fits_xen or not function.sbdf.fits_xen:
            continue  # BARs of a segment above ffff (VMD) lie inside their controller's
        where = f"{name_of_bar(other.bar)} of {other.sbdf} at {other.range}"
        owner = facts.xen.elsewhere.get(other.sbdf)
        if owner is not None:
            return f"{where} belongs to {owner} and shares pages with this BAR"
        if other.range.overlaps(span):
            return f"{where} decodes the same addresses"
    return None


def _reached(action: MapMmio, facts: Facts) -> str | None:
    """Refuse to map pages of a BAR if a bridge above its function does not pass the BAR's range on.

    Not refused if Linux does not have the function, or if the BAR has no address or size.
    """
    function = _subject(action, facts)
    bar = _bar_of(function, action.bar)
    span = assigned_range(bar) if bar is not None else None
    if function is None or span is None:
        return None
    return outside_window(function, span, facts.machine)


def outside_window(function: Function, span: Range, machine: Machine) -> str | None:
    """Return which bridge above a function does not pass all of `span` on, in words; None if all bridges do.

    Behind such a bridge no BAR decodes at these addresses. The bridge nearest to the function is returned. A
    bridge whose windows could not be read is skipped.
    """
    for above in bridges_above(machine, function.sbdf):
        if above.bridge is not None and not _passes(above, above.bridge, span):
            return f"the bridge {above.sbdf} does not pass {span} on: nothing behind it answers there"
    return None


def _passes(function: Function, bridge: Bridge, span: Range) -> bool:
    """Return True if one of a bridge's memory windows contains all of `span`.

    For a bridge with subtractive decode or with Enhanced Allocation the result is always True.
    """
    if is_subtractive(function) or function.allocations:
        return True
    return any(
        window.kind in MEMORY_WINDOWS and window.base <= span.start and span.last <= window.limit
        for window in bridge.windows
    )


def _mapped_for_bar(action: UnmapMmio, facts: Facts) -> str | None:
    """Refuse to unmap pages if some of them are not recorded, in any state, for this BAR."""
    mapped = [run.frames for run in facts.mapped.of(action.place) if run.bar == action.bar]
    if without((action.frames,), mapped):
        return "the ledger does not show that these pages were mapped for this BAR"
    return None


def _decodes_nowhere(action: UnmapMmio, facts: Facts) -> str | None:
    """Refuse to unmap pages that a BAR of the same function needs, or that another function's BAR overlaps.

    It does not matter whether the BAR of the other function decodes: pages that vPCI maps for it cannot be
    told from pages that pcipt mapped.
    """
    desired = facts.desired(action.sbdf)
    own = [span for wanted in desired.bars for span in wanted.spans] if desired is not None else []
    if common(own, (action.frames,)):
        return "a BAR of the function itself decodes at these pages again"
    for other in facts.bars.over(action.frames):
        if other.place != action.place:
            return f"{name_of_bar(other.bar)} of {other.sbdf} is at {other.range}"
    return None


def _not_needed(action: UnmapMmio, facts: Facts) -> str | None:
    """Refuse to unmap pages if some of them are recorded as HELD for another BAR, too.

    The record (`facts.mapped`) is used because `facts.bars` lacks functions that cannot be read now, such as
    renumbered functions. Their pages are still in the record.
    """
    for run in facts.mapped.over(action.frames):
        if (run.place, run.bar) != (action.place, action.bar) and run.state is State.HELD:
            return f"these pages are also mapped for {name_of_bar(run.bar)} of {run.sbdf}"
    return None


def _bar_of(function: Function | None, index: int) -> Bar | None:
    """Return the BAR with this number, or None if the function is None or has no such BAR."""
    bars: Iterable[Bar] = function.bars if function is not None else ()
    return next((bar for bar in bars if bar.index == index), None)


def _writable(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to rewrite a BAR of a function that does not answer, that cannot be read, or that is virtual.

    A function that Linux does not have is refused, too.
    """
    function = _subject(action, facts)
    if function is None or not function.answers:
        return "it does not answer now"
    if function.physfn is not None:
        return "a virtual function has no BAR registers"
    return None


def _dom0s(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to rewrite a BAR of a function that a guest or Xen itself owns, or that is quarantined.

    An orphan, and a function that Xen does not list, are not refused.
    """
    owner = facts.xen.elsewhere.get(action.sbdf)
    if owner is not None:
        return f"it belongs to {owner}"
    return "it is quarantined" if action.sbdf in facts.xen.quarantined else None


def _unbound(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to rewrite a BAR while a driver is bound to the function or to a function behind it."""
    function = _subject(action, facts)
    bound = [function] if function is not None else []
    bound += subtree(facts.machine, action.sbdf)
    names = ", ".join(f"{each.sbdf} ({each.driver})" for each in bound if each.driver is not None)
    why = f"memory decode must be off for the write, but drivers need it: {names}"
    return f"{why}; unbind them, then pcipt resync" if names else None


def _spared(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to rewrite a BAR of a host bridge, an IOMMU, a display, or a function with virtual functions.

    dom0 needs the first three all the time. A function whose class is unknown is not refused for its class.
    """
    function = _subject(action, facts)
    code = function.ids.class_code if function is not None else None
    what = NOT_SPARED.get(code >> 8) if code is not None else None
    if what is not None:
        return f"it is {what}: memory decode must be off for the write, and dom0 needs it all the time"
    virtual = facts.bars.virtual(action.sbdf)
    names = ", ".join(map(str, virtual[:4]))
    why = f"memory decode must be off for the write, but virtual functions need it: {names}"
    return f"{why}; write 0 to its sriov_numvfs first" if virtual else None


def _still_ignored(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to rewrite a BAR that is missing, is not at `action.before` any more, or has no known size."""
    bar = _bar_of(_subject(action, facts), action.bar)
    if bar is not None and bar.size and bar.address == action.before:
        return None
    return f"{name_of_bar(action.bar)} is not at {action.before:#x} any more"


def _target(action: RewriteBar, facts: Facts) -> tuple[Function, Range] | None:
    """Return the function and the range that its BAR will have after the rewrite.

    None is returned if Linux does not have the function, if the function has no such BAR, or if the BAR's
    size is unknown.
    """
    function = _subject(action, facts)
    bar = _bar_of(function, action.bar)
    if function is None or bar is None or not bar.size:
        return None
    return function, Range(Address(action.address), bar.size)


def _target_unprotected(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to move a BAR to pages that overlap protected pages; not refused if `_target` returns None."""
    target = _target(action, facts)
    why = facts.protected.why(frames_from_range(target[1])) if target is not None else None
    return f"the new address overlaps {why}" if why is not None else None


def _target_free(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to move a BAR to bytes of any other BAR, whether or not that BAR decodes.

    The other BAR may be of the same function or of another one. Pages that overlap a decoding BAR of a
    guest's or Xen's function are refused, too. Nothing is refused if `_target` returns None.
    """
    target = _target(action, facts)
    if target is None:
        return None
    function, span = target
    frames = frames_from_range(span)
    for other in facts.bars.over(frames):
        # a BAR that does not decode yet would collide as soon as its driver switches decode on
        if (other.sbdf, other.bar) != (action.sbdf, action.bar) and other.range.overlaps(span):
            return f"{name_of_bar(other.bar)} of {other.sbdf} is at {other.range}"
    return _conflict(function, span, frames, facts)


def _target_reached(action: RewriteBar, facts: Facts) -> str | None:
    """Refuse to move a BAR to a range if a bridge above its function does not pass all of it on.

    Nothing is refused if `_target` returns None.
    """
    target = _target(action, facts)
    return outside_window(*target, facts.machine) if target is not None else None


def _known_region(action: Region, facts: Facts) -> str | None:
    """Refuse to withdraw or restore a region unless `facts.regions` has a region with exactly these pages."""
    return None if action.frames in facts.regions else "neither Xen nor the firmware names such a region"


def _region_unprotected(action: Region, facts: Facts) -> str | None:
    """Refuse to withdraw or restore a region that overlaps protected pages (`Protected.why_not_reserved`)."""
    why = facts.protected.why_not_reserved(action.frames)
    return f"the pages overlap {why}" if why is not None else None


def _no_scope_device(action: WithdrawReserved, facts: Facts) -> str | None:
    """Refuse to withdraw a region that a device of dom0 still needs (`who_needs`): its DMA would fault.

    The devices of all regions that overlap this one are looked at, because these regions share pages.
    """
    names = needing_devices(action.frames, facts)
    return f"{names} in dom0 still needs the region" if names else None


def needing_devices(frames: Frames, facts: Facts) -> str:
    """Return up to four devices of dom0 that need a reserved region over these pages, as text; "" if none."""
    overlapping = [scope for span, scope in facts.regions.items() if span.overlaps(frames)]
    found = {who_needs(sbdf, facts.machine, facts.xen, facts.where) for each in overlapping for sbdf in each}
    return ", ".join(map(str, sorted(linux for linux in found if linux is not None)[:4]))


def _no_bar(action: WithdrawReserved, facts: Facts) -> str | None:
    """Refuse to withdraw a region if a BAR lies on one of its pages, or if a page is recorded for a BAR.

    It does not matter whether the BAR decodes, nor in which state the page is recorded. Firmware may give a
    page both to a region and to a BAR (XSA-461): the BAR's driver would lose the page.
    """
    for other in facts.bars.over(action.frames):
        return f"{name_of_bar(other.bar)} of {other.sbdf} is at {other.range}"
    for run in facts.mapped.over(action.frames):
        return f"these pages are also mapped for {name_of_bar(run.bar)} of {run.sbdf}"
    return None


#        name, kind of action, rule
PAGE_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("certain", MapMmio, _certain),
    ("claimed", MapMmio, _claimed),
    ("not-vpci", MapMmio, _left_to_vpci),
    ("protected", MapMmio, _unprotected),
    ("msix-pages", MapMmio, _no_trapped_pages),
    ("other-owner", MapMmio, _no_other_owner),
    ("bridge-window", MapMmio, _reached),
    ("certain", UnmapMmio, _certain),
    ("held", UnmapMmio, _mapped_for_bar),
    ("protected", UnmapMmio, _unprotected),
    ("decodes-nowhere", UnmapMmio, _decodes_nowhere),
    ("not-needed", UnmapMmio, _not_needed),
    ("hardware-answers", RewriteBar, _writable),
    ("owned-by-dom0", RewriteBar, _dom0s),
    ("unbound", RewriteBar, _unbound),
    ("spared", RewriteBar, _spared),
    ("still-ignored", RewriteBar, _still_ignored),
    ("protected", RewriteBar, _target_unprotected),
    ("target-free", RewriteBar, _target_free),
    ("bridge-window", RewriteBar, _target_reached),
    ("known-region", WithdrawReserved, _known_region),
    ("protected", WithdrawReserved, _region_unprotected),
    ("scope-devices", WithdrawReserved, _no_scope_device),
    ("no-bar", WithdrawReserved, _no_bar),
    ("known-region", RestoreReserved, _known_region),
    ("protected", RestoreReserved, _region_unprotected),
    ("msix-pages", RestoreReserved, _no_trapped_pages),
)
