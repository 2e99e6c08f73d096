"""The guards of announcements: the conditions under which Xen is told to add or remove a function. Pure.

A rule returns the reason for a refusal, in words for the user, or None if it does not object.
"""

from pcipt.firmware.coverage import Coverage
from pcipt.pci import BarKind, Function, HeaderType, Sbdf
from pcipt.pci.requester import Requester, requester_of
from pcipt.remap.actions import Action, AddDevice, RemoveDevice
from pcipt.remap.desired import place_of
from pcipt.remap.guard.facts import Facts, Rule
from pcipt.remap.guard.msix import HIDES, why_not_taken
from pcipt.remap.guard.shared import SHARED_RULES, linux_of, moving
from pcipt.remap.guard.uncovered import why_uncovered
from pcipt.remap.kinds.domains import aliased
from pcipt.remap.kinds.virtual import vfs_are_on
from pcipt.remap.plan_moves import subtree, top_of_move
from pcipt.remap.vpci.msix import refuses_msix
from pcipt.xen.releases import (
    IO_VF_BAR_HANGS,
    ORPHAN_REMOVAL_PANICS,
    UNFINISHED_MAP_PANICS,
)

CARDBUS = 0x0607  # base class and subclass


def _subject(action: AddDevice | RemoveDevice, facts: Facts) -> Function | None:
    """Return the function of an action, or None if Linux does not have it.

    Linux has a renumbered function at `moved_from`, any other function at the action's address.
    """
    linux = action.moved_from if isinstance(action, AddDevice) and action.moved_from else action.sbdf
    return facts.machine.functions.get(linux)


def _as_read(action: AddDevice, facts: Facts) -> Function | None:
    """Return the function that is added, with the registers that it had when it answered last.

    A renumbered function cannot be read: if nobody has read it before, its registers are unknown.
    """
    function = _subject(action, facts)
    if function is None or action.moved_from is None:
        return function
    return facts.answered(action.moved_from) or function


def _segment(action: Action, _facts: Facts) -> str | None:
    """Refuse a function in a segment above ffff, which Xen cannot name."""
    if action.sbdf.fits_xen:
        return None
    return f"segment {action.sbdf.segment:x} is above ffff, Xen cannot name it"


def _present(action: AddDevice, facts: Facts) -> str | None:
    """Refuse to add a function that Linux does not have, that does not answer or that cannot be read.

    Xen would list it as an orphan. A renumbered function is an exception, because it cannot be read at the
    address in Linux: it is refused only if Linux does not have it, or if the bridges' bus numbers do not lead
    to the action's address any more.
    """
    function = _subject(action, facts)
    if function is None:
        return "Linux does not have it (any more)"
    if action.moved_from is not None:
        if facts.moves.get(action.moved_from) == action.sbdf:
            return None
        return f"the bus numbers have changed again: {action.moved_from} is not at {action.sbdf} any more"
    if function.answers is None:
        return "its config space cannot be read, so pcipt does not know whether the device is present"
    return None if function.answers else "the hardware does not answer: config space reads all ones"


def _sizes_only(action: AddDevice, facts: Facts) -> bool:
    """Return True if Xen knows the function as dom0's, and the add only makes Xen size its VF BARs.

    pcipt itself has told Xen of it with the same flags (`plan_sizing`).
    """
    return action.sbdf in facts.unsized and not action.vfs_on and facts.xen.in_dom0(action.sbdf)


def _vfs_as_planned(action: AddDevice, facts: Facts) -> str | None:
    """Refuse an add if virtual functions were switched on or off since it was planned."""
    function = _subject(action, facts)
    if function is None:
        return None
    on = vfs_are_on(function, {function.sbdf} if facts.bars.virtual(function.sbdf) else ())
    if on is action.vfs_on:
        return None
    return (
        f"its virtual functions were switched {'on' if on else 'off'} after this was planned; pcipt plans "
        "again"
    )


def _unknown_or_orphan(action: AddDevice, facts: Facts) -> str | None:
    """Refuse to add a function that Xen lists with an owner, unless Xen is to size its VF BARs.

    The add would overwrite what Xen keeps of it: node and flags (xen/drivers/passthrough/pci.c,
    pci_add_device).
    """
    known = action.sbdf in facts.xen.known and action.sbdf not in facts.xen.orphans
    known = known and not _sizes_only(action, facts)
    return "Xen knows it already; announcing it again would overwrite what Xen holds" if known else None


def _physical_first(action: AddDevice, facts: Facts) -> str | None:
    """Refuse to add a virtual function unless Xen lists its physical function as dom0's."""
    if action.physfn is None or facts.xen.in_dom0(action.physfn):
        return None
    return (
        f"Xen does not list its physical function {action.physfn} as dom0's; that function must be "
        "announced first"
    )


def _header_for_vpci(action: AddDevice, facts: Facts) -> str | None:
    """On a PVH dom0, refuse to add a function whose header type is neither 0 nor 1: vPCI does not know it.

    A virtual function is not refused. Of a renumbered one that nobody has read before only the class counts,
    which Linux keeps.
    """
    function = _as_read(action, facts)
    if not facts.pvh or function is None or function.physfn is not None:
        return None
    if not function.answers:
        cardbus = (function.ids.class_code or 0) >> 8 == CARDBUS
        return "vPCI cannot set up a CardBus bridge: the add would leave an orphan" if cardbus else None
    if function.header in (HeaderType.ENDPOINT, HeaderType.BRIDGE):
        return None
    return f"vPCI cannot set up a header of type {function.header.value}: the add would leave an orphan"


def _io_vf_bar(action: AddDevice, facts: Facts) -> str | None:
    """Refuse to add a function with a VF BAR for I/O ports, if this Xen hangs on it (`IO_VF_BAR_HANGS`).

    A function that Linux does not have or whose SR-IOV structure cannot be read is not refused.
    """
    function = _as_read(action, facts)
    sriov = function.sriov if function is not None else None
    if not IO_VF_BAR_HANGS.of(facts.version) or sriov is None:
        return None
    if any(bar.kind is BarKind.IO for bar in sriov.bars):
        return "a VF BAR claims I/O space: this Xen would hang when it reads the size of such a BAR"
    return None


def _msix_taken(action: AddDevice, facts: Facts) -> str | None:
    """On a PVH dom0, refuse to add a function whose MSI-X structure this Xen cannot take (`refuses_msix`).

    That is so for a virtual function with MSI-X, for a table that lies in no BAR or over RAM, and while the
    table's BAR has no address: Xen then looks for the table in the first pages of dom0's RAM. A renumbered
    virtual function that nobody has read before is refused unless Xen took it at its former address.
    Source: Xen drivers/vpci/msix.c (init_msix, vpci_make_msix_hole).
    """
    function = _as_read(action, facts)
    if not facts.pvh or function is None or not refuses_msix(facts.version) or _sizes_only(action, facts):
        return None
    before = (
        f"this Xen cannot handle its MSI-X structure as it was read last (Xen {HIDES} hides such a structure)"
    )
    if not function.answers and place_of(function) in facts.faulty:
        return before
    if function.physfn is not None and not function.answers and not _was_taken(function, facts):
        return "nobody knows whether it has MSI-X, and this Xen cannot handle a virtual function with MSI-X"
    why, here = why_not_taken(function, facts), _subject(action, facts)
    return before if why and function.physfn is None and not (here and here.answers) else why


def _was_taken(function: Function, facts: Facts) -> bool:
    """Return True if Xen lists a renumbered function as dom0's at an address where it was before."""
    return any(map(facts.xen.in_dom0, (function.sbdf, *facts.followed.get(function.sbdf, ()))))


def _requester(action: AddDevice, facts: Facts) -> Requester:
    """Return what Xen asks the IOMMU's tables about when it adds the function."""
    function = _subject(action, facts)
    if function is None:
        return Requester(action.sbdf, action.physfn, action.extended)
    seen = requester_of(function, facts.machine, action.sbdf)
    return Requester(seen.sbdf, action.physfn, seen.extended, seen.role)


def _coverage(action: AddDevice, facts: Facts) -> Coverage:
    """Return how certain it is that an IOMMU unit covers the function at the action's address.

    Where dom0 cannot know it, it is certain if Xen has taken a function at the address since boot.
    Source: Xen drivers/passthrough/amd/pci_amd_iommu.c (amd_iommu_add_device): the unit follows from the
            address, by what IVRS said at boot.
    """
    coverage = facts.iommu.covers(_requester(action, facts))
    taken = coverage is Coverage.UNKNOWN and action.sbdf in facts.served
    return Coverage.CERTAIN if taken else coverage


def _covered(action: AddDevice, facts: Facts) -> str | None:
    """Refuse to add a function if it is not shown that an IOMMU unit covers it.

    An orphan is not refused, because it is what a failed add leaves; but it is if Xen said that no unit
    serves it: Xen decides that by what it read at boot.
    Source: Xen drivers/passthrough/vtd/iommu.c (domain_context_mapping), amd/pci_amd_iommu.c
            (amd_iommu_add_device): ENODEV.
    """
    if action.sbdf in facts.unserved:
        return "Xen said that no IOMMU unit serves it: each add fails; reboot with the function in place"
    coverage = _coverage(action, facts)
    if coverage not in (Coverage.NONE, Coverage.UNKNOWN) or action.sbdf in facts.xen.orphans:
        return None
    if _sizes_only(action, facts):
        return None
    return why_uncovered(action, _requester(action, facts), facts)


def decode_endangers(action: AddDevice, facts: Facts) -> bool:
    """Return True if memory decode must be off during an add, because Xen would panic if the add failed.

    That is so on a PVH dom0 with a Xen that panics then (`UNFINISHED_MAP_PANICS`), if the function decodes
    memory or nobody knows whether it does, and if it is not certain that an IOMMU unit covers it. Cause of
    the panic: when Xen forgets the function after the failed add, its BARs are still in vPCI's queue of pages
    to map. The result is False if Linux does not have the function.
    """
    function = _subject(action, facts)
    if not facts.pvh or not UNFINISHED_MAP_PANICS.of(facts.version) or function is None:
        return False
    if _sizes_only(action, facts):
        return False
    return function.decodes_memory is not False and _coverage(action, facts) is not Coverage.CERTAIN


def _driver_needs_decode(action: AddDevice, facts: Facts) -> str | None:
    """Refuse an add for which memory decode must be off (`decode_endangers`) if it cannot be switched off:
    of a virtual function, and if a driver is bound to the function or to a function behind it.
    """
    function = _subject(action, facts)
    if function is None or not decode_endangers(action, facts):
        return None
    if function.physfn is not None:
        return (
            "the add may fail, and then this Xen panics unless memory decode is off; pcipt cannot switch it "
            "off for a virtual function"
        )
    if function.driver is not None:
        return (
            "it is not certain that an IOMMU unit serves it, so memory decode must be off during the add, "
            f"but driver {function.driver} needs memory decode: unbind the driver, then pcipt resync"
        )
    bound = _bound_behind(function, facts)
    if not bound:
        return None
    return (
        f"memory decode must be off during the add, but drivers behind the bridge need it: {bound}; unbind "
        "these drivers, then pcipt resync"
    )


def _driverless(action: AddDevice | RemoveDevice, facts: Facts) -> str | None:
    """Refuse to add or remove a renumbered function while a driver is bound behind the renumbered bridge.

    Cause: DMA and interrupts of such a driver still use Xen's entry at the old address. A function that is
    not renumbered is not refused.
    """
    linux = moving(action, facts)
    top = top_of_move(facts.machine, facts.moves, linux) if linux is not None else None
    bound = _bound_behind(top, facts) if top is not None else ""
    if not bound:
        return None
    return f"behind the renumbered bridge, functions still have drivers: {bound}"


def _bound_behind(bridge: Function, facts: Facts) -> str:
    """Return the functions behind a bridge that have drivers, in words; empty if there are none.

    At most four are named, sorted. The bridge itself is left out.
    """
    behind = subtree(facts.machine, bridge.sbdf)
    names = [f"{function.sbdf} ({function.driver})" for function in behind if function.driver is not None]
    return ", ".join(sorted(names)[:4])


def _in_dom0(action: RemoveDevice, facts: Facts) -> str | None:
    """Refuse to remove a function unless Xen lists it as dom0's, or as an orphan that it can remove.

    Xen removes a function without asking who owns it; some versions panic at an orphan
    (`ORPHAN_REMOVAL_PANICS`). Any removal is refused if Xen does not tell the owners of all functions that it
    lists (`XenView.custody_told`).
    """
    if action.sbdf not in facts.xen.known:
        return "Xen does not know it"
    if action.sbdf in facts.xen.orphans:
        if ORPHAN_REMOVAL_PANICS.of(facts.version):
            return "Xen lists it without an owner (orphan): removing it would panic this Xen"
        return None
    if action.sbdf in facts.xen.elsewhere:
        return f"it belongs to {facts.xen.elsewhere[action.sbdf]}"
    if action.sbdf in facts.xen.quarantined:
        return "it is quarantined: somebody took it out of dom0 for a guest"
    return None if facts.xen.custody_told else "Xen does not say who owns it"


def _gone_from_linux(action: RemoveDevice, facts: Facts) -> str | None:
    """Refuse to remove a function at an address at which Linux has one, or to which renumbered buses lead, or
    by which Linux may have told Xen of a function in a segment that Xen cannot name (VMD).

    A function that Linux has at the address is no reason if bus renumbering moved it to `moved_to`. A
    conventional bridge, or a function behind one, that is told of anew is no reason while no driver is bound
    to it or behind it.
    """
    if action.sbdf in facts.moves.values():
        return "after bus renumbering a function answers at this address"
    cut = aliased(action.sbdf, facts.bars)
    if cut:
        return (
            f"Linux still has {cut[0]}, and will use this address when it tells Xen of the removal of "
            f"{cut[0]}"
        )
    function = facts.machine.functions.get(action.sbdf)
    moved = action.moved_to is not None and facts.moves.get(action.sbdf) == action.moved_to
    if function is None or moved:
        return None
    if action.anew and facts.bridges.above_or_at(facts.machine, action.sbdf):
        names = _bound_behind(function, facts) or (function.driver and f"{function.sbdf} ({function.driver})")
        return f"drivers need the bridge: {names}; unbind these drivers, then pcipt resync" if names else None
    bound = f", driver {function.driver} is bound" if function.driver else ""
    return f"Linux still has it{bound}"


def _announced_where_it_is(action: RemoveDevice, facts: Facts) -> str | None:
    """Refuse to remove a renumbered function unless Xen lists it as dom0's at its new address `moved_to`.

    Behind a conventional bridge the removal comes first; there it is refused if the new address may not be
    covered by an IOMMU unit.
    """
    if action.moved_to is None or facts.xen.in_dom0(action.moved_to):
        return None
    linux = linux_of(action, facts)
    if linux is not None and facts.bridges.top(facts.machine, linux) is not None:
        return _covered(AddDevice(action.moved_to, "", moved_from=linux), facts)
    return (
        f"the function is at {action.moved_to} now, and Xen does not know it there yet; it must be "
        "announced there first"
    )


def _no_virtual_functions(action: RemoveDevice, facts: Facts) -> str | None:
    """Refuse to remove a physical function while the machine has its virtual functions.

    If the function was renumbered, a virtual function is a reason only if Xen lists it at Linux's address of
    that virtual function.
    """
    vfs = facts.bars.virtual(action.sbdf)
    if action.moved_to is not None:
        vfs = [vf for vf in vfs if vf in facts.xen.known]
    return f"its virtual functions are still there: {', '.join(map(str, vfs[:4]))}" if vfs else None


def _no_children(action: RemoveDevice, facts: Facts) -> str | None:
    """Refuse to remove a bridge while Xen lists functions behind it at addresses that they have left.

    Cause: when Xen forgets a bridge, it also forgets that this bridge is above the buses behind it. A bridge
    that Linux has neither at the action's address nor at `moved_to` is not refused.

    Source: xen/drivers/passthrough/pci.c (free_pdev).
    """
    linux = next((at for at in (action.sbdf, action.moved_to) if at in facts.machine.functions), None)
    if linux is None:
        return None
    listed: set[Sbdf] = set()
    for child in subtree(facts.machine, linux):
        elsewhere = {child.sbdf, *facts.followed.get(child.sbdf, ())}
        listed |= elsewhere - {facts.moves.get(child.sbdf, child.sbdf)}
    listed &= facts.xen.known - set(facts.moves.values())
    if not listed:
        return None
    return (
        f"Xen still lists functions that were behind this bridge: {', '.join(map(str, sorted(listed)[:4]))}"
    )


#        name, kind of action, rule
DEVICE_RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    ("segment", AddDevice, _segment),
    ("segment", RemoveDevice, _segment),
    ("hardware-answers", AddDevice, _present),
    ("not-known", AddDevice, _unknown_or_orphan),
    ("vfs-as-planned", AddDevice, _vfs_as_planned),
    ("physical-function-first", AddDevice, _physical_first),
    ("header-type", AddDevice, _header_for_vpci),
    ("vf-bar-io", AddDevice, _io_vf_bar),
    ("msix-taken", AddDevice, _msix_taken),
    ("iommu-coverage", AddDevice, _covered),
    ("driverless-subtree", AddDevice, _driverless),
    ("driver-needs-decode", AddDevice, _driver_needs_decode),
    ("owned-by-dom0", RemoveDevice, _in_dom0),
    ("gone-from-linux", RemoveDevice, _gone_from_linux),
    ("announced-where-it-is", RemoveDevice, _announced_where_it_is),
    ("driverless-subtree", RemoveDevice, _driverless),
    ("virtual-functions", RemoveDevice, _no_virtual_functions),
    ("children", RemoveDevice, _no_children),
    *SHARED_RULES,
)
