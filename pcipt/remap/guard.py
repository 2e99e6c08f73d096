"""The guards: what must hold before Xen is told anything, one row a rule. Pure.

A rule looks at an action and the facts and gives None or the reason for a refusal; the first refusal counts.
Three of them stand between pcipt and a host panic (reference: Xen 4.17, measured in the lab):
removing an orphan; adding what no IOMMU unit covers (it leaves an orphan, or with memory decode on a PVH dom0
panics at once); everything else keeps guests and drivers from losing a device under them.
"""

import enum
from collections.abc import Callable

import attrs

from pcipt.firmware.coverage import Coverage, IommuScope
from pcipt.pci import BarKind, Function, HeaderType, Machine
from pcipt.remap.actions import Action, AddDevice, Refusal, RemoveDevice
from pcipt.remap.view import XenView


@attrs.frozen
class Quirks:
    """What this Xen does differently from newer ones, by its version."""

    removing_orphan_panics: bool
    uncovered_add_panics: bool
    io_vf_bar_hangs: bool


def quirks_of_version(major: int, minor: int) -> Quirks:
    """Tell the quirks of a version.

    Source: Xen 635dd1120a (4.19, orphans), f7091c0e1f (4.21, I/O VF BARs); 4.20 measured free of both panics.
    """
    version = (major, minor)
    return Quirks(
        removing_orphan_panics=version < (4, 19),
        uncovered_add_panics=version < (4, 20),
        io_vf_bar_hangs=version < (4, 21),
    )


@attrs.frozen
class Facts:
    """What the guards decide from: all read right before the action, nothing remembered."""

    machine: Machine
    xen: XenView
    pvh: bool
    quirks: Quirks
    iommu: IommuScope


class Precaution(enum.Enum):
    """What must be done around an allowed action."""

    NONE = "none"
    DECODE_OFF = "decode-off"


Rule = Callable[[Action, Facts], str | None]


def check_action(action: Action, facts: Facts) -> Refusal | Precaution:
    """Apply the rules for this kind of action in order; allowed actions come with their precaution."""
    for name, kind, rule in RULES:
        if isinstance(action, kind) and (why := rule(action, facts)) is not None:
            return Refusal(name, why)
    if isinstance(action, AddDevice) and _decode_endangers(action, facts):
        return Precaution.DECODE_OFF
    return Precaution.NONE


def _subject(action: Action, facts: Facts) -> Function | None:
    return facts.machine.functions.get(action.sbdf)


def _segment(action: Action, _facts: Facts) -> str | None:
    return (
        None if action.sbdf.fits_xen else f"segment {action.sbdf.segment:x} is above ffff, Xen cannot name it"
    )


def _present(action: Action, facts: Facts) -> str | None:
    """A function that does not answer would become an orphan. A virtual one reads ffff by specification."""
    function = _subject(action, facts)
    if function is None:
        return "Linux does not have it (any more)"
    if function.answers is None:
        return "its config space cannot be read, so nobody knows whether hardware is there"
    return None if function.answers else "the hardware does not answer: config space reads all ones"


def _unknown_or_orphan(action: Action, facts: Facts) -> str | None:
    """Adding a known one overwrites its node and flags (xen/drivers/passthrough/pci.c, pci_add_device)."""
    known = action.sbdf in facts.xen.known and action.sbdf not in facts.xen.orphans
    return "Xen knows it already; announcing it again would overwrite what Xen holds" if known else None


def _physical_first(action: Action, facts: Facts) -> str | None:
    physfn = action.physfn if isinstance(action, AddDevice) else None
    if physfn is None or facts.xen.in_dom0(physfn):
        return None
    return f"its physical function {physfn} is not Xen's to give: announce that first"


def _header_for_vpci(action: Action, facts: Facts) -> str | None:
    function = _subject(action, facts)
    if not facts.pvh or function is None or function.physfn is not None:
        return None
    if function.header in (HeaderType.ENDPOINT, HeaderType.BRIDGE):
        return None
    return f"vPCI cannot set up a header of type {function.header.value}: the add would leave an orphan"


def _io_vf_bar(action: Action, facts: Facts) -> str | None:
    function = _subject(action, facts)
    sriov = function.sriov if function is not None else None
    if not facts.quirks.io_vf_bar_hangs or sriov is None:
        return None
    if any(bar.kind is BarKind.IO for bar in sriov.bars):
        return "a VF BAR claims I/O space: this Xen would loop for ever sizing it"
    return None


def _coverage(action: Action, facts: Facts) -> Coverage:
    physfn = action.physfn if isinstance(action, AddDevice) else None
    return facts.iommu.covers(action.sbdf, physfn)


def _covered(action: Action, facts: Facts) -> str | None:
    if _coverage(action, facts) is not Coverage.NONE:
        return None
    return (
        f"no IOMMU unit covered bus {action.sbdf.bus:02x} at boot: the add would fail and leave an orphan; "
        "give it a bus number of the boot-time range, or reboot"
    )


def _decode_endangers(action: AddDevice, facts: Facts) -> bool:
    """Whether a failing add would panic Xen: vPCI has queued BARs of a function it then forgets."""
    function = _subject(action, facts)
    if not facts.pvh or not facts.quirks.uncovered_add_panics or function is None:
        return False
    return function.decodes_memory is not False and _coverage(action, facts) is not Coverage.CERTAIN


def _driver_needs_decode(action: Action, facts: Facts) -> str | None:
    function = _subject(action, facts)
    if function is None or not isinstance(action, AddDevice) or not _decode_endangers(action, facts):
        return None
    if function.physfn is not None:
        return "its memory decode cannot be switched off: a virtual function has no such bit"
    if facts.machine.children(function.sbdf):
        return "it is a bridge that functions behind it need; its memory decode cannot be switched off"
    if function.driver is None:
        return None
    return (
        f"coverage by the IOMMU is not certain and driver {function.driver} needs memory decode on: "
        "unbind the driver, then pcipt resync"
    )


def _in_dom0(action: Action, facts: Facts) -> str | None:
    """Xen removes without asking who owns; an orphan's removal panics Xen before 4.19."""
    if action.sbdf not in facts.xen.known:
        return "Xen does not know it"
    if action.sbdf in facts.xen.orphans:
        panics = ": removing it would panic this Xen" if facts.quirks.removing_orphan_panics else ""
        return f"Xen lists it without an owner (orphan){panics}"
    if action.sbdf in facts.xen.elsewhere:
        return f"it belongs to {facts.xen.elsewhere[action.sbdf]}"
    return None if facts.xen.custody_told else "Xen does not say who owns it"


def _gone_from_linux(action: Action, facts: Facts) -> str | None:
    function = _subject(action, facts)
    if function is None:
        return None
    bound = f", driver {function.driver} is bound" if function.driver else ""
    return f"Linux still has it{bound}"


def _no_virtual_functions(action: Action, facts: Facts) -> str | None:
    vfs = [str(f.sbdf) for f in facts.machine.functions.values() if f.physfn == action.sbdf]
    return f"its virtual functions are still there: {', '.join(vfs[:4])}" if vfs else None


#        name, kind of action, rule
RULES: tuple[tuple[str, type[AddDevice] | type[RemoveDevice], Rule], ...] = (
    ("segment", AddDevice, _segment),
    ("segment", RemoveDevice, _segment),
    ("hardware-answers", AddDevice, _present),
    ("not-known", AddDevice, _unknown_or_orphan),
    ("physical-function-first", AddDevice, _physical_first),
    ("header-type", AddDevice, _header_for_vpci),
    ("vf-bar-io", AddDevice, _io_vf_bar),
    ("iommu-coverage", AddDevice, _covered),
    ("driver-needs-decode", AddDevice, _driver_needs_decode),
    ("owned-by-dom0", RemoveDevice, _in_dom0),
    ("gone-from-linux", RemoveDevice, _gone_from_linux),
    ("virtual-functions", RemoveDevice, _no_virtual_functions),
)
