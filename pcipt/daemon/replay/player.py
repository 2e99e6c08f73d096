"""The player of recordings for `pcipt replay`: it runs the engine on a recording and yields its actions.

Writes are collected until the recording has none for the settle time, as the daemon does; a write without a
time is not collected with others. The `n` of an action is the number of the last write or step before it, and
0 for actions at the engine's start.
"""

import difflib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pcipt.daemon.intake import Intake
from pcipt.daemon.replay.recording import Replay
from pcipt.daemon.settings import Settings
from pcipt.daemon.store import NoStore
from pcipt.daemon.watcher import Watch
from pcipt.daemon.worker import Worker
from pcipt.engine.engine import Engine
from pcipt.errors import InputError
from pcipt.host.recorded import Step
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.remap.actions import Outcome
from pcipt.remap.writes.json_view import json_from_action
from pcipt.xen.interface import Dom0Kind

PATIENCE = 1.0  # seconds; the daemon waits as long at most
KEYS = ("n", "action", "sbdf", "start", "size", "reason", "result")

Action = dict[str, Any]


class TraceSource:
    """A source of configuration writes that the replay fills. Its descriptor cannot be polled."""

    def __init__(self) -> None:
        self._waiting: list[ConfigWrite | Lost] = []

    def push(self, write: ConfigWrite | Lost) -> None:
        """Add a write or a loss, to be returned by the next `read`."""
        self._waiting.append(write)

    def fileno(self) -> int:
        return -1

    def read(self) -> list[ConfigWrite | Lost]:
        """Return the writes and losses that were added since the last call, in their order."""
        taken, self._waiting = self._waiting, []
        return taken

    def overrun(self) -> None:
        return None

    def blind(self) -> None:
        return None

    def close(self) -> None:
        """Do nothing: no file is open."""


class Player:
    """Runs the engine on a recording. `settings` decide which actions are performed, and the settle time.

    `lose` is called at each loss in the trace with the number of lost records; None is an unknown number.
    """

    def __init__(self, replay: Replay, settings: Settings, lose: Callable[[int | None], None] | None) -> None:
        self._replay = replay
        self._quiet = settings.settle_ms / 1000
        self._when = 0.0
        self._gathered: tuple[float | None, float | None] = (
            None,
            None,
        )  # times of the first and the last collected write
        self._source = TraceSource()
        self._lose = lose
        self._watch = Watch(self._source, "trace", obeys=replay.xen.identity.dom0 is Dom0Kind.PV)
        self.engine = Engine(replay.host, replay.xen, NoStore(), settings, lambda: "", lambda: self._when)
        self.engine.memory.intents = self._watch.intents
        self.engine.memory.trapped = self._watch.trapped
        self._intake = Intake(
            self.engine, replay.hotplug, self._watch, lambda: 0.0, lambda _sbdf, _action, _place: None,
            lambda _what, _count: None,
        )  # fmt: skip
        self._worker = Worker(self.engine, self._watch, lambda _scope, _report: None)

    def play(self) -> Iterator[Action]:
        """Play the whole recording; yield each action when the engine has concluded it, in the engine's
        order.

        Actions of the engine's start come first. Their `n` is 0; so is that of all actions before the first
        step or numbered write.

        Raises: InputError if the trace cannot be read or a step cannot be played; Catastrophe if a write, a
                step or an action kills the simulated host.
        """
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
        """Return True if the engine must act before this event, by the times in the recording.

        The engine must act before a step, a loss and a write without a time, and before the first write after
        one of these. The engine must also act before a write that came more than the settle time after
        the last collected write, or more than PATIENCE after the first collected write.
        Call this method once for each event, because it remembers the event's time.
        """
        when = event.when if isinstance(event, ConfigWrite) else None
        first, last = self._gathered
        quiet = when is None or first is None or last is None
        if when is not None and first is not None and last is not None:
            quiet = when - last > self._quiet or when - first > PATIENCE
        self._gathered = (when if quiet else first, when)
        self._when = max(self._when, when or 0.0)
        return quiet

    def _settle(self, number: int) -> Iterator[Action]:
        """Make the engine act on the writes and messages so far; yield its actions with `number` as their
        "n".
        """
        self._intake.take_writes()
        self._intake.take_messages()
        yield from _told(number, self._worker.work_off())


def replayed(
    directory: str, *, trace: str | None = None, dom0: str | None = None, settings: Settings | None = None,
    lose: Callable[[int | None], None] | None = None,
) -> Iterator[Action]:  # fmt: skip
    """Play the recording in a directory; yield the actions that the engine takes, in order.

    `trace` replaces the recording's file of writes, `dom0` ("pv" or "pvh") its kind of dom0. `settings` of
    None are the defaults. `lose` is called at each loss in the trace, see `Player`. Nothing is read before
    the first action is asked for.

    Raises: InputError if the recording cannot be read, or if it kills the simulated host: for example, a step
            needs a write that the trace does not have, so hardware and Xen disagree from there on.
            MalformedError if a file of the recording is malformed.
    """
    replay = Replay(directory, dom0, trace)
    try:
        with replay.surviving():
            yield from Player(replay, settings or Settings(), lose).play()
    finally:
        replay.hotplug.close()


def differences(path: str, actions: Iterable[Action]) -> list[str]:
    """Compare actions with the expected ones in the file `path`; return a unified diff, empty if they are the
    same.

    A key that no line of the file has is not compared. If the file has no keys at all (it is empty, for
    example), all KEYS are compared.

    Raises: InputError if the file cannot be read or is not JSON Lines of actions.
    """
    expected = _expected(path)
    keys = [key for key in KEYS if any(key in action for action in expected)] or list(KEYS)
    wanted, came = ([_line(action, keys) for action in each] for each in (expected, actions))
    return list(difflib.unified_diff(wanted, came, path, "replayed", lineterm=""))


def _expected(path: str) -> list[Action]:
    """Return the expected actions in a file. Empty lines are skipped.

    Raises: InputError if the file cannot be read, a line is not a JSON object, or an object has an unknown
            key.
    """
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
    """Return an action as JSON text with only these keys; a key that it lacks is null."""
    return json.dumps({key: action.get(key) for key in keys})


def _told(number: int, outcomes: Iterable[Outcome]) -> Iterator[Action]:
    """Yield outcomes as actions for the output, each with `number` as its "n"."""
    for outcome in outcomes:
        told = json_from_action(outcome.action)
        body = {key: told[key] for key in ("action", "sbdf", "start", "size", "reason")}
        yield {"n": number, **body, "result": outcome.result.value}
