"""What can be done to make Xen's view true, and what came of it. Each action carries its reason in words."""

import enum
from typing import ClassVar

import attrs

from pcipt.pci import Sbdf


@attrs.frozen
class AddDevice:
    """Tell Xen of a function (PHYSDEVOP_pci_device_add) with the flags dom0's kernel would give."""

    word: ClassVar[str] = "add-device"
    sbdf: Sbdf
    reason: str
    extended: bool = False
    physfn: Sbdf | None = None


@attrs.frozen
class RemoveDevice:
    """Make Xen forget a function that is no longer there (PHYSDEVOP_pci_device_remove)."""

    word: ClassVar[str] = "remove-device"
    sbdf: Sbdf
    reason: str


Action = AddDevice | RemoveDevice


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
class Outcome:
    """What came of an action; `detail` tells the guard's or the hypervisor's reason where it was not done."""

    action: Action
    result: Result
    detail: str = ""
    rule: str = ""
