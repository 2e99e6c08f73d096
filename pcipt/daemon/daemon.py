"""The daemon: puts host, hypervisor, sources, engine and control socket together and runs until told to stop.

Policy is the engine's, I/O is the edges'; this module wires and loops. Events are gathered until it is quiet,
then acted on at once: a write is a reason to look, never a fact.
"""

import gc
import os
import selectors
import signal
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from socket import socket as Socket  # noqa: N812 - a field of Options is called socket
from typing import Protocol

import attrs

from pcipt.daemon.control.listener import listen
from pcipt.daemon.control.methods import Answers, read_gauges
from pcipt.daemon.control.passthrough import Passthrough
from pcipt.daemon.control.regions import regions_answer
from pcipt.daemon.control.server import Server
from pcipt.daemon.counted_xen import CountedXen
from pcipt.daemon.loop import Loop, Signals
from pcipt.daemon.notify import Notifier
from pcipt.daemon.setting_keys import ACTIONS
from pcipt.daemon.settings import Settings, read_settings
from pcipt.daemon.settling import act_on, arrived, quiet_time
from pcipt.daemon.store import Keeper
from pcipt.daemon.telling.announcer import Chronicle
from pcipt.daemon.telling.log import Logs
from pcipt.daemon.telling.metrics import Form, Metrics
from pcipt.daemon.telling.text_file import Textfile
from pcipt.daemon.watchdog import Watchdog, watchdog_interval
from pcipt.daemon.watcher import Watch, no_watch
from pcipt.engine.engine import Engine
from pcipt.engine.interfaces import Host
from pcipt.errors import HypervisorError, PciptError
from pcipt.host.uevents import GuestsChanged, HostEvent, Rescan
from pcipt.pci import Sbdf
from pcipt.remap.actions import MapMmio, Outcome, Result, RewriteBar, UnmapMmio
from pcipt.xen.interface import Hypervisor

PATIENCE = 1.0  # seconds after which changes are acted on even if it does not get quiet
_REMAPS = (MapMmio, UnmapMmio, RewriteBar)


class Hotplug(Protocol):
    """What tells of functions that come and go, and when it may have missed something."""

    overruns: int
    gaps: int
    forged: int

    def fileno(self) -> int: ...

    def read(self) -> list[HostEvent]: ...

    def close(self) -> None: ...


@attrs.frozen
class Options:
    """`listener` is the socket that systemd passed, if it did; then `socket` is not made."""

    socket: str
    state: str
    settings: str
    settings_required: bool
    listener: Socket | None = None


class Daemon:
    """`watch` is opened before this, so that nothing written while the machine is read is missed."""

    def __init__(
        self, host: Host, xen: Hypervisor, hotplug: Hotplug, options: Options, settings: Settings, log: Logs,
        watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self._hotplug = hotplug
        self._options = options
        self._log = log
        self._notifier = Notifier()
        self._notifier.ask_for_time()
        self._loop = Loop()
        self._changed: dict[Sbdf, dict[str, str | None]] = {}  # what the kernel told, and where it was then
        self._doubt = ""
        self._first: float | None = None
        self._server: Server | None = None
        self._textfile: Textfile | None = None
        self._watch = watch or no_watch()
        counted = CountedXen(xen, self._tell_error)
        self._metrics = Metrics(lambda: read_gauges(self.engine, counted, self._watch, self._hotplug))
        self._chronicle = Chronicle(log, self._metrics, utc_now)
        self.engine = Engine(host, counted, Keeper(options.state), settings, utc_now)
        self._answers = Answers(
            self.engine, counted, self._watch, hotplug, self._chronicle, self._metrics, self._resync,
            lambda: regions_answer(host, counted, self.engine),
            Passthrough(self.engine, self._look, lambda act: self._loop.after("look", 0.0, act)),
            lambda: self._server.subscribers if self._server is not None else 0,
        )  # fmt: skip
        self.engine.service_findings += self._watch.findings
        self._watch.on_finding = self.engine.service_findings.append
        self._watch.on_change = lambda change, read_back: self._chronicle.tell_change(
            change, read_back=read_back
        )
        self._watch.begin(self.engine.machine, self.engine.raws)
        self.engine.intents = self._watch.intents
        self.engine.wake = lambda: self._loop.after("engine", 0.0, self._tick)
        self.engine.listen = lambda: self._hotplug_ready(selectors.EVENT_READ)

    def run(self, played: Callable[[], None] | None = None) -> None:
        """Reconcile, say READY, and serve until SIGTERM. `played` runs before anybody can connect."""
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload}
        signals = Signals(self._loop, handlers)
        self.engine.interrupted = lambda: self._is_interrupted(signals)
        self._loop.watch(self._hotplug.fileno(), selectors.EVENT_READ, self._hotplug_ready)
        if self._watch.fileno is not None:
            self._loop.watch(self._watch.fileno, selectors.EVENT_READ, self._watch_ready)
        watchdog: Watchdog | None = None
        try:
            self._tell(self.engine.reconcile())
            gc.collect()
            gc.freeze()  # what was read lives as long as the daemon: collecting need not walk it again
            if played is not None:
                played()
            self._open_socket()
            self._textfile = Textfile(
                self._loop, self.engine.settings.metrics_textfile,
                lambda: self._metrics.text(Form.PROMETHEUS), self._tell_unwritten,
            )  # fmt: skip
            self._metrics.changed = self._textfile.changed
            watchdog = self._start_watchdog()
            self._notifier.send("READY=1", self._status_line())
            self._log.info("ready", kind="ready", mode=self.engine.settings.mode)
            self._loop.run()
            self.engine.tidy()
        finally:
            for part in (watchdog, self._textfile, self._server):
                if part is not None:
                    part.close()
            signals.close()
            self._hotplug.close()
            self.engine.close()
            for problem in self._watch.close():
                self._log.warning("watching was not taken down cleanly", kind="watch", reason=problem)
            self._loop.close()

    def _open_socket(self) -> None:
        made = self._options.socket if self._options.listener is None else None
        listener = self._options.listener or listen(self._options.socket)
        self._server = Server(self._loop, listener, self._answers.handlers, self._answers.streams, path=made)
        self._address = listener.getsockname()
        self._chronicle.publish = self._server.publish

    def _start_watchdog(self) -> Watchdog | None:
        interval = watchdog_interval(os.environ)
        if interval is None:
            return None

        def complain(why: str) -> None:
            self._log.error("the self check failed, systemd is not told to wait", kind="check", reason=why)

        return Watchdog(self._loop, self._address, interval, self._notifier.feed, complain)

    def _is_interrupted(self, signals: Signals) -> bool:
        """Tell whether to stop between two actions; that one was done shows the manager that we live."""
        self._notifier.show_progress()
        return not signals.pending.isdisjoint((signal.SIGTERM, signal.SIGINT))

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
        quiet = quiet_time(self.engine.settings.settle_ms / 1000, self._changed)
        self._loop.after("settle", max(0.0, min(quiet, self._first + PATIENCE - now)), self.settle)

    def _take_hotplug(self) -> None:
        for event in self._hotplug.read():
            if isinstance(event, Rescan):
                self._doubt = event.reason
                self.engine.missed = True
            elif isinstance(event, GuestsChanged):
                for sbdf in self.engine.given_away:
                    self._note(sbdf, "owner")
            else:
                self._note(event.sbdf, event.action)

    def _note(self, sbdf: Sbdf, action: str) -> None:
        """Note an event, each kind once, the latest last."""
        told = self._changed.setdefault(sbdf, {})
        told.pop(action, None)
        told[action] = self.engine.situation.picture.place_at(sbdf)
        if action == "remove":
            self.engine.part([sbdf])

    def settle(self) -> None:
        """Act on what has changed, now that it is quiet."""
        since, self._first = self._first, None
        self._take_hotplug()
        plugged, doubt = self._changed, self._doubt
        self._changed = {}
        self._doubt = ""
        written, lost = self._watch.settle()
        if doubt or lost:
            self._chronicle.tell_loss(doubt or "records of configuration writes were lost", lost)
        for sbdf, actions in sorted(plugged.items()):
            for action, place in actions.items():
                self._chronicle.tell_hotplug(sbdf, action, place or sbdf)
        outcomes = act_on(
            self.engine, self._watch, written=written, plugged=plugged, doubt=bool(doubt or lost)
        )
        if since is not None and written and any(map(_remapped, outcomes)):
            self._metrics.observe_latency(time.monotonic() - since)
        self._tell(outcomes)
        self._notifier.send(self._status_line())

    def _tell(self, outcomes: list[Outcome]) -> None:
        """Tell what was done, and then the findings that it left or ended."""
        for outcome in outcomes:
            self._chronicle.tell_outcome(outcome, self.engine.machine)
        self._chronicle.tell_findings(*self.engine.news())
        self._metrics.changed()
        if (due := self.engine.due) is not None:
            self._loop.after("engine", due, self._tick)

    def _tick(self) -> None:
        """Let the engine do what it had put off, once it has seen what has arrived."""
        self._look(())
        self._tell(self.engine.tick())
        self._notifier.send(self._status_line())

    def _tell_error(self, error: HypervisorError) -> None:
        self._metrics.count_error(error)
        self._log.debug(  # what it meant is told by the action or the finding that comes of it
            "a call to Xen failed", kind="hypercall", op=error.op, errno=error.errno, reason=str(error)
        )

    def _tell_unwritten(self, path: str, error: OSError) -> None:
        why = error.strerror or str(error)
        self._log.warning(
            "metrics cannot be written", kind="metrics", path=path, errno=error.errno, reason=why
        )

    def _resync(self, dry_run: bool) -> list[Outcome]:
        outcomes = self.engine.reconcile(dry_run=dry_run)
        self._tell(outcomes)
        self._notifier.send(self._status_line())
        return outcomes

    def _look(self, functions: Collection[Sbdf]) -> list[Outcome]:
        """Act on functions that somebody says have changed hands.

        What has arrived by now is seen first, for it may need what the others leave behind.
        """
        self._hotplug_ready(selectors.EVENT_READ)
        plugged = {*functions, *arrived(self._changed)}
        if not plugged and not self._doubt:
            return []
        outcomes = act_on(self.engine, self._watch, written=(), plugged=plugged, doubt=bool(self._doubt))
        self._tell(outcomes)
        self._notifier.send(self._status_line())
        return outcomes

    def _status_line(self) -> str:
        functions, known = len(self.engine.machine.functions), self.engine.known_functions
        return f"STATUS={functions} functions, {known} known to Xen, {self.engine.complaints} findings"

    def _stop(self) -> None:
        self._notifier.send("STOPPING=1")
        self._log.info("stopping", kind="stopping")
        self._loop.stop()

    def _reload(self) -> None:
        self._notifier.send("RELOADING=1")
        before = self.engine.settings
        try:
            path, required = self._options.settings, self._options.settings_required
            self._take_settings(read_settings(path, required=required))
            self._log.info("settings read again", kind="settings", mode=self.engine.settings.mode)
        except PciptError as error:
            self._log.error("settings kept as they were", kind="settings", reason=str(error))
        if any(self.engine.settings.performs(word) and not before.performs(word) for word in ACTIONS):
            self._resync(dry_run=False)  # what was only planned waits for nobody else
        self._notifier.send("READY=1", self._status_line())

    def _take_settings(self, settings: Settings) -> None:
        if settings.watch_source != self.engine.settings.watch_source:
            self._log.warning(
                "watch.source holds from the next start on", kind="settings", wanted=settings.watch_source
            )
        self.engine.settings = settings
        self._log.level = settings.log_level
        if self._textfile is not None:
            self._textfile.move_to(settings.metrics_textfile)


def _remapped(outcome: Outcome) -> bool:
    return outcome.result is Result.DONE and isinstance(outcome.action, _REMAPS)


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
