"""The daemon: puts host, hypervisor, keeper, engine and control socket together and runs until told to stop.

Policy is the engine's, I/O is the edges'; this module wires and loops.
"""

import contextlib
import fcntl
import os
import selectors
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Protocol

import attrs

from pcipt.errors import InputError, PciptError
from pcipt.host.uevents import HotplugEvent, Rescan
from pcipt.pci import Sbdf
from pcipt.remap.actions import Outcome, Result
from pcipt.service.engine import Engine
from pcipt.service.keeper import Keeper
from pcipt.service.loop import Loop, Signals
from pcipt.service.notify import Notifier
from pcipt.service.ports import Host
from pcipt.service.protocol import Message
from pcipt.service.report import health_of, outcome_to_json, status_to_json
from pcipt.service.server import Server
from pcipt.service.settings import Settings, read_settings
from pcipt.xen.interface import Hypervisor

STATE_DIRECTORY = "/var/lib/pcipt"
SETTLE = 0.05  # seconds of quiet after a hot-plug event: one unplug of a bridge sends many


class Hotplug(Protocol):
    """What tells of functions that come and go, and when it may have missed something."""

    overruns: int
    gaps: int
    forged: int

    def fileno(self) -> int: ...

    def read(self) -> list[HotplugEvent | Rescan]: ...

    def close(self) -> None: ...


@attrs.frozen
class Options:
    socket: str
    state: str
    settings: str
    settings_required: bool


class Daemon:
    def __init__(
        self, host: Host, xen: Hypervisor, hotplug: Hotplug, options: Options, settings: Settings, log: Any
    ) -> None:
        self._xen = xen
        self._hotplug = hotplug
        self._options = options
        self._log = log
        self._notifier = Notifier()
        self._loop = Loop()
        self._changed: set[Sbdf] = set()
        self._doubt = ""
        self.engine = Engine(host, xen, Keeper(options.state), settings, _now)

    def run(self, played: Callable[[], None] | None = None) -> None:
        """Reconcile, say READY, and serve until SIGTERM. `played` runs before anybody can connect."""
        signals = Signals(
            self._loop,
            {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload},
        )
        self._loop.watch(self._hotplug.fileno(), selectors.EVENT_READ, self._hotplug_ready)
        server = None
        try:
            self._tell(self.engine.reconcile())
            if played is not None:
                played()
            handlers = {"Status": self._answer_status, "Resync": self._answer_resync}
            server = Server(self._loop, self._options.socket, handlers)
            self._notifier.send("READY=1", self._status_line())
            self._loop.run()
        finally:
            if server is not None:
                server.close()
            signals.close()
            self._hotplug.close()
            self._loop.close()

    def _hotplug_ready(self, _events: int) -> None:
        self.take_events()
        if self._changed or self._doubt:
            self._loop.after("settle", SETTLE, self.settle)

    def take_events(self) -> None:
        for event in self._hotplug.read():
            if isinstance(event, Rescan):
                self._doubt = event.reason
            else:
                self._changed.add(event.sbdf)

    def settle(self) -> None:
        """Act on what has changed, now that it is quiet."""
        self.take_events()
        changed, doubt = frozenset(self._changed), self._doubt
        self._changed.clear()
        self._doubt = ""
        if doubt:
            self._log.warning("comparing everything", reason=doubt)
            self._tell(self.engine.reconcile())
        elif changed:
            self._log.info("hot-plug", functions=",".join(str(sbdf) for sbdf in sorted(changed)))
            self._tell(self.engine.follow(changed))
        self._notifier.send(self._status_line())

    def _tell(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            say = self._log.info if outcome.result in (Result.DONE, Result.PLANNED) else self._log.warning
            detail = {"detail": outcome.detail} if outcome.detail else {}
            action = outcome.action
            say(
                action.word,
                sbdf=str(action.sbdf),
                result=outcome.result.value,
                reason=action.reason,
                **detail,
            )

    def _answer_status(self, _parameters: Message) -> Message:
        counters = {name: getattr(self._hotplug, name) for name in ("overruns", "gaps", "forged")}
        return status_to_json(self.engine, self._xen.identity, counters)

    def _answer_resync(self, parameters: Message) -> Message:
        outcomes = self.engine.reconcile(dry_run=parameters.get("dry_run") is True)
        self._tell(outcomes)
        self._notifier.send(self._status_line())
        return {
            "version": 1,
            "health": health_of(self.engine),
            "actions": [outcome_to_json(outcome) for outcome in outcomes],
        }

    def _status_line(self) -> str:
        functions, findings = len(self.engine.machine.functions), len(self.engine.findings)
        known = sum(sbdf in self.engine.view.known for sbdf in self.engine.machine.functions)
        return f"STATUS={functions} functions, {known} known to Xen, {findings} findings"

    def _stop(self) -> None:
        self._notifier.send("STOPPING=1")
        self._log.info("stopping")
        self._loop.stop()

    def _reload(self) -> None:
        self._notifier.send("RELOADING=1")
        try:
            self.engine.settings = read_settings(
                self._options.settings, required=self._options.settings_required
            )
            self._log.info("settings read again", mode=self.engine.settings.mode)
        except PciptError as error:
            self._log.error("settings kept as they were", reason=str(error))
        self._notifier.send("READY=1", self._status_line())


@contextlib.contextmanager
def only_one(directory: str) -> Iterator[None]:
    """Hold the lock of the state directory, so that one daemon writes the ledger.

    Raises: InputError where another daemon holds it, with its pid, or the directory cannot be used.
    """
    path = os.path.join(directory, "lock")
    try:
        os.makedirs(directory, mode=0o750, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    except OSError as error:
        raise InputError(directory, f"state directory: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip() or "unknown"
            raise InputError(directory, f"another pcipt daemon is running (pid {holder})") from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
