"""The actions that make Xen agree with the machine, and their outcomes. Each action has its reason in words.

Pure.
"""

import enum
from typing import ClassVar

import attrs

from pcipt.pci import Address, Frames, Sbdf


@attrs.frozen
class AddDevice:
    """Tell Xen of a function (PHYSDEVOP_pci_device_add), with the flags that dom0's kernel would give.

    `moved_from` is set if bus renumbering moved the function to `sbdf`: Linux still has it at `moved_from`.
    """

    word: ClassVar[str] = "add-device"
    sbdf: Sbdf
    reason: str
    extended: bool = False
    physfn: Sbdf | None = None
    moved_from: Sbdf | None = None


@attrs.frozen
class RemoveDevice:
    """Make Xen forget a function that is not at this address any more (PHYSDEVOP_pci_device_remove).

    `moved_to` is set if bus renumbering moved the function from `sbdf` to that address.
    """

    word: ClassVar[str] = "remove-device"
    sbdf: Sbdf
    reason: str
    moved_to: Sbdf | None = None


@attrs.frozen
class MapMmio:
    """Identity map pages of one BAR for dom0 (XEN_DOMCTL_memory_mapping, add).

    `place` and `bar`: see `DesiredBar`.
    """

    word: ClassVar[str] = "map-mmio"
    sbdf: Sbdf
    reason: str
    place: str
    bar: int
    frames: Frames


@attrs.frozen
class UnmapMmio:
    """Remove pages of one BAR from dom0's map (XEN_DOMCTL_memory_mapping, remove)."""

    word: ClassVar[str] = "unmap-mmio"
    sbdf: Sbdf
    reason: str
    place: str
    bar: int
    frames: Frames


@attrs.frozen
class RewriteBar:
    """Repeat a BAR write that vPCI dropped: switch decode off, write, switch decode on, read back.

    `before` is the address that the BAR has now, `address` the one to write; `size` is in bytes, None is
    unknown.
    """

    word: ClassVar[str] = "rewrite-bar"
    sbdf: Sbdf
    reason: str
    bar: int
    before: Address
    address: Address
    size: int | None = None


@attrs.frozen
class WithdrawReserved:
    """Remove a reserved region from dom0's map, because the last of its devices, `sbdf`, has left dom0."""

    word: ClassVar[str] = "withdraw-reserved"
    sbdf: Sbdf
    reason: str
    frames: Frames


@attrs.frozen
class RestoreReserved:
    """Map a reserved region for dom0 again, before the first of its devices, `sbdf`, returns."""

    word: ClassVar[str] = "restore-reserved"
    sbdf: Sbdf
    reason: str
    frames: Frames


Action = AddDevice | RemoveDevice | MapMmio | UnmapMmio | RewriteBar | WithdrawReserved | RestoreReserved


class Result(enum.Enum):
    """What came of an action. PLANNED: a dry run, or the settings do not let pcipt do it."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"
    PLANNED = "planned"


@attrs.frozen
class Refusal:
    """A guard refused the action. `rule` is the guard's name in the table of rules, `why` its reason."""

    rule: str
    why: str


@attrs.frozen
class NotApplicable:
    """The action has no object here, so no call is made, and the ledger records it as done.

    `why` is the reason.
    """

    why: str


@attrs.frozen
class Outcome:
    """What came of an action. `detail` is the reason of the guard or of the hypervisor, if it was not done.

    `rule` is the name of the guard that refused, or empty. `errno` is Linux's number for the error of the
    call that failed, or None.
    """

    action: Action
    result: Result
    detail: str = ""
    rule: str = ""
    errno: int | None = None
