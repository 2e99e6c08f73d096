"""What was planned and not done stands: it is told once, is a finding, and is looked at again."""

import itertools
from collections.abc import Collection, Iterable

import attrs

from pcipt.pci import Finding, Sbdf
from pcipt.remap.actions import (
    Action,
    AddDevice,
    MapMmio,
    Outcome,
    RemoveDevice,
    RestoreReserved,
    Result,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.plan_mappings import name_of_bar

Key = tuple[str, Sbdf, int, int]
LOOKED_AT_AGAIN = 64  # places whose mappings stand, with each change anywhere

_ANNOUNCEMENTS = (AddDevice, RemoveDevice)


def key_of(action: Action) -> Key:
    """Name an action so that planned again it is the same one."""
    frames, bar = getattr(action, "frames", None), getattr(action, "bar", -1)
    about = action.address if isinstance(action, RewriteBar) else frames.start if frames is not None else -1
    return action.word, action.sbdf, bar, about


def addresses_of(action: Action) -> set[Sbdf]:
    """List the addresses that an action is about, Linux's and Xen's."""
    others = (getattr(action, name, None) for name in ("moved_from", "moved_to"))
    return {action.sbdf, *(sbdf for sbdf in others if sbdf is not None)}


def subject_of(action: Action) -> Sbdf:
    """Give the address that Linux has for the function of an action."""
    return getattr(action, "moved_from", None) or action.sbdf


def complaint_of(outcome: Outcome) -> Finding | None:
    """Say what is wrong as long as an action is not done; announcements are told as what disagrees."""
    action = outcome.action
    if outcome.result is Result.PLANNED:
        return None
    if isinstance(action, RestoreReserved):
        why = f"the reserved region {action.frames} is not mapped, its devices' DMA may fault"
        return Finding("region-missing", f"{why}: {outcome.detail}")
    if isinstance(action, WithdrawReserved):
        still = "is still" if outcome.result is Result.REFUSED else "may still be"
        why = f"the reserved region {action.frames} {still} mapped, though no device in dom0 needs it"
        return Finding("region-left", f"{why}: {outcome.detail}")
    if not isinstance(action, MapMmio | UnmapMmio):
        return None
    name = name_of_bar(action.bar)
    if isinstance(action, MapMmio):
        return Finding("not-mapped", f"{name} decodes at {action.frames} and is not mapped: {outcome.detail}")
    return Finding("stale-mapping", f"{action.frames} is still mapped for {name}: {outcome.detail}")


class Standing:
    def __init__(self) -> None:
        self._outcomes: dict[Sbdf, dict[Key, Outcome]] = {}
        self._places: dict[str, Sbdf] = {}

    @property
    def places(self) -> dict[str, Sbdf]:
        """Where mappings stand: they are planned for with whatever else changes."""
        return dict(itertools.islice(self._places.items(), LOOKED_AT_AGAIN))

    @property
    def subjects(self) -> list[Sbdf]:
        return list(self._outcomes)

    def of(self, sbdf: Sbdf) -> list[Outcome]:
        return list(self._outcomes.get(sbdf, {}).values())

    def explained(self, sbdf: Sbdf, finding: Finding) -> Finding:
        """Add to a disagreement why it was not mended."""
        why = [o.detail for o in self.of(sbdf) if isinstance(o.action, _ANNOUNCEMENTS) and o.detail]
        return attrs.evolve(finding, text=f"{finding.text}; not mended: {why[0]}") if why else finding

    def replace(
        self,
        planned: Collection[Action],
        outcomes: Iterable[Outcome],
        scope: Collection[Sbdf] | None,
        *,
        announced: bool,
    ) -> tuple[list[Outcome], list[Key]]:
        """Take in what came of a plan; `scope` is what it was made for (None is everything).

        `announced` tells whether announcements were planned as well.

        Shape:  the outcomes that are news: what was done, and what does not just stand as before; and what
                stood and is not planned any more.
        """
        before = self._take(scope, announced=announced)
        wanted = {key_of(action) for action in planned}
        came = {key_of(outcome.action): outcome for outcome in outcomes}
        for key, outcome in {**{k: o for k, o in before.items() if k in wanted}, **came}.items():
            if outcome.result in (Result.DONE, Result.NOT_APPLICABLE):
                continue
            action = outcome.action
            self._outcomes.setdefault(subject_of(action), {})[key] = outcome
            if isinstance(action, MapMmio | UnmapMmio):
                self._places[action.place] = action.sbdf
        news = [outcome for key, outcome in came.items() if _stands(before.get(key)) != _stands(outcome)]
        return news, [key for key in before if key not in wanted]

    def _take(self, scope: Collection[Sbdf] | None, *, announced: bool) -> dict[Key, Outcome]:
        taken: dict[Key, Outcome] = {}
        for sbdf in list(self._outcomes) if scope is None else scope:
            held = self._outcomes.pop(sbdf, {})
            for key, outcome in held.items():
                if announced or not isinstance(outcome.action, _ANNOUNCEMENTS):
                    taken[key] = outcome
                    self._places.pop(getattr(outcome.action, "place", ""), None)
                else:
                    self._outcomes.setdefault(sbdf, {})[key] = outcome
        return taken


def _stands(outcome: Outcome | None) -> tuple[Result, str] | None:
    """Reduce an outcome to what is compared; one that was done is always news."""
    if outcome is None or outcome.result in (Result.DONE, Result.NOT_APPLICABLE):
        return None if outcome is None else (outcome.result, "")
    return outcome.result, outcome.detail
