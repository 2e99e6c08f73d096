"""The daemon: puts host, hypervisor, sources, engine and control socket together and runs until told to stop.

The engine decides, the edges do I/O; this module wires and loops. Whatever happens becomes work in the
engine's queue; each turn of the loop does one piece of the work that is due.
"""

import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from functools import partial
from socket import socket as Socket  # noqa: N812 - a field of Options is called socket

import attrs

from pcipt.daemon.changed import BOOTS, hardware_changed, lines_to_correct
from pcipt.daemon.control.listener import listen
from pcipt.daemon.control.methods import Answers, read_gauges
from pcipt.daemon.control.passthrough import Passthrough
from pcipt.daemon.control.regions import regions_answer
from pcipt.daemon.control.resyncs import Resyncs
from pcipt.daemon.control.server import Server
from pcipt.daemon.counted_xen import CountedXen
from pcipt.daemon.heap import first
from pcipt.daemon.intake import Hotplug, Intake
from pcipt.daemon.kept import UNREADABLE, read_kept
from pcipt.daemon.loop import Loop, Signals
from pcipt.daemon.notify import Notifier
from pcipt.daemon.setting_keys import ACTIONS
from pcipt.daemon.settings import Settings, read_settings
from pcipt.daemon.store import FileStore, NoStore, beside
from pcipt.daemon.telling.announcer import Announcer
from pcipt.daemon.telling.log import Logs
from pcipt.daemon.telling.metrics import Form, Metrics
from pcipt.daemon.telling.text_file import Textfile
from pcipt.daemon.watchdog import Watchdog, watchdog_interval
from pcipt.daemon.watcher import Watch, no_watch
from pcipt.daemon.worker import Worker
from pcipt.engine.engine import Engine
from pcipt.engine.interfaces import Host
from pcipt.engine.queue import EVERYTHING, Reason
from pcipt.engine.report import Report, Scope
from pcipt.errors import HypervisorError, PciptError
from pcipt.host.policy.caught import read_guarded
from pcipt.pci import Finding, Sbdf
from pcipt.pci.policy.written import CODES as WRONG_LINES
from pcipt.remap.actions import MapMmio, Outcome, Result, RewriteBar, RewriteCommand, UnmapMmio
from pcipt.xen.interface import Hypervisor

_REMAPS = (MapMmio, UnmapMmio, RewriteBar, RewriteCommand)


@attrs.frozen
class Options:
    """The paths that the daemon uses: control socket, state directory and settings file.

    `listener` is the listening socket that systemd passed, or None if systemd passed none. With a listener no
    socket file is made. If `settings_required` is True, a missing settings file is an error. `unusable` says
    why the state directory cannot be used; it is empty if it can. `policy` is the directory with the policy
    of what is kept for guests; None is no policy. `lines` is the root below which lines of other tools are
    looked for: proc/cmdline and etc/xen, and run with what the initramfs did.
    """

    socket: str
    state: str
    settings: str
    settings_required: bool
    listener: Socket | None = None
    unusable: str = ""
    policy: str | None = None
    lines: str = "/"


class Daemon:
    """The daemon: engine, control socket, log and metrics, connected to `host`, `xen` and the event sources.

    `run` runs it until SIGTERM or SIGINT. The caller opens `watch` before it makes the daemon, so that writes
    are seen while the machine is read. A `watch` of None sees no writes. If the state directory cannot be
    used, the daemon only observes, whatever the settings say: what is not on disk must not be done.
    """

    def __init__(
        self, host: Host, xen: Hypervisor, hotplug: Hotplug, options: Options, settings: Settings, log: Logs,
        watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self._hotplug = hotplug
        self._boot_id = host.boot_id
        self._options = options
        self._log = log
        self._notifier = Notifier()
        self._notifier.ask_for_time()
        self._loop = Loop()
        self._server: Server | None = None
        self._textfile: Textfile | None = None
        self._watch = watch or no_watch()
        counted = CountedXen(xen, self._tell_error)
        self._metrics = Metrics(lambda: read_gauges(self.engine, counted, self._watch, self._hotplug))
        self._announcer = Announcer(log, self._metrics, utc_now)
        self._playing = False
        self._numbers = itertools.count(1)
        self.engine = self._make_engine(host, counted, settings)
        self.settings = self._held(settings)
        self._worker = Worker(self.engine, self._watch, self._tell)
        self._intake = Intake(
            self.engine, hotplug, self._watch, lambda: 0.0 if self._playing else self.settings.settle_ms /
            1000, self._announcer.tell_hotplug, self._announcer.tell_loss,
        )  # fmt: skip
        self._resyncs = Resyncs(self.engine, self._loop, self._worker.work_off)
        self._answers = Answers(
            self.engine, counted, self._watch, hotplug, self._announcer, self._metrics, self._resyncs.begin,
            lambda: regions_answer(host, counted, self.engine),
            Passthrough(self.engine, self._look, self._soon),
            lambda: self._server.subscribers if self._server is not None else 0, lambda: self.settings.mode,
        )  # fmt: skip
        self.engine.service_findings += self._watch.findings
        self._read_policy()
        if options.policy is not None:  # a port that the settings have no more is let go
            self.engine.memory.ledger.ports.guarded |= read_guarded(options.lines)
        self._watch.on_finding = self.engine.service_findings.append
        self._watch.on_change = lambda change, read_back: self._announcer.tell_change(
            change, read_back=read_back
        )
        self.engine.memory.intents = self._watch.intents
        self.engine.memory.trapped = self._watch.trapped
        self.engine.take_messages = self._intake.take_messages
        self._loop.before_waiting = self._schedule

    def _make_engine(self, host: Host, xen: Hypervisor, settings: Settings) -> Engine:
        """Return the engine with the files of the state directory; set `_unusable` if they cannot be used."""
        self._unusable = self._options.unusable
        store = FileStore(self._options.state, beside(self._options.socket, utc_now))
        if not self._unusable:
            try:
                return Engine(host, xen, store, settings, utc_now)
            except OSError as error:
                store.close()
                self._unusable = f"{error.filename or 'a file'}: {error.strerror or error}"
        engine = Engine(host, xen, NoStore(), self._held(settings), utc_now)
        why = (
            f"the state directory {self._options.state} cannot be used ({self._unusable}): the service only "
            "observes and changes nothing in Xen; make the directory writable, then `systemctl restart pcipt`"
        )
        engine.service_findings.append(Finding("state-unusable", why))
        return engine

    def _held(self, settings: Settings) -> Settings:
        """Return the settings that hold: without a usable state directory the mode is "observe"."""
        return attrs.evolve(settings, mode="observe") if self._unusable else settings

    def run(self, played: Callable[[], None] | None = None) -> None:
        """Reconcile once, open the control socket, send READY=1 to systemd, and serve until SIGTERM or
        SIGINT.

        On SIGHUP the settings are read again. At the end the ledger is saved; then socket, sources and store
        are closed. After an error they are closed without saving the ledger. `played` is called once, after
        the first reconciliation and before the socket is opened: a replay plays its steps in `played`.

        Raises: InputError or OSError if the control socket cannot be opened; UnsupportedError if the source
                of hot-plug messages broke and cannot be opened again; every error of `played`.
        """
        handlers = {signal.SIGTERM: self._stop, signal.SIGINT: self._stop, signal.SIGHUP: self._reload}
        signals = Signals(self._loop, handlers)
        self.engine.interrupted = lambda: self._is_interrupted(signals)
        self._loop.watch(self._hotplug.fileno(), selectors.EVENT_READ, self._hotplug_ready)
        fileno = self._watch.fileno
        if fileno is not None:
            self._loop.watch(fileno, selectors.EVENT_READ, partial(self._watch_ready, fileno))
        watchdog: Watchdog | None = None
        try:
            first(self._worker.work_off)
            self._tell_changes()
            if played is not None:
                self._playing = True
                played()
                self._playing = False
            self._open_socket()
            self._textfile = Textfile(
                self._loop, self.settings.metrics_textfile,
                lambda: self._metrics.text(Form.PROMETHEUS), self._tell_unwritten,
            )  # fmt: skip
            self._metrics.changed = self._textfile.changed
            watchdog = self._start_watchdog()
            self._notifier.send("READY=1", self._status_line())
            self._log.info("ready", kind="ready", mode=self.settings.mode)
            self._loop.run()
            self.engine.save()
        finally:
            for part in (watchdog, self._textfile, self._server):
                if part is not None:
                    part.close()
            signals.close()
            self._hotplug.close()
            self.engine.close()
            for problem in self._watch.close():
                self._log.warning("the probes could not be removed", kind="watch", reason=problem)
            self._loop.close()

    def _open_socket(self) -> None:
        """Start the server on the socket that systemd passed, or on a new socket file.

        Raises: the errors of `listen`.
        """
        made = self._options.socket if self._options.listener is None else None
        listener = self._options.listener or listen(self._options.socket)
        self._server = Server(
            self._loop, listener, self._answers.handlers, self._answers.streams, stamps=self._answers.stamps,
            path=made,
        )  # fmt: skip
        self._address = listener.getsockname()
        self._announcer.publish = self._server.publish

    def _start_watchdog(self) -> Watchdog | None:
        """Start the checks that feed systemd's watchdog; return None if systemd expects no watchdog."""
        interval = watchdog_interval(os.environ)
        if interval is None:
            return None

        def complain(why: str) -> None:
            self._log.error("the self check failed, systemd gets no sign of life", kind="check", reason=why)

        return Watchdog(self._loop, self._address, interval, self._notifier.feed, complain)

    def _is_interrupted(self, signals: Signals) -> bool:
        """Return True if SIGTERM or SIGINT has arrived: the engine then stops before its next action.

        The engine calls this between two actions. Each call also shows systemd that the daemon makes
        progress.
        """
        self._notifier.show_progress()
        return not signals.pending.isdisjoint((signal.SIGTERM, signal.SIGINT))

    def _hotplug_ready(self, _events: int) -> None:
        self._intake.take_messages()

    def _watch_ready(self, fileno: int, _events: int) -> None:
        self._intake.take_writes()
        if self._watch.fileno is None:  # a broken source can stay ready for ever
            self._loop.forget(fileno)

    def _schedule(self) -> None:
        """Set the loop's timer to the time at which the next work is due; cancel the timer if the queue is
        empty.
        """
        due = self.engine.next_due()
        if due is None:
            self._loop.cancel("work")
        else:
            self._loop.after("work", due, self._worker.turn)

    def settle(self) -> None:
        """Take all messages and writes that have arrived, and do all work that is due now.

        A replay calls this after each step of the recording. Work that is due later stays in the queue.
        """
        self._intake.take_messages()
        self._intake.take_writes()
        self._worker.work_off()

    def lose_writes(self, count: int) -> None:
        """Announce that `count` records of writes to config space were lost, and queue EVERYTHING.

        A replay calls this: its trace of writes is not a source of this daemon.
        """
        self._intake.lost_writes(count)

    def _tell(self, scope: Scope, report: Report) -> None:
        """Announce refused DMA, what one reconciliation did, then the findings that are new or have ended.

        Log, history, monitors, metrics, systemd and the clients that wait for a resync are told. `scope` is
        the work that was reconciled, `report` the result.
        """
        for fault in report.faults:
            self._announcer.tell_fault(fault, self.engine.machine)
        for outcome in report.outcomes:
            self._announcer.tell_outcome(outcome, self.engine.machine)
        written = [w.first for w in scope.work if Reason.WRITTEN in w.reasons and w.key is not EVERYTHING]
        if written and any(map(_remapped, report.outcomes)):
            self._metrics.observe_latency(time.monotonic() - min(written))
        self._announcer.tell_findings(*self.engine.news())
        self._metrics.changed()
        self._notifier.show_progress()
        if report.finished:
            self._notifier.send(self._status_line())
        self._resyncs.take(scope, report)

    def _tell_error(self, error: HypervisorError) -> None:
        """Count a failed call to Xen and log it at level debug."""
        self._metrics.count_error(error)
        self._log.debug(  # what it meant is told by the action or the finding that comes of it
            "a call to Xen failed", kind="hypercall", op=error.op, errno=error.errno, reason=str(error)
        )

    def _tell_unwritten(self, path: str, error: OSError) -> None:
        """Log that the metrics file cannot be written."""
        why = error.strerror or str(error)
        self._log.warning(
            "the metrics file cannot be written", kind="metrics", path=path, errno=error.errno, reason=why
        )

    def _look(self, functions: Collection[Sbdf]) -> list[Outcome]:
        """Reconcile `functions` now, because a client asked for it, and return all outcomes.

        Work for other functions that is due is done too, and its outcomes are returned too. Work for
        EVERYTHING stays in the queue, except after a loss of messages. In this case the whole machine is
        reconciled, because another function may need the pages that `functions` no longer need.

        Raises: UnsupportedError if the source of hot-plug messages broke and cannot be opened again.
        """
        self._intake.take_messages()
        for sbdf in functions:
            self.engine.add(sbdf, Reason.REQUESTED)
        return self._worker.work_off(whole=self.engine.must_read_everything)

    def _soon(self, act: Callable[[], object]) -> None:
        """Make the loop call `act` once, in its next turn after the present callback has returned."""
        self._loop.after(f"soon {next(self._numbers)}", 0.0, act)

    def _status_line(self) -> str:
        """Return the line STATUS=… for systemd."""
        functions, known = len(self.engine.machine.functions), self.engine.known_functions
        return f"STATUS={functions} functions, {known} known to Xen, {self.engine.finding_count} findings"

    def _stop(self) -> None:
        """Tell systemd that the daemon stops, and make the loop end."""
        self._notifier.send("STOPPING=1")
        self._log.info("stopping", kind="stopping")
        self._loop.stop()

    def _reload(self) -> None:
        """Read the settings file and the policy again. What is wrong is told, and the present one kept.

        If the new settings perform a kind of action that the old ones did not, or if restore_on_fault,
        hotplug.below or the policy has changed, EVERYTHING (the whole machine) is added to the queue.
        """
        self._notifier.send("RELOADING=1")
        before = self.settings
        try:
            path, required = self._options.settings, self._options.settings_required
            self._take_settings(read_settings(path, required=required))
            self._log.info("the settings were read again", kind="settings", mode=self.settings.mode)
        except PciptError as error:
            self._log.error("wrong settings, the old ones are kept", kind="settings", reason=str(error))
        policy = self._read_policy()
        self._tell_lines()
        other = policy or before.restore_on_fault != self.settings.restore_on_fault
        other |= before.below != self.settings.below
        if other or any(self.settings.performs(word) and not before.performs(word) for word in ACTIONS):
            self.engine.add_everything(Reason.SETTINGS)  # what was only planned waits for nobody else
        self._notifier.send("READY=1", self._status_line())

    def _tell_changes(self) -> None:
        """Add the finding of the service that the hardware is not that of the boot before, if it is not."""
        state, boots = self.engine.views.state, os.path.join(self._options.state, BOOTS)
        found = hardware_changed(boots, self._boot_id, self.engine.machine, state.raws, state.kept)
        self.engine.service_findings += found
        self._tell_lines()

    def _tell_lines(self) -> None:
        """Add findings of the service for lines of other tools that name nothing, or the wrong device."""
        state, told = self.engine.views.state, self.engine.service_findings
        found: tuple[Finding, ...] = ()
        if self._options.policy is not None:
            found = lines_to_correct(self._options.lines, self.engine.machine, state.raws, state.kept)
        told[:] = [*(each for each in told if each.code not in WRONG_LINES), *found]

    def _read_policy(self) -> bool:
        """Read which functions are kept for guests; return True if that has changed.

        If it cannot be used, the former policy holds, and a finding of the service says so.
        """
        state, told = self.engine.views.state, self.engine.service_findings
        before = state.kept
        state.kept, findings = read_kept(self._options.policy, self._options.settings, "/", before)
        told[:] = [*(each for each in told if each.code != UNREADABLE), *findings]
        return state.kept != before

    def _take_settings(self, settings: Settings) -> None:
        """Use these settings from now on. A new `watch_source` is logged, and used after the next start."""
        if settings.watch_source != self.settings.watch_source:
            self._log.warning(
                "the new watch.source is used after a restart", kind="settings", wanted=settings.watch_source
            )
        self.settings = settings = self._held(settings)
        self.engine.use(settings)
        self._log.level = settings.log_level
        if self._textfile is not None:
            self._textfile.move_to(settings.metrics_textfile)


def _remapped(outcome: Outcome) -> bool:
    """Return True if a BAR was mapped, unmapped or rewritten with success."""
    return outcome.result is Result.DONE and isinstance(outcome.action, _REMAPS)


def utc_now() -> str:
    """Return the present time in UTC as RFC 3339 text with milliseconds: 2026-11-22T19:11:32.381Z."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
