"""Plays a recording through the engine and gives the actions: what `pcipt replay` prints and compares.

Writes are gathered until the recording was quiet for the settle time, as the daemon gathers them; one
without a time stands alone. `n` of an action is the number of the last write or step before it, 0 for what
the engine does at its start.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pcipt.daemon.intake import Intake
from pcipt.daemon.replay.recording import Replay
from pcipt.daemon.settings import Settings
from pcipt.daemon.watcher import Watch
from pcipt.daemon.worker import Worker
from pcipt.engine.engine import Engine
from pcipt.errors import InputError
from pcipt.firmware.coverage import BootSnapshot
from pcipt.host.recorded import Step
from pcipt.pci import Finding
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.remap import steps
from pcipt.remap.actions import Outcome
from pcipt.remap.ledger import Ledger
from pcipt.remap.writes.json_view import json_from_action
from pcipt.xen.interface import Dom0Kind

PATIENCE = 1.0  # seconds, as the daemon's
KEYS = ("n", "action", "sbdf", "start", "size", "reason", "result")

Action = dict[str, Any]


class NoStore:
    """A store that keeps nothing: each replay begins without a ledger."""

    def load(self, boot_id: str) -> tuple[Ledger, BootSnapshot | None, list[Finding]]:
        return Ledger(boot_id), None, []

    def append(self, written: Sequence[steps.Step]) -> None: ...

    def save(self, ledger: Ledger) -> None: ...

    def save_mappings(self, ledger: Ledger) -> None: ...

    def save_snapshot(self, snapshot: BootSnapshot) -> None: ...

    def close(self) -> None: ...


class TraceSource:
    """Writes that come when the replay says so."""

    def __init__(self) -> None:
        self._waiting: list[ConfigWrite | Lost] = []

    def push(self, write: ConfigWrite | Lost) -> None:
        self._waiting.append(write)

    def fileno(self) -> int:
        return -1

    def read(self) -> list[ConfigWrite | Lost]:
        taken, self._waiting = self._waiting, []
        return taken

    def overrun(self) -> None:
        return None

    def blind(self) -> None:
        return None

    def close(self) -> None:
        """Nothing is open."""


class Player:
    """`settings` decide what is performed and how long it must be quiet.

    `lose` is told how many records are missing where the trace has a gap; None is an unknown number.
    """

    def __init__(self, replay: Replay, settings: Settings, lose: Callable[[int | None], None] | None) -> None:
        self._replay = replay
        self._quiet = settings.settle_ms / 1000
        self._when = 0.0
        self._gathered: tuple[float | None, float | None] = (None, None)  # first and last write
        self._source = TraceSource()
        self._lose = lose
        self._watch = Watch(self._source, "trace", obeys=replay.xen.identity.dom0 is Dom0Kind.PV)
        self.engine = Engine(replay.host, replay.xen, NoStore(), settings, lambda: "", lambda: self._when)
        self.engine.memory.intents = self._watch.intents
        self._intake = Intake(
            self.engine, replay.hotplug, self._watch, lambda: 0.0, lambda _sbdf, _action, _place: None,
            lambda _what, _count: None,
        )  # fmt: skip
        self._worker = Worker(self.engine, self._watch, lambda _scope, _report: None)

    def play(self) -> Iterator[Action]:
        """Play everything; gives each action as soon as it was taken."""
        yield from _told(0, self._worker.work_off())
        number = 0
        for event in self._replay.events():
            if self._ends_here(event):
                yield from self._settle(number)
            if isinstance(event, Lost):
                if self._lose is not None:
                    self._lose(event.count)
                self._source.push(event)
            elif isinstance(event, ConfigWrite):
                number = number if event.number is None else event.number
                self._replay.write(event)
                self._source.push(event)
            else:
                number = number + 1 if event.number is None else event.number
                self._replay.take(event)
        yield from self._settle(number)

    def _ends_here(self, event: ConfigWrite | Lost | Step) -> bool:
        """Tell whether it was quiet before this event, by the recording's own clock."""
        when = event.when if isinstance(event, ConfigWrite) else None
        first, last = self._gathered
        quiet = when is None or first is None or last is None
        if when is not None and first is not None and last is not None:
            quiet = when - last > self._quiet or when - first > PATIENCE
        self._gathered = (when if quiet else first, when)
        self._when = max(self._when, when or 0.0)
        return quiet

    def _settle(self, number: int) -> Iterator[Action]:
        self._intake.take_writes()
        self._intake.take_messages()
        yield from _told(number, self._worker.work_off())


def replayed(
    directory: str, *, trace: str | None = None, dom0: str | None = None, settings: Settings | None = None,
    lose: Callable[[int | None], None] | None = None,
) -> Iterator[Action]:  # fmt: skip
    """Play the recording in a directory; gives the actions that the engine takes.

    Raises: PciptError for what the recording lacks or holds wrongly; also where it kills the simulated host,
            as a step does whose writes are not in the trace: hardware and Xen then disagree from there on.
    """
    replay = Replay(directory, dom0, trace)
    try:
        with replay.surviving():
            yield from Player(replay, settings or Settings(), lose).play()
    finally:
        replay.hotplug.close()


def differences(path: str, actions: Iterable[Action]) -> list[str]:
    """Compare actions with those a file expects, by the keys that its lines have; gives a unified diff.

    Raises: InputError where the file is not JSON Lines of actions.
    """
    expected = _expected(path)
    keys = [key for key in KEYS if any(key in action for action in expected)] or list(KEYS)
    wanted, came = ([_line(action, keys) for action in each] for each in (expected, actions))
    return list(difflib.unified_diff(wanted, came, path, "replayed", lineterm=""))


def _expected(path: str) -> list[Action]:
    try:
        with open(path, encoding="utf-8") as file:
            found = [json.loads(line) for line in file if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, getattr(error, "strerror", None) or "is not JSON Lines") from error
    if not all(isinstance(action, dict) for action in found):
        raise InputError(path, "has a line that is no JSON object")
    for key in (key for action in found for key in action if key not in KEYS):
        raise InputError(path, f"has the unknown key {key!r}; expected {', '.join(KEYS)}")
    return found


def _line(action: Action, keys: Iterable[str]) -> str:
    return json.dumps({key: action.get(key) for key in keys})


def _told(number: int, outcomes: Iterable[Outcome]) -> Iterator[Action]:
    for outcome in outcomes:
        told = json_from_action(outcome.action)
        body = {key: told[key] for key in ("action", "sbdf", "start", "size", "reason")}
        yield {"n": number, **body, "result": outcome.result.value}
