"""Open actions: planned by the last reconciliation of a function, and refused, failed or not allowed.

An open action is told when it is new, and when its result or its reason has changed. An open action on pages
is planned again when anything changes at its pages.
"""

from collections.abc import Collection, Iterable

import attrs

from pcipt.pci import Finding, Frames, Sbdf
from pcipt.pci.bars import name_of_bar
from pcipt.remap.actions import (
    Action,
    AddDevice,
    GuardPort,
    MapMmio,
    Outcome,
    Quarantine,
    RemoveDevice,
    RestoreReserved,
    Result,
    RewriteBar,
    RewriteCommand,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.intervals import Intervals

Key = tuple[str, Sbdf, int, int]

_ANNOUNCEMENTS = (AddDevice, RemoveDevice)
FORBIDDEN = "the settings of pcipt do not allow it (mode, actions)"
_OVER = (Result.DONE, Result.NOT_APPLICABLE)


def key_of(action: Action) -> Key:
    """Return a key that is equal for two plans of the same action.

    It is: word, function's address, BAR number (-1 if none), and first frame or new BAR address (-1 if none).
    """
    frames, bar = getattr(action, "frames", None), getattr(action, "bar", -1)
    about = action.address if isinstance(action, RewriteBar) else frames.start if frames is not None else -1
    return action.word, action.sbdf, bar, about


def subject_of(action: Action) -> Sbdf:
    """Return `moved_from` of an action if it is set, else its `sbdf`: Linux's address of the function."""
    return getattr(action, "moved_from", None) or action.sbdf


def finding_of_action(outcome: Outcome) -> Finding | None:
    """Return the finding that an open action on pages or on a reserved region is not done, or the
    rewrite of a Command register.

    Return None for other actions, and for a map or a rewrite that is only planned because the settings forbid
    it: it may not be needed.
    """
    action = outcome.action
    planned = outcome.result is Result.PLANNED
    detail = FORBIDDEN if planned else outcome.detail
    if isinstance(action, RestoreReserved):
        why = f"the reserved region {action.frames} is not mapped, so DMA of its devices may be refused"
        return Finding("region-missing", f"{why}: {detail}")
    if isinstance(action, WithdrawReserved):
        still = "is still" if planned or outcome.result is Result.REFUSED else "may still be"
        why = f"the reserved region {action.frames} {still} mapped, though no device in dom0 needs it"
        return Finding("region-left", f"{why}: {detail}")
    if isinstance(action, Quarantine | GuardPort):
        return _finding_of_port(action, detail)
    if planned and not isinstance(action, UnmapMmio):
        return None
    if isinstance(action, RewriteCommand):
        why = (
            "while its bus was renumbered, a write to its Command register reached Xen but not the "
            "function; Xen may have mapped or unmapped its BARs"
        )
        return Finding("mapping-in-doubt", f"{why}: {detail}")
    if not isinstance(action, MapMmio | UnmapMmio):
        return None
    name = name_of_bar(action.bar)
    if isinstance(action, MapMmio):
        return Finding("not-mapped", f"{name} decodes at {action.frames} and is not mapped: {detail}")
    still = "may still be" if planned else "is still"
    return Finding("stale-mapping", f"{action.frames} {still} mapped for {name}: {detail}")


def _finding_of_port(action: Quarantine | GuardPort, detail: str) -> Finding | None:
    """Return the finding that a function below a policed port is not quarantined, or a port is open."""
    if isinstance(action, Quarantine):
        return Finding("not-quarantined", f"{action.reason}, and dom0 still has it: {detail}")
    if not action.on:
        return None
    why = (
        "a driver of dom0 may take a device that appears below this port before pcipt quarantines the device"
    )
    return Finding("port-unguarded", f"{why}: {detail}")


class OpenActions:
    """The open actions of all functions, by the address that Linux has for the function."""

    def __init__(self) -> None:
        self._outcomes: dict[Sbdf, dict[Key, Outcome]] = {}
        self._pages: Intervals[tuple[str, Sbdf]] = Intervals()

    @property
    def subjects(self) -> list[Sbdf]:
        """Return the addresses that have open actions."""
        return list(self._outcomes)

    def concern_others(self, functions: Collection[Sbdf]) -> bool:
        """Return True if a relative of one of `functions`, not counting itself, may have an open action."""
        return len(functions) > 1 or any(sbdf not in functions for sbdf in self._outcomes)

    def of(self, sbdf: Sbdf) -> list[Outcome]:
        """Return the outcomes of the open actions of one function, in the order of the plan."""
        return list(self._outcomes.get(sbdf, {}).values())

    def places_over(self, pages: Iterable[Frames]) -> dict[str, Sbdf]:
        """Return the places that have an open action on any of these pages, each with its address."""
        return {place: sbdf for frames in pages for _, (place, sbdf) in self._pages.over(frames)}

    @property
    def concern_pages(self) -> bool:
        """True if there is an open map or unmap."""
        return len(self._pages) > 0

    def places_of(self, functions: Iterable[Sbdf]) -> dict[str, Sbdf]:
        """Return the places for which these functions have open maps or unmaps, each with its address."""
        return {
            outcome.action.place: outcome.action.sbdf
            for sbdf in functions
            for outcome in self._outcomes.get(sbdf, {}).values()
            if isinstance(outcome.action, MapMmio | UnmapMmio)
        }

    def announcements_among(self, functions: Iterable[Sbdf]) -> set[Sbdf]:
        """Return the functions among these that have an open AddDevice or RemoveDevice action."""
        return {
            sbdf
            for sbdf in functions
            if any(isinstance(o.action, _ANNOUNCEMENTS) for o in self._outcomes.get(sbdf, {}).values())
        }

    def why_refused(self, sbdf: Sbdf, kind: type[Action]) -> str:
        """Return why an open action of this kind is refused for a function, or "" if none is."""
        open_ones = (o for o in self.of(sbdf) if isinstance(o.action, kind))
        return next((o.detail for o in open_ones if o.result is Result.REFUSED), "")

    def explained(self, sbdf: Sbdf, finding: Finding) -> Finding:
        """Return the finding; the reason why an open announcement of the function is not done is added.

        The first reason counts. Without an open announcement that has a reason, the finding is unchanged.
        """
        why = [o.detail for o in self.of(sbdf) if isinstance(o.action, _ANNOUNCEMENTS) and o.detail]
        return attrs.evolve(finding, text=f"{finding.text}; not repaired: {why[0]}") if why else finding

    def replace(
        self,
        planned: Collection[Action],
        outcomes: Iterable[Outcome],
        scope: Iterable[Sbdf],
        *,
        listed: Collection[Sbdf] | None,
    ) -> list[Outcome]:
        """Replace the open actions of the functions in `scope` by those of a new plan; return the outcomes to
        tell.

        `planned` are all actions of the plan. `outcomes` are those of the actions that were tried. An action
        that was planned and not tried keeps its former outcome. Announcements were planned only for the
        functions in `listed` (None: for all); open announcements of the other functions stay.
        Shape:  those of `outcomes` that differ in result or reason from the former open outcome of the same
                action, or whose action had none.
        """
        before = self._take(scope, listed)
        came = {key_of(outcome.action): outcome for outcome in outcomes}
        for key in map(key_of, planned):
            outcome = came.get(key, before.get(key))
            if outcome is not None and outcome.result not in _OVER:
                self._put(key, outcome)
        return [outcome for key, outcome in came.items() if _compared(before.get(key)) != _compared(outcome)]

    def _put(self, key: Key, outcome: Outcome) -> None:
        """Add the outcome of an open action, in the place of an earlier one of the same key."""
        action = outcome.action
        held = self._outcomes.setdefault(subject_of(action), {})
        before, held[key] = held.get(key), outcome
        if before is not None:
            self._forget_pages(before.action)
        if isinstance(action, MapMmio | UnmapMmio):
            self._pages.add(action.frames, (action.place, action.sbdf))

    def _forget_pages(self, action: Action) -> None:
        """Remove an action from the index of pages; an action without pages is no error."""
        if isinstance(action, MapMmio | UnmapMmio):
            self._pages.discard(action.frames, (action.place, action.sbdf))

    def _take(self, scope: Iterable[Sbdf], listed: Collection[Sbdf] | None) -> dict[Key, Outcome]:
        """Remove and return the open actions of the functions in `scope`.

        Open announcements of functions that are not in `listed` stay. None means that all are listed.
        """
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
    """Return what two outcomes of the same action are compared by, None for no outcome."""
    return (outcome.result, outcome.detail) if outcome is not None else None
