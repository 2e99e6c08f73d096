"""Why pcipt does what it does with one function: what is, what should be, actions and guards. Pure."""

from collections.abc import Callable, Collection, Iterable

import attrs

from pcipt.pci import Function, Sbdf
from pcipt.remap.actions import Action, NotApplicable, Refusal
from pcipt.remap.desired import Desired, place_of
from pcipt.remap.guard.rules import Facts, Precaution, Verdict, check_action, judge_action
from pcipt.remap.ignored import IgnoredWrite, plan_rewrites
from pcipt.remap.mapped_pages import MappedRun, mapped_to_json
from pcipt.remap.plan import expected_view, plan_announcements
from pcipt.remap.plan_mappings import plan_mappings
from pcipt.remap.writes.json_view import Json, json_from_action


@attrs.frozen
class Step:
    """An action that would be planned now, with what every guard says of it."""

    action: Action
    verdict: Verdict
    rules: tuple[tuple[str, str | None], ...]


@attrs.frozen
class Explanation:
    """`desired` is as it will be once Xen knows what the steps tell it."""

    function: Function
    known: bool
    owner: str
    held: tuple[MappedRun, ...]
    desired: Desired
    steps: tuple[Step, ...]


def explain(
    sbdf: Sbdf,
    facts: Facts,
    *,
    departed: Collection[Sbdf] = (),
    ignored: Iterable[IgnoredWrite] = (),
    regions: Iterable[Action] = (),
    performs: Callable[[Action], bool] = lambda _action: True,
) -> Explanation:
    """Explain one function of the machine. The facts, and what is ignored, are as of now.

    `regions` is what is planned for its reserved regions. On what the settings do not let be performed
    (`performs`) nothing is built.

    Raises: KeyError where the machine does not have it.
    """
    function = facts.machine.functions[sbdf]
    announcements = plan_announcements(
        facts.machine, facts.xen, departed=departed, only={sbdf}, moves=facts.moves, followed=facts.followed
    )
    steps = [_step(action, facts) for action in announcements]
    done = [s.action for s in steps if isinstance(s.verdict, Precaution) and performs(s.action)]
    then = attrs.evolve(facts, xen=expected_view(facts.xen, done))
    desired = then.desired(sbdf)
    assert desired is not None  # it is one of the machine
    mine = [write for write in ignored if write.sbdf == sbdf]
    later = (*regions, *plan_rewrites(mine), *plan_mappings([desired], facts.mapped, facts.bars).actions)
    steps += [_step(action, then) for action in later]
    return Explanation(
        function=function,
        known=sbdf in facts.xen.known,
        owner=facts.xen.owner(sbdf),
        held=tuple(facts.mapped.of(place_of(function))),
        desired=desired,
        steps=tuple(steps),
    )


def json_from_explanation(explanation: Explanation) -> Json:
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
            "mapped_by": desired.by.value,
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
    verdict = check_action(action, facts)
    rules = () if isinstance(verdict, NotApplicable) else judge_action(action, facts)
    return Step(action, verdict, rules)
