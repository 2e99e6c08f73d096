"""QEMU as a process: its start, its signs of life, its console, its end."""

from __future__ import annotations

import contextlib
import itertools
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from .cell import PLAIN, Cell, Extra, Mode
from .channel import connect
from .errors import LabError, MachineDiedError
from .foreign import emulator_of
from .hardware import OTHER, Wires, qemu_command
from .image import Image, find_tool
from .qmp import Qmp

#: What is told on the console when Xen or dom0 is beyond help. `noreboot` keeps Xen from trying again.
FATAL = re.compile(
    rb"\(XEN\) (Panic on CPU|Hardware Dom0 (crashed|shutdown|halted)|.*Triple fault|Manual reset required)"
    rb"|Kernel panic - not syncing|pcipt-lab: no file system"
)
TAIL_LINES = 40
RECORDS = ("console.log", "writes.log", "commands.log", "journal.txt", "status.json", "qemu.log")


class Emulator:
    """A QEMU process of one machine, from `launch` to `end`."""

    def __init__(self, cell: Cell, image: Image, payload: Path, output: Path, extra: Extra = PLAIN) -> None:
        self.cell = cell
        self.mode: Mode = cell.mode
        self.extra = extra
        self.output = output
        self.dead: MachineDiedError | None = None
        # A socket's path has a limit of 108 bytes, which a repository deep in a tree would pass.
        self._sockets = Path(tempfile.mkdtemp(prefix="pcipt-lab-"))
        self.wires = Wires(
            output / "console.log", output / "writes.log", self._sockets / "agent", self._sockets / "qmp"
        )
        self._command = qemu_command(cell, image, payload, self.wires, extra)
        self.fresh_places = itertools.count()  # of the memory that DMA devices write to (dma.py)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Qmp | None = None
        self._scanned = 0

    def launch(self) -> None:
        """Start QEMU and connect to its control socket."""
        self.output.mkdir(parents=True, exist_ok=True)
        for name in RECORDS:
            (self.output / name).unlink(missing_ok=True)
        self.wires.console.touch()
        self._command[:1] = self._program()
        with (self.output / "qemu.log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            link = connect(self.wires.qmp, 60, self.check_alive)
            try:
                self._control = Qmp(link)
            except LabError:
                link.close()
                raise
        except LabError:
            time.sleep(0.5)  # if QEMU has refused its command line, its own words are the better ones
            self.check_alive()
            raise

    def _program(self) -> list[str]:
        """Give QEMU's name: this machine's own, or another Debian's where the hardware needs that one."""
        emulator = OTHER[self.extra.hardware].emulator
        if emulator is not None:
            return emulator_of(emulator)
        return [find_tool("qemu-system-x86_64") or "qemu-system-x86_64"]

    @property
    def control(self) -> Qmp:
        """Give the wire to QEMU."""
        self.check_alive()
        if self._control is None:
            raise LabError(f"the {self.mode} machine is not running")
        return self._control

    def check_alive(self) -> None:
        """Raise MachineDiedError if QEMU is gone, or Xen or dom0 have told their end on the console."""
        if self.dead is not None:
            raise self.dead
        if self._process is None:
            raise LabError(f"the {self.mode} machine is not running")
        with self.wires.console.open("rb") as console:
            console.seek(max(0, self._scanned - 200))  # the words may have been cut in two by the last look
            text = console.read()
            self._scanned = console.tell()
        fatal = FATAL.search(text)
        if fatal is not None:
            time.sleep(1.5)  # the rest of the message is on its way
            self.die(f"the {self.mode} machine died ({fatal.group(0).decode('ascii', 'replace')})")
        if self._process.poll() is not None:
            noise = (self.output / "qemu.log").read_text(encoding="utf-8", errors="replace").splitlines()
            told = [line for line in noise if "warning:" not in line]
            self.die(" ".join([f"QEMU ({self.mode}) ended with {self._process.returncode}", *told[-3:]]))

    def die(self, why: str) -> None:
        """Declare the machine dead."""
        self.dead = MachineDiedError(why, "\n".join(self.console().splitlines()[-TAIL_LINES:]))
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        raise self.dead

    def abort(self) -> None:
        """Kill the machine from another thread than the one that works with it."""
        self.dead = MachineDiedError(f"the {self.mode} machine was ended before its time", "")
        if self._process is not None:
            self._process.kill()

    def console(self) -> str:
        """Read what Xen and dom0's Linux have written to the console so far."""
        return self.console_from(0)

    def console_from(self, offset: int) -> str:
        """Read the console from a place in it on."""
        with self.wires.console.open("rb") as console:
            console.seek(offset)
            return console.read().decode("utf-8", "replace").replace("\r", "")

    def end(self) -> int | None:
        """End QEMU, gently first; give its exit code, or None if it never ran."""
        if self._control is not None:
            with contextlib.suppress(LabError, OSError):
                self._control.execute("quit", timeout=10)
            self._control.close()
            self._control = None
        shutil.rmtree(self._sockets, ignore_errors=True)
        if self._process is None:
            return None
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired as exc:
            raise LabError(f"QEMU, process {self._process.pid}, cannot be killed") from exc
