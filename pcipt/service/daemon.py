"""The daemon: puts host, hypervisor, sources, engine and control socket together and runs until told to stop.

Policy is the engine's, I/O is the edges'; this module wires and loops. Events are gathered until it is quiet,
then acted on at once: a write is a reason to look, never a fact.
"""

import selectors
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import attrs

from pcipt.errors import InputError, NoSuchDeviceError, PciptError
from pcipt.host.uevents import HotplugEvent, Rescan
from pcipt.pci import PciPath, Sbdf, SlotFilter, parse_sbdf, parse_slot, parse_target
from pcipt.remap.actions import Outcome
from pcipt.service.chronicle import Chronicle
from pcipt.service.engine import Engine
from pcipt.service.events import Event
from pcipt.service.keeper import Keeper
from pcipt.service.loop import Loop, Signals
from pcipt.service.notify import Notifier
from pcipt.service.ports import Host
from pcipt.service.protocol import Message
from pcipt.service.report import health_of, outcome_to_json, status_to_json
from pcipt.service.server import Server, Wanted
from pcipt.service.settings import Settings, read_settings
from pcipt.service.watcher import Watch, no_watch
from pcipt.xen.interface import Hypervisor

PATIENCE = 1.0  # seconds after which changes are acted on even if it does not get quiet


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
    """`watch` is opened before this, so that nothing written while the machine is read is missed."""

    def __init__(
        self, host: Host, xen: Hypervisor, hotplug: Hotplug, options: Options, settings: Settings, log: Any,
        watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self._xen = xen
        self._hotplug = hotplug
        self._options = options
        self._log = log
        self._notifier = Notifier()
        self._loop = Loop()
        self._changed: set[Sbdf] = set()
        self._doubt = ""
        self._first: float | None = None
        self._chronicle = Chronicle(log, utc_now)
        self._server: Server | None = None
        self._watch = watch or no_watch()
        self.engine = Engine(host, xen, Keeper(options.state), settings, utc_now)
        self.engine.service_findings += self._watch.findings
        self._watch.on_finding = self.engine.service_findings.append
        self._watch.on_change = lambda change, read_back: self._chronicle.tell_change(
            change, read_back=read_back
        )
        self._watch.begin(self.engine.raws.values())

    def run(self, played: Callable[[], None] | None = None) -> None:
        """Reconcile, say READY, and serve until SIGTERM. `played` runs before anybody can connect."""
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload}
        signals = Signals(self._loop, handlers)
        self.engine.interrupted = lambda: not signals.pending.isdisjoint((signal.SIGTERM, signal.SIGINT))
        self._loop.watch(self._hotplug.fileno(), selectors.EVENT_READ, self._hotplug_ready)
        if self._watch.fileno is not None:
            self._loop.watch(self._watch.fileno, selectors.EVENT_READ, self._watch_ready)
        try:
            self._tell(self.engine.reconcile())
            if played is not None:
                played()
            self._server = Server(
                self._loop,
                self._options.socket,
                {"Status": self._status, "Resync": self._resync, "History": self._history},
                {"Monitor": _wanted_events},
            )
            self._chronicle.publish = self._server.publish
            self._notifier.send("READY=1", self._status_line())
            self._loop.run()
        finally:
            if self._server is not None:
                self._server.close()
            signals.close()
            self._hotplug.close()
            for problem in self._watch.close():
                self._log.warning("watching was not taken down cleanly", reason=problem)
            self._loop.close()

    def _hotplug_ready(self, _events: int) -> None:
        self._take_hotplug()
        if self._changed or self._doubt:
            self._wait_for_quiet()

    def _watch_ready(self, _events: int) -> None:
        if self._watch.take():
            self._wait_for_quiet()

    def _wait_for_quiet(self) -> None:
        now = time.monotonic()
        self._first = now if self._first is None else self._first
        quiet = self.engine.settings.settle_ms / 1000
        self._loop.after("settle", max(0.0, min(quiet, self._first + PATIENCE - now)), self.settle)

    def _take_hotplug(self) -> None:
        for event in self._hotplug.read():
            if isinstance(event, Rescan):
                self._doubt = event.reason
            else:
                self._changed.add(event.sbdf)

    def settle(self) -> None:
        """Act on what has changed, now that it is quiet."""
        self._first = None
        self._take_hotplug()
        plugged, doubt = frozenset(self._changed), self._doubt
        self._changed.clear()
        self._doubt = ""
        written, lost = self._watch.settle()
        if doubt or lost:
            self._chronicle.tell_loss(doubt or "records of configuration writes were lost", lost)
            self._tell(self.engine.reconcile())
            self._watch.begin(self.engine.raws.values())
        elif plugged or written:
            for sbdf in sorted(plugged):
                self._chronicle.tell_hotplug(sbdf, self.engine.machine)
            self.engine.reread(written - plugged)
            self._tell(self.engine.follow(plugged) if plugged else [])
            if plugged:
                self._watch.begin(self.engine.raws.values())
            self._watch.refresh(raw for sbdf, raw in self.engine.raws.items() if sbdf in written)
        self._notifier.send(self._status_line())

    def _tell(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            self._chronicle.tell_outcome(outcome, self.engine.machine)
        self._chronicle.tell_findings(self.engine.findings)

    def _status(self, _parameters: Message) -> Message:
        counters = {name: getattr(self._hotplug, name) for name in ("overruns", "gaps", "forged")}
        watch = {**self._watch.counters(), "last_change": self._chronicle.last_change}
        monitors = self._server.subscribers if self._server is not None else 0
        told = status_to_json(self.engine, self._xen.identity, counters, watch)
        return {**told, "monitors": monitors}

    def _resync(self, parameters: Message) -> Message:
        dry_run = parameters.get("dry_run", False)
        if not isinstance(dry_run, bool):
            raise InputError("dry_run", "is neither true nor false")
        outcomes = self.engine.reconcile(dry_run=dry_run)
        self._tell(outcomes)
        self._notifier.send(self._status_line())
        actions = [outcome_to_json(outcome) for outcome in outcomes]
        return {"version": 1, "health": health_of(self.engine), "actions": actions}

    def _history(self, parameters: Message) -> Message:
        machine, text = self.engine.machine, str(parameters.get("function", ""))
        target = parse_target(text)
        if isinstance(target, PciPath):
            found = (f.sbdf for f in machine.functions.values() if f.path == target)
            target = next(found, None) or target
        if isinstance(target, SlotFilter):
            target = parse_sbdf(text)  # says what is missing
        events = self._chronicle.history_of(machine, target)
        if not events and target not in machine.functions:
            raise NoSuchDeviceError(str(target))
        return {"version": 1, "sbdf": str(target), "events": events}

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
            path, required = self._options.settings, self._options.settings_required
            self.engine.settings = read_settings(path, required=required)
            self._log.info("settings read again", mode=self.engine.settings.mode)
        except PciptError as error:
            self._log.error("settings kept as they were", reason=str(error))
        self._notifier.send("READY=1", self._status_line())


def _wanted_events(parameters: Message) -> Wanted:
    """Say which events a monitor wants: those of a slot filter, and what concerns no single function.

    Raises: AddressError for a malformed filter.
    """
    text = parameters.get("slot")
    slot = SlotFilter() if text is None else parse_slot(str(text))

    def wanted(event: Event) -> bool:
        address = event.get("sbdf")
        return address is None or slot.matches(parse_sbdf(address))

    return wanted


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
