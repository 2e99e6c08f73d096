"""The guards: what must hold before Xen is told anything, one row a rule. Pure.

A rule looks at an action and the facts and gives None or the reason for a refusal; the first refusal counts.
Some of them stand between pcipt and a host panic (reference: Xen 4.17, measured in the lab): removing an
orphan; adding what no IOMMU unit covers (it leaves an orphan, or with memory decode on a PVH dom0 panics at
once); mapping over RAM. Everything else keeps guests and drivers from losing a device under them. The rules
of announcements are in `guard_devices`, those of pages in `guard_pages`.
"""

from typing import get_args

from pcipt.remap.actions import (
    Action,
    AddDevice,
    MapMmio,
    NotApplicable,
    Refusal,
    RestoreReserved,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.guard.devices import DEVICE_RULES, decode_endangers
from pcipt.remap.guard.facts import Facts, Precaution, Quirks, Rule, quirks_of_version
from pcipt.remap.guard.pages import PAGE_RULES

__all__ = [
    "RULES",
    "Facts",
    "Precaution",
    "Quirks",
    "Rule",
    "Verdict",
    "check_action",
    "judge_action",
    "quirks_of_version",
]

Verdict = Refusal | NotApplicable | Precaution

PAGES = (MapMmio, UnmapMmio, RewriteBar, WithdrawReserved, RestoreReserved)
ON_PV = "PV: this dom0 has no 1:1 map that could change"

#        name, kind of action, rule
RULES: tuple[tuple[str, type[Action], Rule], ...] = (*DEVICE_RULES, *PAGE_RULES)
_RULES_FOR = {
    kind: tuple((name, rule) for name, about, rule in RULES if about is kind) for kind in get_args(Action)
}


def check_action(action: Action, facts: Facts) -> Verdict:
    """Apply the rules for this kind of action in order; allowed actions come with their precaution.

    What has no meaning on a PV dom0 is not applicable there, whatever the rules would say.
    """
    if not facts.pvh and isinstance(action, PAGES):
        return NotApplicable(ON_PV)
    for name, rule in _RULES_FOR[type(action)]:
        if (why := rule(action, facts)) is not None:
            return Refusal(name, why)
    if isinstance(action, AddDevice) and decode_endangers(action, facts):
        return Precaution.DECODE_OFF
    return Precaution.NONE


def judge_action(action: Action, facts: Facts) -> tuple[tuple[str, str | None], ...]:
    """Apply every rule for this kind of action; None is a rule that has nothing against it."""
    return tuple((name, rule(action, facts)) for name, rule in _RULES_FOR[type(action)])
