"""Explain one function: its state, its desired pages, the actions that follow, and what the guards say.

A PV dom0 has no 1:1 map: nothing is held there, nothing is desired, and no action on pages follows. What a
PVH dom0 would need for the function can be asked for. Pure.
"""

from collections.abc import Callable, Collection, Iterable, Iterator

import attrs

from pcipt.pci import Function, Sbdf
from pcipt.remap.actions import Action, NotApplicable, Refusal
from pcipt.remap.desired import By, Desired, place_of
from pcipt.remap.guard.next_steps import next_step
from pcipt.remap.guard.rules import Facts, Precaution, check_action, judge_action
from pcipt.remap.ignored import IgnoredWrite, plan_rewrites
from pcipt.remap.kinds.domains import controller_of
from pcipt.remap.mapped_pages import MappedRun, mapped_to_json
from pcipt.remap.plan import expected_view, plan_announcements
from pcipt.remap.plan_mappings import plan_mappings
from pcipt.remap.vpci.trapped import plan_returns
from pcipt.remap.writes.json_view import Json, json_from_action

_KIND = {True: "pvh", False: "pv"}


@attrs.frozen
class Step:
    """An action that would be planned now, the guards' verdict on it, and the answer of each rule.

    `rules` are pairs (name of the rule, answer) in the order of the table of rules. The answer is the reason
    for a refusal, or None if the rule does not object.
    """

    action: Action
    verdict: Refusal | Precaution
    rules: tuple[tuple[str, str | None], ...]


@attrs.frozen
class Explanation:
    """The facts about one function, its desired pages, and the steps that pcipt would take, in order.

    `pvh` is True on a PVH dom0, `as_pvh` if `desired` is what a PVH dom0 needs; if it is False, `desired` has
    no pages.
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
    pvh: bool = True
    as_pvh: bool = True
    inside: Sbdf | None = None
    mapped_by: By = attrs.Factory(lambda self: self.desired.by, takes_self=True)


def explain(
    sbdf: Sbdf,
    facts: Facts,
    *,
    as_pvh: bool = False,
    removed: Collection[Sbdf] = (),
    ignored: Iterable[IgnoredWrite] = (),
    severed: Collection[Sbdf] = (),
    regions: Iterable[Action] = (),
    commands: Iterable[Action] = (),
    performs: Callable[[Action], bool] = lambda _action: True,
) -> Explanation:
    """Return the explanation of the function at `sbdf`, which is Linux's address. Nothing is changed.

    `facts` and `ignored` must be up to date. `removed` are addresses that Linux had and dropped. `ignored`
    are dropped BAR writes of any functions. `severed` are the conventional bridges whose shared entry is gone
    (`plan_entries`). `regions` are the actions that are planned for the reserved regions of this function,
    `commands` those for writes of its Command register that only vPCI has seen. With `as_pvh` the desired
    pages of a PV dom0 are those of a PVH dom0 with this Xen; the steps are those of this dom0 all the same.
    `performs` returns True for an action that the settings allow; the default allows all actions.

    Shape:  steps: additions and removals, then `regions`, then rewrites, then `commands`, then unmaps and
            maps; none that is not applicable.

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
        severed=severed,
    )
    steps = [*_announcing(announcements, facts)]
    done = [s.action for s in steps if isinstance(s.verdict, Precaution) and performs(s.action)]
    then = attrs.evolve(facts, xen=expected_view(facts.xen, done))
    needs = attrs.evolve(then, pvh=facts.pvh or as_pvh)
    desired = needs.desired(sbdf)
    assert desired is not None  # the machine has the function
    if not needs.pvh:
        desired = attrs.evolve(desired, bars=(), hold_reason=None)
    mine = [write for write in ignored if write.sbdf == sbdf]
    rewrites = (*plan_rewrites(mine), *plan_returns(function, facts.lost(sbdf)))
    later = (*regions, *rewrites, *commands, *plan_mappings([desired], facts.mapped, facts.bars).actions)
    steps += _steps(later, then)
    inside = None if sbdf.fits_xen else controller_of(sbdf.segment, facts.machine, facts.bars)
    around = needs.desired(inside) if inside is not None else None
    return Explanation(
        function=function,
        known=sbdf in facts.xen.known,
        owner=facts.xen.owner(sbdf),
        held=tuple(facts.mapped.of(place_of(function))) if facts.pvh else (),
        desired=desired,
        steps=tuple(steps),
        pvh=facts.pvh,
        as_pvh=needs.pvh,
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
        "dom0": _KIND[explanation.pvh],
        "as": _KIND[explanation.as_pvh],
        "is": {
            "known_to_xen": explanation.known,
            "owner": explanation.owner,
            "decodes_memory": function.decodes_memory,
            "mappings": mapped_to_json(explanation.held),
        },
        "should_be": {
            "mapped_by": explanation.mapped_by.value if explanation.as_pvh else None,
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
        body["next"] = next_step(step.action.word, verdict.rule, str(step.action.sbdf))
    else:
        precaution = None if verdict is Precaution.NONE else verdict.value
        body |= {"verdict": "allowed", "precaution": precaution}
    return body | {"guards": [{"rule": rule, "refuses": why} for rule, why in step.rules]}


def _announcing(actions: Iterable[Action], facts: Facts) -> Iterator[Step]:
    """Yield the steps for additions and removals, each judged as if those before it had been done.

    A function that is told anew is removed first: its addition is refused as long as Xen lists it.
    """
    for action in actions:
        for step in _steps([action], facts):
            yield step
            if isinstance(step.verdict, Precaution):
                facts = attrs.evolve(facts, xen=expected_view(facts.xen, [action]))


def _steps(actions: Iterable[Action], facts: Facts) -> Iterator[Step]:
    """Yield the steps for some actions, in their order, without the actions that are not applicable."""
    for action in actions:
        verdict = check_action(action, facts)
        if not isinstance(verdict, NotApplicable):
            yield Step(action, verdict, judge_action(action, facts))
