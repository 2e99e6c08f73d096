"""Rows about `pcipt daemon` itself, on a recorded machine with a simulated Xen: answers, idleness, memory."""

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from bench.commands import PCIPT
from bench.timing import Row

READY = 300.0  # seconds
IDLE = 3.0


class Daemon:
    """A running daemon; a context manager. `state` is a directory of its own."""

    def __init__(self, root: str, dom0: str, state: str) -> None:
        os.makedirs(state)
        self._control = os.path.join(state, "control")
        words = ["daemon", "--replay", root, "--dom0", dom0, "--state", state, "--socket", self._control]
        self._process = subprocess.Popen([*PCIPT, *words], stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        until = time.monotonic() + READY
        while not os.path.exists(self._control):
            if self._process.poll() is not None or time.monotonic() > until:
                raise SystemExit("bench: the daemon does not start")
            time.sleep(0.1)
        self.call("Status")  # it answers once the first reconciliation is done
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def call(self, method: str, **parameters: Any) -> None:
        """Send a request and wait for its reply."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(READY)
            connection.connect(self._control)
            asked = {"method": f"org.pcipt.{method}", "parameters": parameters}
            connection.sendall(json.dumps(asked).encode() + b"\0")
            part = b"."
            while part and not part.endswith(b"\0"):
                part = connection.recv(1 << 16)
            if not part:
                raise SystemExit(f"bench: the daemon does not answer {method}")

    def silence(self) -> float:
        """Compare everything; return the most ms of the processor that the daemon takes between two answers.

        What it takes for one answer while it is idle is subtracted.
        """
        alone = min(self._taken() for _ in range(10))
        comparing = threading.Thread(target=self.call, args=("Resync",), kwargs={"dry_run": False})
        comparing.start()
        longest = 0.0
        while comparing.is_alive():
            longest = max(longest, self._taken())
        comparing.join()
        return max(0.0, longest - alone)

    def _taken(self) -> float:
        """Ask for a short answer; return the ms of the processor that the daemon took until it came."""
        schedstat = f"/proc/{self._process.pid}/schedstat"  # first: nanoseconds on a processor
        with open(schedstat, encoding="ascii") as before:
            began = int(before.read().split()[0])
        self.call("Metrics")
        with open(schedstat, encoding="ascii") as after:
            return (int(after.read().split()[0]) - began) / 1e6

    def wakeups(self) -> float:
        """Return how often the idle daemon woke up in IDLE seconds."""
        before = self._number("status", "voluntary_ctxt_switches:")
        time.sleep(IDLE)
        return float(self._number("status", "voluntary_ctxt_switches:") - before)

    def memory(self) -> float:
        """Return the proportional set size in MiB."""
        return self._number("smaps_rollup", "Pss:") / 1024

    def _number(self, file: str, name: str) -> int:
        with open(f"/proc/{self._process.pid}/{file}", encoding="ascii") as lines:
            return next(int(line.split()[1]) for line in lines if line.startswith(name))


def rows(root: str, count: int, directory: str, comparisons: int) -> Iterator[Row]:
    """Yield the rows, of a PVH dom0 on the machine `root` of `count` functions."""
    with Daemon(root, "pvh", os.path.join(directory, "state-pvh")) as daemon:
        yield Row(f"daemon, {count:,}, memory (PSS) once ready", "none", (daemon.memory(),), 50, " MiB")
        silent = tuple(daemon.silence() for _ in range(comparisons))
        yield Row(
            f"comparing everything, {count:,}: longest time without an answer", "none", silent, 50, " ms"
        )
        yield Row(
            f"daemon, {count:,}, memory after {comparisons} comparisons",
            "none",
            (daemon.memory(),),
            50,
            " MiB",
        )
        time.sleep(2)
        yield Row(f"idle daemon: wake-ups in {IDLE:g} s", "none", (daemon.wakeups(),), 0)
