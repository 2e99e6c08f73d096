"""The time of a simulation: it passes only when the daemon would sleep."""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from unittest import mock

from pcipt.daemon import daemon
from pcipt.daemon.notify import Notifier
from pcipt.engine.engine import Engine

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    """`now` is in seconds. While `holds` is entered, the daemon has no other clock."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def utc(self):
        told = BEGIN + timedelta(seconds=self.now)
        return told.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    @contextlib.contextmanager
    def holds(self):
        with contextlib.ExitStack() as stack:
            for place, name, value in (
                (time, "monotonic", self.monotonic),
                (daemon, "utc_now", self.utc),
                (daemon, "Engine", partial(Engine, monotonic=self.monotonic)),
                (daemon, "Notifier", partial(Notifier, clock=self.monotonic)),
            ):
                stack.enter_context(mock.patch.object(place, name, value))
            yield
