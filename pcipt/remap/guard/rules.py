"""The guards: the conditions under which Xen is told anything, one row of a table for each rule. Pure.

A rule gets an action and the facts, and returns the reason for a refusal, or None if it does not object. The
first refusal in the order of the table is the verdict. Some rules prevent a panic of the host (reference: Xen
4.17, measured in the lab). The panics: to remove an orphan; to add a function that no IOMMU unit covers (this
leaves an orphan, or panics at once if the function decodes memory on a PVH dom0); to map over RAM. All other
rules keep guests and drivers from losing a device that they use. `devices` has the rules of announcements,
`records` that of records that no add can use, `anew` that of a function that is removed to be added again,
`pages` those of pages, `command` those of Command registers, `holes` those of the second unmap of pages,
`own_bars` those of what a rewrite does to the function itself, `switches` those of memory decode, `altered`
those of functions whose read-only registers have changed, `handover` those of policed ports.
"""

from typing import get_args

from pcipt.remap.actions import (
    Action,
    AddDevice,
    CheckUnmapped,
    MapMmio,
    NotApplicable,
    Refusal,
    RestoreReserved,
    RewriteBar,
    RewriteCommand,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.guard.altered import ALTERED_RULES
from pcipt.remap.guard.anew import ANEW_RULES
from pcipt.remap.guard.command import COMMAND_RULES
from pcipt.remap.guard.devices import DEVICE_RULES, decode_endangers
from pcipt.remap.guard.facts import Facts, Precaution, Rule
from pcipt.remap.guard.handover import HANDOVER_RULES
from pcipt.remap.guard.holes import HOLE_RULES
from pcipt.remap.guard.own_bars import OWN_BAR_RULES
from pcipt.remap.guard.pages import PAGE_RULES
from pcipt.remap.guard.records import RECORD_RULES
from pcipt.remap.guard.switches import SWITCH_RULES

__all__ = [
    "RULES",
    "Facts",
    "Precaution",
    "Rule",
    "Verdict",
    "check_action",
    "judge_action",
]

Verdict = Refusal | NotApplicable | Precaution

PAGES = (
    MapMmio, UnmapMmio, RewriteBar, RewriteCommand, WithdrawReserved, RestoreReserved, CheckUnmapped,
)  # fmt: skip
ON_PV = "PV: this dom0 has no 1:1 map that could change"

#        name, kind of action, rule
RULES: tuple[tuple[str, type[Action], Rule], ...] = (
    *DEVICE_RULES, *RECORD_RULES, *ANEW_RULES, *PAGE_RULES, *OWN_BAR_RULES, *COMMAND_RULES, *HOLE_RULES,
    *SWITCH_RULES, *ALTERED_RULES, *HANDOVER_RULES,
)  # fmt: skip
_RULES_FOR = {
    kind: tuple((name, rule) for name, about, rule in RULES if about is kind) for kind in get_args(Action)
}


def check_action(action: Action, facts: Facts) -> Verdict:
    """Return the verdict on an action: refused, not applicable, or allowed with a precaution.

    A refusal is that of the first rule, in the order of the table, that refuses. On a PV dom0, an action that
    changes the 1:1 map or a BAR is not applicable, and no rule is asked.
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
    """Return the name and the answer of each rule for this kind of action, in the order of the table.

    The answer is the reason for a refusal, or None if the rule does not object. All rules are asked, also on
    a PV dom0.
    """
    return tuple((name, rule(action, facts)) for name, rule in _RULES_FOR[type(action)])
