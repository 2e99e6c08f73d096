"""Applies configuration writes to shadow registers, and calls back with the functions that must be read
again.

A write says what its writer wanted. When no more writes arrive, the engine reads back what the registers are.
`refresh` puts what was read into the shadow; a difference is one more change.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from pcipt.errors import StateError, UnsupportedError
from pcipt.pci import Finding, Machine, RawFunction, Sbdf
from pcipt.pci.write import ConfigWrite, Lost, WriteSource
from pcipt.remap.ignored import Intents
from pcipt.remap.vpci.trapped import Trapped
from pcipt.remap.writes.changes import BusRenumbered, Change, RereadWanted
from pcipt.remap.writes.initial import refreshed, shadow_from_machine
from pcipt.remap.writes.shadow import Shadow, settle, step, with_function

OnChange = Callable[[Change, bool], None]
OnFinding = Callable[[Finding], None]
OnWritten = Callable[[Sbdf], None]
OnLost = Callable[[int], None]
UNSEEN = "pcipt does not see writes to config space, and reads functions again only after hot-plug messages"


class Watch:
    """The source of configuration writes, and the shadow registers of the machine.

    A source of None sees no writes. `name` is the source's name in `counters`. `findings` are those about
    opening the source. `on_written` is called with each function that must be read again. `on_lost` is called
    with the number of lost records; an unknown number is given as 1. `on_change` is called with each
    change of a register, and True if reading back found it, False if a write made it. `on_finding` is called
    with a finding for each new problem of the source. A source that raises OSError is not read any more: this
    is a problem of the source, and a loss of unknown count.

    `obeys` is False if Xen's vPCI drops writes to BARs that it takes for mapped (PVH). Then `intents` holds
    what was written to such BARs, and `trapped` what the writes made vPCI do.
    """

    def __init__(
        self, source: WriteSource | None, name: str, *, obeys: bool = True, findings: Iterable[Finding] = ()
    ) -> None:
        self._source = source
        self._name = name
        self._obeys = obeys
        self._shadow = Shadow(obeys=obeys)
        self.intents = Intents()
        self.trapped = Trapped()
        self._raws: Mapping[Sbdf, RawFunction] = {}
        self._written: dict[Sbdf, RawFunction] = {}  # the last readings, older than writes that came since
        self._writes = self._own = self._lost = 0
        self.findings = list(findings)
        self._told: set[str] = set()
        self._broken: str | None = None
        self.on_written: OnWritten = lambda _sbdf: None
        self.on_lost: OnLost = lambda _count: None
        self.on_change: OnChange = lambda _change, _read_back: None
        self.on_finding: OnFinding = lambda _finding: None

    @property
    def fileno(self) -> int | None:
        """Return the descriptor to poll for writes; None if there is no source or it is not read any more."""
        return self._source.fileno() if self._source is not None and self._broken is None else None

    def counters(self) -> dict[str, Any]:
        """Return the name of the source (None if there is none) and counters: writes, own writes, lost
        records.

        Own writes are those of this process; `writes` includes them.
        """
        source = self._name if self._source is not None else None
        return {"source": source, "writes": self._writes, "own": self._own, "lost": self._lost}

    def blind(self) -> str | None:
        """Return the reason if the source was opened and sees no writes any more; None if it sees writes.

        None is also returned if there is no source.
        """
        if self._source is None:
            return None
        return self._broken or self._source.blind()

    def begin(self, machine: Machine, raws: Mapping[Sbdf, RawFunction]) -> None:
        """Replace the shadow registers by those of a machine that was just read.

        A function that was written to and not read since keeps its shadow registers. Without a source nothing
        is done. `raws` is kept: the shadow of a function is made from its entry in `raws` when it is first
        needed. Later readings may change `raws` until then.
        """
        if self._source is None:
            return
        before, self._raws = self._shadow, raws
        self._shadow = shadow_from_machine(machine, raws, obeys=self._obeys)
        self._written = {sbdf: raw for sbdf, raw in self._written.items() if raws.get(sbdf) is raw}
        for sbdf in self._written:
            former, read = before.at(sbdf), machine.functions.get(sbdf)
            if former is not None and read is not None and read.path == former.place:
                self._shadow = with_function(self._shadow, former)

    def take(self) -> None:
        """Read all writes and losses from the source and apply them to the shadow, calling back for each
        change.
        """
        if self._source is None or self._broken is not None:
            return
        try:
            events = self._source.read()
        except OSError as error:
            self._break(error)
            return
        for event in events:
            self._fold(event)

    def settle(self) -> None:
        """Apply the writes that wait in the shadow for the other half of a 64-bit BAR, which has not arrived.

        Also report losses that only the source's counters show, and new problems of the source.
        """
        if self._source is None:
            return
        try:
            overrun = self._source.overrun() if self._broken is None else None
        except OSError as error:
            self._break(error)
            overrun = None
        if overrun is not None:
            self._fold(overrun)
        for problem in self._new_problems():
            self.on_finding(Finding("watch-unavailable", f"{problem}; {UNSEEN}"))
        self._shadow, changes = settle(self._shadow)
        self._note(changes)

    def refresh(self, raws: Iterable[RawFunction]) -> None:
        """Replace the shadow registers of these functions by what was read back.

        `on_change` is called for each difference, but `on_written` is not: the functions need not be read
        again.
        """
        for raw in list(raws):
            self._written.pop(raw.sbdf, None)
            self._shadow, changes = refreshed(self._shadow, raw.sbdf, raw.config or b"")
            for change in changes:
                if not isinstance(change, RereadWanted):
                    self.on_change(change, True)

    def close(self) -> tuple[str, ...]:
        """Close the source.

        Return the problems of the source that were not reported before, for example an error when it was
        closed. Return an empty tuple if there is no source.
        """
        if self._source is None:
            return ()
        self._source.close()
        return self._new_problems()

    def _break(self, error: OSError) -> None:
        """Stop reading the source, because it raised `error`. Writes may have been missed: report a loss."""
        self._broken = f"the source of configuration writes cannot be read ({error.strerror or error})"
        self._fold(Lost())

    def _new_problems(self) -> tuple[str, ...]:
        """Return the problems of the source that this method has not returned before."""
        found: tuple[str, ...] = getattr(self._source, "problems", ())
        if self._broken is not None:
            found = (self._broken, *found)
        fresh = tuple(problem for problem in found if problem not in self._told)
        self._told.update(fresh)
        return fresh

    def _fold(self, event: ConfigWrite | Lost) -> None:
        """Count one write or loss. Apply a write to the shadow, and call back with what it changed.

        A loss is not applied: only `on_lost` is called.
        """
        if isinstance(event, Lost):
            self._lost += event.count or 1
            self.on_lost(event.count or 1)
            return
        self._writes += 1
        self._own += event.own
        if event.sbdf in self._raws:
            self._written.setdefault(event.sbdf, self._raws[event.sbdf])
        if self._obeys:
            again = set()
        else:
            if self._shadow.counted != self.trapped.counted:
                self._shadow = attrs.evolve(self._shadow, counted=self.trapped.counted)
            again = self._follow_intents(event)
        before = self._shadow
        try:
            self._shadow, changes = step(before, event)
        except StateError:
            self.on_written(event.sbdf)  # no access can be like that: believe the hardware instead
            return
        if not self._obeys and self.trapped.follow(before, self._shadow, event, self.intents.wanted):
            again.add(event.sbdf)
        self._note(changes, again)

    def _follow_intents(self, write: ConfigWrite) -> set[Sbdf]:
        """Note what a write wants that vPCI may drop; return its function if it must be read for that.

        It must be read, too, if nothing changes but that an intent is over.
        """
        held = len(self.intents), len(self.intents.unreached)
        wanted = self.intents.follow(self._shadow, write)
        return {write.sbdf} if wanted or (len(self.intents), len(self.intents.unreached)) != held else set()

    def _note(self, changes: Iterable[Change], again: Iterable[Sbdf] = ()) -> None:
        """Call `on_change` for each change of a register, and `on_written` once for each changed or
        renumbered function, and for those in `again`.
        """
        written = dict.fromkeys(again)
        for change in changes:
            written[change.sbdf] = None
            if isinstance(change, BusRenumbered):
                if not self._obeys:
                    self.intents.moved(
                        (before for before, _ in change.moved), (after for _, after in change.moved)
                    )
                written |= dict.fromkeys(sbdf for pair in change.moved for sbdf in pair if sbdf is not None)
            if not isinstance(change, RereadWanted):
                self.on_change(change, False)
        for sbdf in written:
            self.on_written(sbdf)


def no_watch(finding: Finding | None = None) -> Watch:
    """Return a watch without a source, which has `finding` if that is not None.

    Without a source the daemon does not notice writes; hot-plug messages still make it read functions again.
    """
    return Watch(None, "none", findings=() if finding is None else (finding,))


def open_watch(open_source: Callable[[], WriteSource], name: str, *, obeys: bool) -> Watch:
    """Return a watch on the source that `open_source` returns. `name` is the source's name in `counters`.

    `obeys` is that of `Watch`. If `open_source` raises UnsupportedError, return a watch without a source,
    which has a finding with the reason.

    Raises: every other error of `open_source`.
    """
    try:
        return Watch(open_source(), name, obeys=obeys)
    except UnsupportedError as error:
        return no_watch(Finding("watch-unavailable", f"{error}; {UNSEEN}"))
