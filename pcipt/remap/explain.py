"""Explain one function: its state, its desired pages, the actions that follow, and what the guards say.

Pure.
"""

from collections.abc import Callable, Collection, Iterable

import attrs

from pcipt.pci import Function, Sbdf
from pcipt.remap.actions import Action, NotApplicable, Refusal
from pcipt.remap.desired import By, Desired, place_of
from pcipt.remap.guard.rules import Facts, Precaution, Verdict, check_action, judge_action
from pcipt.remap.ignored import IgnoredWrite, plan_rewrites
from pcipt.remap.kinds.domains import controller_of
from pcipt.remap.mapped_pages import MappedRun, mapped_to_json
from pcipt.remap.plan import expected_view, plan_announcements
from pcipt.remap.plan_mappings import plan_mappings
from pcipt.remap.vpci.trapped import plan_returns
from pcipt.remap.writes.json_view import Json, json_from_action


@attrs.frozen
class Step:
    """An action that would be planned now, the guards' verdict on it, and the answer of each rule.

    `rules` are pairs (name of the rule, answer) in the order of the table of rules. The answer is the reason
    for a refusal, or None if the rule does not object. `rules` is empty if the action is not applicable.
    """

    action: Action
    verdict: Verdict
    rules: tuple[tuple[str, str | None], ...]


@attrs.frozen
class Explanation:
    """The facts about one function, its desired pages, and the steps that pcipt would take, in order.

    `known` is True if Xen lists the function, `owner` is the owner in words (`XenView.owner`), `held` are the
    function's mapped runs in any state. `desired` is computed as if the additions and removals among the
    steps had been done, except those that a guard refuses or that the settings do not allow. `mapped_by` is
    who maps the function's pages. `inside` is the controller inside whose BARs those of the function lie
    (VMD), and which is mapped in its place; None for all other functions.
    """

    function: Function
    known: bool
    owner: str
    held: tuple[MappedRun, ...]
    desired: Desired
    steps: tuple[Step, ...]
    inside: Sbdf | None = None
    mapped_by: By = attrs.Factory(lambda self: self.desired.by, takes_self=True)


def explain(
    sbdf: Sbdf,
    facts: Facts,
    *,
    removed: Collection[Sbdf] = (),
    ignored: Iterable[IgnoredWrite] = (),
    regions: Iterable[Action] = (),
    performs: Callable[[Action], bool] = lambda _action: True,
) -> Explanation:
    """Return the explanation of the function at `sbdf`, which is Linux's address. Nothing is changed.

    `facts` and `ignored` must be up to date. `removed` are addresses that Linux had and dropped. `ignored`
    are dropped BAR writes of any functions. `regions` are the actions that are planned for the reserved
    regions of this function. `performs` returns True for an action that the settings allow; the default
    allows all actions.

    Shape:  steps: additions and removals, then `regions`, then rewrites, then unmaps and maps.

    Raises: KeyError if the machine does not have the function.
    """
    function = facts.machine.functions[sbdf]
    announcements = plan_announcements(
        facts.machine,
        facts.xen,
        removed=removed,
        only={sbdf},
        moves=facts.moves,
        followed=facts.followed,
        unsized=facts.unsized,
        bridges=facts.bridges,
    )
    steps = [_step(action, facts) for action in announcements]
    done = [s.action for s in steps if isinstance(s.verdict, Precaution) and performs(s.action)]
    then = attrs.evolve(facts, xen=expected_view(facts.xen, done))
    desired = then.desired(sbdf)
    assert desired is not None  # the machine has the function
    mine = [write for write in ignored if write.sbdf == sbdf]
    rewrites = (*plan_rewrites(mine), *plan_returns(function, facts.lost(sbdf)))
    later = (*regions, *rewrites, *plan_mappings([desired], facts.mapped, facts.bars).actions)
    steps += [_step(action, then) for action in later]
    inside = None if sbdf.fits_xen else controller_of(sbdf.segment, facts.machine, facts.bars)
    around = then.desired(inside) if inside is not None else None
    return Explanation(
        function=function,
        known=sbdf in facts.xen.known,
        owner=facts.xen.owner(sbdf),
        held=tuple(facts.mapped.of(place_of(function))),
        desired=desired,
        steps=tuple(steps),
        inside=inside,
        mapped_by=(around or desired).by,
    )


def json_from_explanation(explanation: Explanation) -> Json:
    """Return an explanation as the JSON object of `pcipt explain --json`.
    Units:  `size` in bytes; `start` is a byte address in hexadecimal.
    """
    function, desired = explanation.function, explanation.desired
    return {
        "sbdf": str(function.sbdf),
        "path": str(function.path) if function.path is not None else None,
        "driver": function.driver,
        "is": {
            "known_to_xen": explanation.known,
            "owner": explanation.owner,
            "decodes_memory": function.decodes_memory,
            "mappings": mapped_to_json(explanation.held),
        },
        "should_be": {
            "mapped_by": explanation.mapped_by.value,
            "inside": str(explanation.inside) if explanation.inside is not None else None,
            "because": desired.untrapped,
            "kept": desired.hold_reason,
            "mappings": [
                {"bar": wanted.bar, "start": hex(span.range.start), "size": span.range.size}
                for wanted in desired.bars
                for span in wanted.spans
            ],
        },
        "actions": [_json_from_step(step) for step in explanation.steps],
    }


def _json_from_step(step: Step) -> Json:
    """Return a step as a JSON object: the action, its verdict, and the answer of each rule."""
    body = json_from_action(step.action)
    verdict = step.verdict
    if isinstance(verdict, Refusal):
        body |= {"verdict": "refused", "rule": verdict.rule, "why": verdict.why}
    elif isinstance(verdict, NotApplicable):
        body |= {"verdict": "not-applicable", "why": verdict.why}
    else:
        precaution = None if verdict is Precaution.NONE else verdict.value
        body |= {"verdict": "allowed", "precaution": precaution}
    return body | {"guards": [{"rule": rule, "refuses": why} for rule, why in step.rules]}


def _step(action: Action, facts: Facts) -> Step:
    """Return the step for an action; without the rules' answers if the action is not applicable."""
    verdict = check_action(action, facts)
    rules = () if isinstance(verdict, NotApplicable) else judge_action(action, facts)
    return Step(action, verdict, rules)
