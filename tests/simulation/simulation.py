"""One run: the real daemon on a machine, a disk and a clock that one seed decides.

The daemon runs as it does on a host. When it would sleep, the play goes on: it says what happens next and how
much time passes. A kill is an exception that the daemon cannot catch; its process's memory is gone then.
"""

import contextlib
import gc
import math
import os
import selectors
import shutil
import signal
import tempfile
import types
from functools import partial
from pathlib import Path
from random import Random
from unittest import mock

from pcipt.daemon import heap, loop
from pcipt.daemon.control.listener import listen
from pcipt.daemon.daemon import Daemon, Options
from pcipt.daemon.settings import read_settings
from pcipt.daemon.telling.log import Logs
from pcipt.daemon.watcher import Watch
from pcipt.errors import InputError
from pcipt.host.uevents import UeventSource
from pcipt.xen.simulated.model import Catastrophe
from tests.engine.stage import Killed
from tests.simulation.clock import Clock
from tests.simulation.disk import Disk
from tests.simulation.invariants import Audit
from tests.simulation.peers import Client
from tests.simulation.play import KILL, START, STOP, Play
from tests.simulation.world import Machine

MEMORY = "/dev/shm"  # files there are never written to a disk
#: A frozen daemon would stay for ever.
FREE = types.SimpleNamespace(**dict.fromkeys(("collect", "freeze", "disable", "enable"), lambda: None))


class Over(BaseException):
    """The play has come to its end."""


class Selector(selectors.EpollSelector):
    """Gives what is ready in the order in which it was registered; sleeps in simulated time only."""

    def __init__(self, idle):
        super().__init__()
        self._idle = idle

    def select(self, timeout=None):
        ready = self._ready()
        if ready or timeout == 0:
            return ready
        self._idle(timeout)
        return self._ready()

    def _ready(self):
        order = {number: place for place, number in enumerate(self.get_map())}
        return sorted(super().select(0), key=lambda found: order[found[0].fd])


class Simulation:
    """`steps` things happen; with `only`, those of these numbers. `tell` gets each line of the output.

    `play` makes what happens out of the simulation.
    """

    def __init__(self, seed, steps, tell, only=None, play=Play):
        self.seed, self.steps, self.only = seed, steps, only
        self._plays = play
        self._tell = tell
        self.clock = Clock()
        self.step = 0
        self.machine = None
        self.daemon = None
        self.until = 0.0
        self.audit = Audit(self)
        self._down = False
        self._boots = 0

    def random(self, what):
        """Give the numbers of one purpose: a step that is left out changes no other one."""
        return Random(f"{self.seed}/{what}")

    def tell(self, text):
        self._tell(f"{self.clock.now:.3f} {text.replace(self.directory, '')}")

    def run(self):
        """Run the play to its end. Raises: whatever broke."""
        where = MEMORY if os.path.isdir(MEMORY) else None
        self.directory = tempfile.mkdtemp(prefix="pcipt-simulation-", dir=where)
        self.state, self.control = f"{self.directory}/state", f"{self.directory}/control"
        self.settings = f"{self.directory}/pcipt.toml"
        os.makedirs(self.state)
        self.configure()
        self.disk = Disk(self.state, self.random("disk"))
        self.listener = listen(self.control)
        play = self._plays(self)
        try:
            with self.clock.holds(), self.disk.holds(), self._no_machine_below():
                while self.step < self.steps:
                    self._boot(play)
        finally:
            self.audit.close()
            self._close_sources()
            self.listener.close()
            gc.collect()
            shutil.rmtree(self.directory)

    @contextlib.contextmanager
    def _no_machine_below(self):
        selector = mock.patch.object(loop.selectors, "DefaultSelector", partial(Selector, self._idle))
        kept = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        environment = {**kept, "WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
        with (
            selector,
            mock.patch.object(heap, "gc", FREE),
            mock.patch.dict(os.environ, environment, clear=True),
        ):
            yield

    def configure(self, text=""):
        Path(self.settings).write_text(text, encoding="utf-8")

    @property
    def performs(self):
        """Tell whether the settings let the daemon do all that it can."""
        now = self.daemon.settings
        return now.mode == "enforce" and all(now.actions.values())

    def client(self):
        """Connect to the control socket, as a program of root does."""
        return Client(self.control)

    def _boot(self, play):
        """Boot the host and let the daemon live on it until the power goes."""
        self._boots += 1
        made = play.machine(self.random(f"boot {self._boots}"))
        self.tell(f"boot {self._boots}: {made['dom0']} {'.'.join(map(str, made['version']))} {made['iommu']}")
        self.machine = Machine(self._boots, self.clock, **made)
        self._play = play.life(self._boots)
        self.until = self.clock.now
        self._down = False
        with contextlib.suppress(Over):
            while True:
                self._live()
                self._stay_down()
                self.machine.begin()
        self.machine.end()
        self.disk.cut_power()

    def _live(self):
        """Run the daemon until it is killed, stopped, or the boot is over."""
        self.disk.dead = False
        watch = Watch(self.machine.trace, "kprobe", obeys=self.machine.xen.p2m is None)
        # the socket of systemd outlives the daemon
        options = Options(self.control, self.state, self.settings, False, self.listener.dup())
        try:
            log = Logs(
                lambda level, text, _fields: self.tell(f"  {level}: {text}"), clock=self.clock.monotonic
            )
            settings = self._settings()
            self.hotplug = UeventSource(lambda: self.machine.netlink)
            self.daemon = Daemon(
                self.machine.linux, self.machine.xen, self.hotplug, options, settings, log, watch
            )
            self.watch = watch
            self.machine.engine = self.daemon.engine
            self.daemon.run()
            self.tell("ended")
        except Killed:
            self.tell("killed")
        finally:
            self.disk.dead = True
            self.machine.linux.dead = True
            self.machine.xen.die_at = self.disk.die_at = None
            self.audit.blind()
            options.listener.close()
            self._close_sources()
            signal.set_wakeup_fd(-1)

    def _settings(self):
        """Read the settings; a wrong file keeps the daemon from starting until somebody mends it."""
        try:
            return read_settings(self.settings, required=True)
        except InputError as error:
            self.tell(f"not started: {error}")
            self.configure()
            return read_settings(self.settings, required=True)

    def _close_sources(self):
        if self.machine is not None:
            for source in (self.machine.netlink, self.machine.trace):
                if source is not None:
                    with contextlib.suppress(OSError):
                        source.close()
            self.machine.end()

    def _stay_down(self):
        """Let happen what happens while no daemon runs."""
        self.disk.dead = False
        while self._down:
            self.until = self.clock.now + self._next()
            self.clock.now = self.until

    def _idle(self, timeout):
        """Let time pass until the daemon wants to wake up or something happens."""
        now = self.clock.now
        if timeout is not None and now + timeout <= self.until:
            self.clock.now = max(now + timeout, math.nextafter(now, math.inf))
            return
        self.clock.now = max(now, self.until)
        self.until = self.clock.now + self._next()

    def _next(self):
        """Let the next thing happen; return how many seconds pass after it.

        A host that dies while pcipt does nothing boots again.
        """
        try:
            token = next(self._play, None)
        except Catastrophe as death:  # what Linux or the toolstack did was too much for this Xen
            self.tell(f"  the host dies by itself: {death}")
            raise Over from death
        if token is None:
            raise Over
        if token is START:
            self._down = False
        elif token in {KILL, STOP}:
            self._down = True
            if token is KILL:
                raise Killed
            signal.raise_signal(signal.SIGTERM)
        else:
            return token
        return 0.0
