"""What can be done to make Xen's view true, and what came of it. Each action carries its reason in words."""

import enum
from typing import ClassVar

import attrs

from pcipt.pci import Address, Frames, Sbdf


@attrs.frozen
class AddDevice:
    """Tell Xen of a function (PHYSDEVOP_pci_device_add) with the flags dom0's kernel would give.

    `moved_from` is set where bus renumbering brought it here: Linux still calls it by that address.
    """

    word: ClassVar[str] = "add-device"
    sbdf: Sbdf
    reason: str
    extended: bool = False
    physfn: Sbdf | None = None
    moved_from: Sbdf | None = None


@attrs.frozen
class RemoveDevice:
    """Make Xen forget a function that is no longer there (PHYSDEVOP_pci_device_remove).

    `moved_to` is set where bus renumbering took it away from here.
    """

    word: ClassVar[str] = "remove-device"
    sbdf: Sbdf
    reason: str
    moved_to: Sbdf | None = None


@attrs.frozen
class MapMmio:
    """Identity map pages of one BAR for dom0 (XEN_DOMCTL_memory_mapping, add). `bar` as in `DesiredBar`."""

    word: ClassVar[str] = "map-mmio"
    sbdf: Sbdf
    reason: str
    place: str
    bar: int
    frames: Frames


@attrs.frozen
class UnmapMmio:
    """Take pages of one BAR out of dom0's map (XEN_DOMCTL_memory_mapping, remove)."""

    word: ClassVar[str] = "unmap-mmio"
    sbdf: Sbdf
    reason: str
    place: str
    bar: int
    frames: Frames


@attrs.frozen
class RewriteBar:
    """Repeat a BAR write that vPCI dropped: decode off, write, decode on, read back."""

    word: ClassVar[str] = "rewrite-bar"
    sbdf: Sbdf
    reason: str
    bar: int
    before: Address
    address: Address
    size: int | None = None


@attrs.frozen
class WithdrawReserved:
    """Take a reserved region out of dom0's map: the last of its devices has left. `sbdf` is that device."""

    word: ClassVar[str] = "withdraw-reserved"
    sbdf: Sbdf
    reason: str
    frames: Frames


@attrs.frozen
class RestoreReserved:
    """Put a reserved region back: the first of its devices returns. `sbdf` is that device."""

    word: ClassVar[str] = "restore-reserved"
    sbdf: Sbdf
    reason: str
    frames: Frames


Action = AddDevice | RemoveDevice | MapMmio | UnmapMmio | RewriteBar | WithdrawReserved | RestoreReserved


class Result(enum.Enum):
    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    NOT_APPLICABLE = "not-applicable"
    PLANNED = "planned"


@attrs.frozen
class Refusal:
    """A guard said no: `rule` is its name in the table, `why` its facts."""

    rule: str
    why: str


@attrs.frozen
class NotApplicable:
    """There is nothing to do it to, and no call is made: `why` says so. What is held follows as if done."""

    why: str


@attrs.frozen
class Outcome:
    """What came of an action; `detail` tells the guard's or the hypervisor's reason where it was not done.

    `errno` is Linux's number of the call that failed, where one did.
    """

    action: Action
    result: Result
    detail: str = ""
    rule: str = ""
    errno: int | None = None
