"""The actions that make Xen agree with the machine, and their outcomes. Each action has its reason in words.

Pure.
"""

import enum
from typing import ClassVar

import attrs

from pcipt.pci import Address, Frames, Sbdf


@attrs.frozen
class AddDevice:
    """Tell Xen that a function is at `sbdf` (PHYSDEVOP_pci_device_add).

    The flags are those that dom0's kernel would give: `extended` is EXTFN (`is_extended`). `physfn` is the
    address of the physical function, set for a virtual function only. `moved_from` is set if bus renumbering
    moved the function to `sbdf`: Linux still has it at `moved_from`. `late` is the driver that was bound when
    the add was planned, "" for none; None if nothing follows from it. `vfs_on` is True for a physical
    function whose virtual functions are on: Xen cannot size their BARs then (`vfs_are_on`).
    """

    word: ClassVar[str] = "add-device"
    sbdf: Sbdf
    reason: str
    extended: bool = False
    physfn: Sbdf | None = None
    moved_from: Sbdf | None = None
    late: str | None = attrs.field(default=None, eq=False)
    vfs_on: bool = False


@attrs.frozen
class RemoveDevice:
    """Make Xen forget a function that is not at this address any more (PHYSDEVOP_pci_device_remove).

    `moved_to` is set if bus renumbering moved the function from `sbdf` to that address. `anew` is True for a
    function that has not left: Xen is told of it again right after. It is a conventional bridge of which Xen
    must read new bus numbers, or a function behind one.
    """

    word: ClassVar[str] = "remove-device"
    sbdf: Sbdf
    reason: str
    moved_to: Sbdf | None = None
    anew: bool = False


@attrs.frozen
class MapMmio:
    """Map pages of one BAR into dom0, 1:1 (XEN_DOMCTL_memory_mapping, add).

    `place` is the name of the function's place (`place_of`). `bar` is 0 to 5, or 6 for the ROM.
    """

    word: ClassVar[str] = "map-mmio"
    sbdf: Sbdf
    reason: str
    place: str
    bar: int
    frames: Frames


@attrs.frozen
class UnmapMmio:
    """Remove pages of one BAR from dom0's map (XEN_DOMCTL_memory_mapping, remove).

    `place` and `bar` mean the same as in `MapMmio`.
    """

    word: ClassVar[str] = "unmap-mmio"
    sbdf: Sbdf
    reason: str
    place: str
    bar: int
    frames: Frames


@attrs.frozen
class RewriteBar:
    """Repeat a BAR write that vPCI dropped: switch decode off, write, switch decode on, read back.

    `before` is the address that the BAR has now, `address` is the address to write. `size` is the BAR's size
    in bytes, None if it is unknown.
    """

    word: ClassVar[str] = "rewrite-bar"
    sbdf: Sbdf
    reason: str
    bar: int
    before: Address
    address: Address
    size: int | None = None


@attrs.frozen
class RewriteCommand:
    """Write the Command register of a function as it is, so that vPCI maps or unmaps what it says.

    vPCI may have mapped or unmapped the BARs for a write that did not reach the hardware, because the bus of
    the function was renumbered then. Where vPCI and hardware agree, the write changes nothing.
    """

    word: ClassVar[str] = "rewrite-command"
    sbdf: Sbdf
    reason: str


@attrs.frozen
class WithdrawReserved:
    """Remove a reserved region from dom0's map, because none of its devices is dom0's any more.

    `sbdf` is one of these devices. `counted` is False if Xen lists no device of the region then: when it is
    told of one, it maps the region.
    """

    word: ClassVar[str] = "withdraw-reserved"
    sbdf: Sbdf
    reason: str
    frames: Frames
    counted: bool = True


@attrs.frozen
class RestoreReserved:
    """Map a reserved region into dom0 again: one of its devices is dom0's again, or is about to return.

    `sbdf` is one of its devices. `counted` is False if Xen lists no device of the region then: it never
    unmaps what is mapped now, because it maps a region only over holes, and unmaps only what it has mapped.
    """

    word: ClassVar[str] = "restore-reserved"
    sbdf: Sbdf
    reason: str
    frames: Frames
    counted: bool = True


@attrs.frozen
class CheckUnmapped:
    """Unmap pages once more, to see whether Xen has mapped them again (`Hole`).

    `sbdf` is the function for which they were unmapped. `region` is True for a reserved region.
    """

    word: ClassVar[str] = "check-unmapped"
    sbdf: Sbdf
    reason: str
    frames: Frames
    region: bool


@attrs.frozen
class GuardPort:
    """Put a port into the list of xen-pciback, which then takes what appears below it; or take it out.

    `on` is False to take it out.
    """

    word: ClassVar[str] = "guard-port"
    sbdf: Sbdf
    reason: str
    on: bool = True


@attrs.frozen
class Quarantine:
    """Let the toolstack take a function that has appeared below a policed port from dom0 (xl
    pci-assignable-add): it is bound to xen-pciback and assigned to dom_io.
    """

    word: ClassVar[str] = "quarantine"
    sbdf: Sbdf
    reason: str


Action = (
    AddDevice
    | RemoveDevice
    | MapMmio
    | UnmapMmio
    | RewriteBar
    | RewriteCommand
    | WithdrawReserved
    | RestoreReserved
    | CheckUnmapped
    | GuardPort
    | Quarantine
)


class Result(enum.Enum):
    """What came of an action.

    DONE: performed without an error. REFUSED: a guard refused it. FAILED: a call to Xen, a reading, or the
    writing of the ledger failed; the action may have been done all the same. NOT_APPLICABLE: see
    `NotApplicable`. PLANNED: not performed, because this is a dry run or the settings do not allow it.
    """

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"
    PLANNED = "planned"


@attrs.frozen
class Refusal:
    """The verdict that a guard refused an action.

    `rule` is the name of the rule, `why` its reason in words.
    """

    rule: str
    why: str


@attrs.frozen
class NotApplicable:
    """The verdict that this dom0 has nothing that the action could change; `why` is the reason in words.

    No call to Xen is made, and the ledger records the action as done (`Ledger.noted`).
    """

    why: str


@attrs.frozen
class Outcome:
    """An action and what came of it.

    `detail` is the reason why the action was not done, or a remark on an action that was done; it may be
    empty. `rule` is the name of the rule that refused, else empty. `errno` is the positive Linux error number
    of the call that failed, else None.
    """

    action: Action
    result: Result
    detail: str = ""
    rule: str = ""
    errno: int | None = None

    @property
    def is_applicable(self) -> bool:
        """Return False if this kind of dom0 has nothing that the action could change."""
        return self.result is not Result.NOT_APPLICABLE
