"""Actions that the last reconciliation of a function planned and that are not done: refused, failed or
forbidden.

Each is told once and is a finding. An action on pages is planned again with whatever changes near its pages.
"""

from collections.abc import Collection, Iterable

import attrs

from pcipt.pci import Finding, Frames, Sbdf
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
from pcipt.remap.intervals import Intervals
from pcipt.remap.plan_mappings import name_of_bar

Key = tuple[str, Sbdf, int, int]

_ANNOUNCEMENTS = (AddDevice, RemoveDevice)
_OVER = (Result.DONE, Result.NOT_APPLICABLE)


def key_of(action: Action) -> Key:
    """Return a name of an action that stays the same when the action is planned again."""
    frames, bar = getattr(action, "frames", None), getattr(action, "bar", -1)
    about = action.address if isinstance(action, RewriteBar) else frames.start if frames is not None else -1
    return action.word, action.sbdf, bar, about


def subject_of(action: Action) -> Sbdf:
    """Return the address that Linux has for the function of an action."""
    return getattr(action, "moved_from", None) or action.sbdf


def finding_of_action(outcome: Outcome) -> Finding | None:
    """Return what is wrong while an action on pages is not done, None for any other action."""
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


class OpenActions:
    """By the address that Linux has for the function."""

    def __init__(self) -> None:
        self._outcomes: dict[Sbdf, dict[Key, Outcome]] = {}
        self._pages: Intervals[tuple[str, Sbdf]] = Intervals()

    @property
    def subjects(self) -> list[Sbdf]:
        return list(self._outcomes)

    def of(self, sbdf: Sbdf) -> list[Outcome]:
        return list(self._outcomes.get(sbdf, {}).values())

    def places_over(self, pages: Iterable[Frames]) -> dict[str, Sbdf]:
        """Return the places that have an open action on some of these pages, each with its address."""
        return {place: sbdf for frames in pages for _, (place, sbdf) in self._pages.over(frames)}

    def places_of(self, functions: Iterable[Sbdf]) -> dict[str, Sbdf]:
        """Return the places that have an open action on pages, of these functions, each with its address."""
        return {
            outcome.action.place: outcome.action.sbdf
            for sbdf in functions
            for outcome in self._outcomes.get(sbdf, {}).values()
            if isinstance(outcome.action, MapMmio | UnmapMmio)
        }

    def announcements_among(self, functions: Iterable[Sbdf]) -> set[Sbdf]:
        """Return those of the functions that have an open addition or removal."""
        return {
            sbdf
            for sbdf in functions
            if any(isinstance(o.action, _ANNOUNCEMENTS) for o in self._outcomes.get(sbdf, {}).values())
        }

    def explained(self, sbdf: Sbdf, finding: Finding) -> Finding:
        """Return a finding about a disagreement with the reason why it was not mended."""
        why = [o.detail for o in self.of(sbdf) if isinstance(o.action, _ANNOUNCEMENTS) and o.detail]
        return attrs.evolve(finding, text=f"{finding.text}; not mended: {why[0]}") if why else finding

    def replace(
        self,
        planned: Collection[Action],
        outcomes: Iterable[Outcome],
        scope: Iterable[Sbdf],
        *,
        listed: Collection[Sbdf] | None,
    ) -> list[Outcome]:
        """Replace the open actions of `scope` by those of its new plan; return the outcomes that are new.

        `listed` are the functions for which announcements were planned as well, None for all of the scope.

        Shape:  the outcomes that are new: actions that are done, and those that are open for another reason
                than before.
        """
        before = self._take(scope, listed)
        wanted = {key_of(action) for action in planned}
        came = {key_of(outcome.action): outcome for outcome in outcomes}
        for key, outcome in {**{k: o for k, o in before.items() if k in wanted}, **came}.items():
            if outcome.result not in _OVER:
                self._put(key, outcome)
        return [outcome for key, outcome in came.items() if _compared(before.get(key)) != _compared(outcome)]

    def _put(self, key: Key, outcome: Outcome) -> None:
        action = outcome.action
        held = self._outcomes.setdefault(subject_of(action), {})
        before, held[key] = held.get(key), outcome
        if before is not None:
            self._forget_pages(before.action)
        if isinstance(action, MapMmio | UnmapMmio):
            self._pages.add(action.frames, (action.place, action.sbdf))

    def _forget_pages(self, action: Action) -> None:
        if isinstance(action, MapMmio | UnmapMmio):
            self._pages.discard(action.frames, (action.place, action.sbdf))

    def _take(self, scope: Iterable[Sbdf], listed: Collection[Sbdf] | None) -> dict[Key, Outcome]:
        taken: dict[Key, Outcome] = {}
        for sbdf in scope:
            left: dict[Key, Outcome] = {}
            announced = listed is None or sbdf in listed
            for key, outcome in self._outcomes.pop(sbdf, {}).items():
                action = outcome.action
                if not announced and isinstance(action, _ANNOUNCEMENTS):
                    left[key] = outcome
                    continue
                taken[key] = outcome
                self._forget_pages(action)
            if left:
                self._outcomes[sbdf] = left
        return taken


def _compared(outcome: Outcome | None) -> tuple[Result, str] | None:
    """Return what makes an outcome the same as before; the detail of one that is over does not count."""
    if outcome is None:
        return None
    return outcome.result, "" if outcome.result in _OVER else outcome.detail
