"""Configuration writes of a PVH dom0, live from Xen's trace buffers: Debian's `xentrace` runs as a child and
its output is decoded as it comes.

    [watch]
    source = "xentrace"      # off by default

For a kernel that refuses kprobes. It costs more (each port access of the domain is a record) and tells less:
no width, no writer, none of our own marked, so each write only asks for a re-read. Port accesses of other HVM
guests are not told apart; they cause needless re-reads. Xen's buffers have one consumer: while this source
runs, another xentrace is refused, and the other way round. A child that ends is a loss and a problem.
"""

import contextlib
import glob
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from pcipt.errors import UnsupportedError, printable
from pcipt.pci.write import ConfigWrite, EcamRegion, Lost
from pcipt.watch.xentrace import Damage, TraceDecoder, looks_like_trace

FEATURE = "watching by xentrace"
PLACES = "/usr/lib/xen-*/bin/xentrace"  # where Debian keeps it, one for each version of Xen
HANDLERS = 0x0008_2000  # port and memory accesses among them; entry and exit records are left out
FIRST_RECORD = 10.0  # seconds in which Xen must have given something: a vCPU that merely idles does
LAST_WORD = 1.0  # seconds in which the child must have switched tracing off and ended

_CHUNK = 1 << 16
_WORDS = 4096


class XentraceSource:
    """A `WriteSource`. `pvh` says whether dom0 is one; `command` is the xentrace to run, found if None."""

    def __init__(
        self, regions: Sequence[EcamRegion] = (), *, pvh: bool = True, command: str | None = None
    ) -> None:
        if not pvh:
            why = "Xen traces the accesses of a PVH dom0 only; of a PV one it tells no more than where it ran"
            raise UnsupportedError(FEATURE, why)
        self._decoder = TraceDecoder(regions)
        self.problems: tuple[str, ...] = ()
        self._said = os.memfd_create("xentrace-stderr")
        self._poll = select.epoll()
        self._child: subprocess.Popen[bytes] | None = None
        self._pipe = -1
        self._head = b""
        try:
            self._start(command or find_xentrace())
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        """Give a descriptor that outlives the child: after its end it is never readable again."""
        return self._poll.fileno()

    def read(self) -> list[ConfigWrite | Lost]:
        """Take what is in the pipe; nothing if there is nothing. The end of the child is a `Lost`."""
        if self._pipe < 0:
            return []
        data, self._head = self._head, b""
        try:
            more = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            more = None
        if more == b"" and not data:
            self._bury()
            return [Lost()]
        data += more or b""
        found: list[ConfigWrite | Lost] = []
        for piece in self._decoder.decode(data):
            if isinstance(piece, Damage):
                found.append(Lost())
            else:
                found += [item for item in piece if isinstance(item, ConfigWrite | Lost)]
        return found

    def overrun(self) -> Lost | None:
        """Xen writes a record of its own where it had to drop some."""
        return None

    def close(self) -> None:
        """End the child, gently first, so that it switches tracing off; what it still gives is dropped."""
        if self._child is not None and self._pipe >= 0:
            self._child.send_signal(signal.SIGTERM)
            self._drain(time.monotonic() + LAST_WORD)
        self._bury(ended=True)
        self._poll.close()
        if self._said >= 0:
            os.close(self._said)
            self._said = -1

    def _start(self, command: str) -> None:
        arguments = [command, "-D", "-e", f"{HANDLERS:#x}"]
        try:
            self._child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said, bufsize=0
            )
        except OSError as error:
            raise UnsupportedError(FEATURE, f"{command}: {error.strerror or error}") from error
        assert self._child.stdout is not None
        self._pipe = os.dup(self._child.stdout.fileno())
        self._child.stdout.close()
        os.set_blocking(self._pipe, False)
        self._poll.register(self._pipe, select.EPOLLIN)
        if not self._poll.poll(FIRST_RECORD):
            raise UnsupportedError(FEATURE, f"{command} gave no record within {FIRST_RECORD:.0f} s")
        self._head = os.read(self._pipe, _CHUNK)
        if not looks_like_trace(self._head):  # a shell script that fails may say so on its standard output
            why = _last_line(self._head) or self._last_words()
            raise UnsupportedError(FEATURE, f"{command} cannot be run here: {why}")

    def _drain(self, deadline: float) -> None:
        """Read on until the child has closed its end: one that waits to write could not end."""
        with contextlib.suppress(OSError):
            while (left := deadline - time.monotonic()) > 0 and self._poll.poll(left):
                if not os.read(self._pipe, _CHUNK):
                    return

    def _bury(self, *, ended: bool = False) -> None:
        """Close the pipe and reap the child; `ended` is whether that is our wish."""
        if self._pipe >= 0:
            self._poll.unregister(self._pipe)
            os.close(self._pipe)
            self._pipe = -1
        child, self._child = self._child, None
        if child is None:
            return
        try:
            code = child.wait(LAST_WORD)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
            if ended:
                self.problems = (*self.problems, "xentrace had to be killed: Xen's tracing may still be on")
        if not ended:
            self.problems = (*self.problems, f"xentrace ended with {code}: {self._last_words()}")

    def _last_words(self) -> str:
        return _last_line(os.pread(self._said, _WORDS, 0)) or "it said nothing"


def find_xentrace() -> str:
    """Find the program: in PATH, else where Debian keeps it.

    Raises: UnsupportedError if there is none.
    """
    found = shutil.which("xentrace") or max(glob.glob(PLACES), default=None)
    if found is None:
        raise UnsupportedError(FEATURE, f"no xentrace in PATH nor as {PLACES}; Debian's xen-utils has it")
    return found


def _last_line(data: bytes) -> str:
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1].strip()) if lines else ""
