"""One booted machine: a real Xen, its dom0, and everything a scene does to them.

Nothing here waits without a bound. Whatever goes wrong inside, the caller sees a LabError; once the machine
is dead every call says so, with the end of the console.
"""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NewType, TypeVar

from . import inside
from .agent import pack, unpack
from .channel import SLACK, Channel, connect
from .emulator import Emulator
from .errors import CommandError, LabError, TimedOutError

T = TypeVar("T")

#: A place in the console.
Mark = NewType("Mark", int)

BOOT_SECONDS = 420.0
RUN_SECONDS = 120.0
XEN_LINE = re.compile(r"\(XEN\) (.*)")


@dataclass(frozen=True)
class Result:
    """How a command in dom0 ended."""

    rc: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def lines(self) -> list[str]:
        """Give stdout line by line."""
        return self.stdout.splitlines()

    def json(self) -> Any:
        """Decode stdout."""
        return json.loads(self.stdout)


class Dom0(Emulator):
    """A machine, from `start` to `close`. Its records are left in `output`."""

    boot_seconds = 0.0
    _channel: Channel | None = None
    _marks = 0
    _log_lock = threading.Lock()

    def start(self, timeout: float = BOOT_SECONDS) -> None:
        """Boot, and wait until dom0 is up with all its services."""
        started = time.monotonic()
        self.launch()
        self._channel = Channel(connect(self.wires.agent, 60, self.check_alive), self.check_alive)
        try:
            self._channel.wait_hello(timeout)
            self.run("systemctl is-system-running --wait", timeout=timeout, check=False)
        except TimedOutError as exc:
            self.die(f"the {self.mode} dom0 did not come up within {timeout:.0f} s ({exc})")
        self.boot_seconds = time.monotonic() - started

    def close(self) -> None:
        """Collect what is to be kept, end QEMU, and leave nothing behind but `output`."""
        status: dict[str, Any] = {"mode": self.mode, "boot_seconds": round(self.boot_seconds, 1)}
        if self._channel is not None:
            if self.dead is None:
                try:
                    (self.output / "journal.txt").write_text(self.journal(), encoding="utf-8")
                except LabError as exc:
                    status["journal"] = str(exc)
            self._channel.close()
            self._channel = None
        status["died"] = None if self.dead is None else self.dead.why
        status["qemu"] = self.end()
        if self.output.is_dir():
            (self.output / "status.json").write_text(f"{json.dumps(status, indent=1)}\n", encoding="utf-8")

    # Commands

    def run(
        self,
        command: str,
        *,
        timeout: float = RUN_SECONDS,
        check: bool = True,
        cwd: str = "/root",
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a shell command in dom0.

        Raises: CommandError if it fails and `check` is set; TimedOutError if it takes longer than `timeout`,
                it is then killed with its process group; MachineDiedError.
        """
        argv = ["/bin/sh", "-c", command]
        return self._do("run", command, timeout, check, argv=argv, cwd=cwd, env=dict(env or {}))

    def call(
        self,
        function: Callable[..., T],
        *arguments: Any,
        timeout: float = RUN_SECONDS,
        uses: Iterable[Callable[..., Any]] = (),
    ) -> T:
        """Run a module-level function in dom0's Python and give its result, which goes through JSON.

        The function's source travels, not its module: it imports what it needs itself, and `uses` names
        further functions of ours that it calls. CommandError holds its traceback and what it printed.
        """
        functions = [textwrap.dedent(inspect.getsource(each)) for each in (*uses, function)]
        source = "\n".join(["from __future__ import annotations", *functions])
        title = f"call {function.__name__}{arguments!r}"
        wanted = {"source": pack(source.encode()), "name": function.__name__, "arguments": arguments}
        result: T = self._do("call", title, timeout, True, **wanted).json()
        return result

    def _do(self, op: str, title: str, timeout: float, check: bool, **fields: Any) -> Result:
        answer = self._wire().ask(op, timeout + SLACK, limit=timeout, **fields)
        rc, seconds = answer["rc"], answer["seconds"]
        text = {}
        for name in ("stdout", "stderr"):
            text[name] = unpack(answer[name]).decode("utf-8", "replace")
            if answer[f"{name}_lost"]:
                text[name] = f"[{answer[f'{name}_lost']} bytes left out]\n{text[name]}"
        with self._log_lock, (self.output / "commands.log").open("a", encoding="utf-8") as log:
            log.write(f"{time.strftime('%H:%M:%S')} {seconds:7.2f}s rc={rc} {title}\n")
        if rc is None:
            raise TimedOutError(
                f"{title!r} took longer than {timeout:.0f} s\n{text['stdout']}{text['stderr']}"
            )
        if check and rc != 0:
            raise CommandError(title, rc, text["stdout"], text["stderr"])
        return Result(rc, text["stdout"], text["stderr"], seconds)

    def _wire(self) -> Channel:
        self.check_alive()
        if self._channel is None:
            raise LabError(f"the {self.mode} machine is not running")
        return self._channel

    def wait_for(self, command: str, *, timeout: float = 60.0) -> Result:
        """Repeat a shell command in dom0 until it succeeds."""
        end = time.monotonic() + timeout
        while True:
            result = self.run(command, check=False)
            if result.rc == 0:
                return result
            if time.monotonic() > end:
                told = result.stdout + result.stderr
                raise TimedOutError(f"{command!r} did not succeed within {timeout:.0f} s\n{told}")
            time.sleep(0.3)

    def put(self, path: str, data: bytes, timeout: float = RUN_SECONDS) -> None:
        """Write a file in dom0. The wire carries some 5 kB/s: what is large belongs on the payload disk."""
        self._wire().put(path, data, timeout)

    def fetch(self, path: str, timeout: float = RUN_SECONDS) -> bytes:
        """Read a file in dom0."""
        return self._wire().fetch(path, timeout)

    # The hardware

    def qmp(self, command: str, **arguments: Any) -> Any:
        """Tell QEMU something: `qmp("device_add", driver="e1000e", id="n1", bus="rp1")`."""
        return self.control.execute(command, **arguments)

    # What Xen and dom0 tell

    def mark(self) -> Mark:
        """Give the present end of the console, when all that was written before has arrived there.

        A line written by dom0 goes the same way as Xen's own: once it is there, so is everything before it.
        """
        self._marks += 1
        name = f"pcipt-lab-mark-{self._marks}-"
        before = self.wires.console.stat().st_size
        self.run(f"echo {name} > /dev/hvc0")
        end = time.monotonic() + RUN_SECONDS
        while name not in self.console_from(before):
            self.check_alive()
            if time.monotonic() > end:
                raise TimedOutError("Xen's console does not show what dom0 writes to it")
            time.sleep(0.05)
        return Mark(self.wires.console.stat().st_size)

    def xen_lines(self, since: Mark = Mark(0)) -> list[str]:
        """Give what Xen itself has said since a mark, without its `(XEN) `."""
        self.mark()
        return [match.group(1) for match in XEN_LINE.finditer(self.console_from(since))]

    def debug_key(self, key: str) -> list[str]:
        """Press one of Xen's debug keys and give what Xen answers."""
        before = self.mark()
        self.call(inside.send_debug_key, key)
        return self.xen_lines(before)

    def journal(self, arguments: str = "") -> str:
        """Read dom0's journal of this boot, or of what journalctl's arguments choose."""
        return self.run(f"journalctl --no-pager -o short-monotonic -b {arguments}", timeout=180).stdout
