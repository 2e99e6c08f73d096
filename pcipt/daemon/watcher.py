"""Folds configuration writes into the shadow registers, and calls back with the functions to read again.

A write says what was intended. The engine reads back what it led to once no more writes arrive. `refresh`
puts what hardware says into the shadow; a difference is one more change.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pcipt.errors import StateError, UnsupportedError
from pcipt.pci import Finding, Machine, RawFunction, Sbdf
from pcipt.pci.write import ConfigWrite, Lost, WriteSource
from pcipt.remap.ignored import Intents
from pcipt.remap.writes.changes import BusRenumbered, Change, RereadWanted
from pcipt.remap.writes.initial import refreshed, shadow_from_machine
from pcipt.remap.writes.shadow import Shadow, settle, step

OnChange = Callable[[Change, bool], None]
OnFinding = Callable[[Finding], None]
OnWritten = Callable[[Sbdf], None]
OnLost = Callable[[int], None]
UNSEEN = "writes to config space go unseen, only hot-plug messages lead to reading again"


class Watch:
    """Holds the source and the shadow of the machine; without a source it only has findings to give.

    `on_written` is called with each function that must be read again, `on_lost` with the number of records
    that were lost. `on_change` is called with each change and whether it was found by reading back,
    `on_finding` when the source has broken down. `obeys` is False where Xen's vPCI drops writes to BARs that
    decode (PVH): then `intents` has what was asked for.
    """

    def __init__(
        self, source: WriteSource | None, name: str, *, obeys: bool = True, findings: Iterable[Finding] = ()
    ) -> None:
        self._source = source
        self._name = name
        self._obeys = obeys
        self._shadow = Shadow(obeys=obeys)
        self.intents = Intents()
        self._writes = self._own = self._lost = 0
        self.findings = list(findings)
        self._told: set[str] = set()
        self.on_written: OnWritten = lambda _sbdf: None
        self.on_lost: OnLost = lambda _count: None
        self.on_change: OnChange = lambda _change, _read_back: None
        self.on_finding: OnFinding = lambda _finding: None

    @property
    def fileno(self) -> int | None:
        return self._source.fileno() if self._source is not None else None

    def counters(self) -> dict[str, Any]:
        source = self._name if self._source is not None else None
        return {"source": source, "writes": self._writes, "own": self._own, "lost": self._lost}

    def blind(self) -> str | None:
        """Say why the source that was opened sees nothing any more; None where it does or there is none."""
        return self._source.blind() if self._source is not None else None

    def begin(self, machine: Machine, raws: Mapping[Sbdf, RawFunction]) -> None:
        """Start over from the machine as it was just read; both may change in place with later readings."""
        if self._source is not None:
            self._shadow = shadow_from_machine(machine, raws, obeys=self._obeys)

    def take(self) -> None:
        """Fold in all writes that the source has."""
        for event in self._source.read() if self._source is not None else ():
            self._fold(event)

    def settle(self) -> None:
        """Decide about writes that waited for others (one half of a 64-bit BAR): no others have arrived."""
        if self._source is None:
            return
        overrun = self._source.overrun()
        if overrun is not None:
            self._fold(overrun)
        for problem in self._new_problems():
            self.on_finding(Finding("watch-unavailable", f"{problem}; {UNSEEN}"))
        self._shadow, changes = settle(self._shadow)
        self._note(changes)

    def refresh(self, raws: Iterable[RawFunction]) -> None:
        """Take what was read back for the truth."""
        for raw in list(raws):
            self._shadow, changes = refreshed(self._shadow, raw.sbdf, raw.config or b"")
            for change in changes:
                if not isinstance(change, RereadWanted):
                    self.on_change(change, True)

    def close(self) -> tuple[str, ...]:
        """Take the source down; gives what did not go cleanly."""
        if self._source is None:
            return ()
        self._source.close()
        return self._new_problems()

    def _new_problems(self) -> tuple[str, ...]:
        found: tuple[str, ...] = getattr(self._source, "problems", ())
        fresh = tuple(problem for problem in found if problem not in self._told)
        self._told.update(fresh)
        return fresh

    def _fold(self, event: ConfigWrite | Lost) -> None:
        if isinstance(event, Lost):
            self._lost += event.count or 1
            self.on_lost(event.count or 1)
            return
        self._writes += 1
        self._own += event.own
        if not self._obeys:
            intents = len(self.intents)
            self.intents.follow(self._shadow, event)
            if len(self.intents) != intents:
                self.on_written(event.sbdf)  # also where nothing changes but that an intent is over
        try:
            self._shadow, changes = step(self._shadow, event)
        except StateError:
            self.on_written(event.sbdf)  # no access can be like that: believe the hardware instead
            return
        self._note(changes)

    def _note(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self.on_written(change.sbdf)
            for pair in change.moved if isinstance(change, BusRenumbered) else ():
                for sbdf in pair:
                    if sbdf is not None:
                        self.on_written(sbdf)
            if not isinstance(change, RereadWanted):
                self.on_change(change, False)


def no_watch(finding: Finding | None = None) -> Watch:
    """Make a watch that sees nothing; the daemon lives on with reading again on hot-plug messages."""
    return Watch(None, "none", findings=() if finding is None else (finding,))


def open_watch(open_source: Callable[[], WriteSource], name: str, *, obeys: bool) -> Watch:
    """Open a source; where it cannot be had, that is a finding and not an error."""
    try:
        return Watch(open_source(), name, obeys=obeys)
    except UnsupportedError as error:
        return no_watch(Finding("watch-unavailable", f"{error}; {UNSEEN}"))
