"""Configuration writes of a PVH dom0, live from Xen's trace buffers: Debian's `xentrace` runs as a child and
its output is decoded as it comes.

    [watch]
    source = "xentrace"      # off by default

For a kernel that refuses kprobes. It costs more (each port access of the domain is a record) and tells less:
no width, no writer, none of our own marked, so each write only asks for a re-read. Port accesses of other HVM
guests are not told apart; they cause needless re-reads. Xen's buffers have one consumer: run no other
xentrace beside it. A child that ends is a loss and a problem.
"""

import glob
import os
import re
import select
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from pcipt.errors import UnsupportedError, printable
from pcipt.pci.write import ConfigWrite, EcamRegion, Lost
from pcipt.watch.xentrace import Damage, TraceDecoder, looks_like_trace

FEATURE = "watching by xentrace"
PLACES = "/usr/lib/xen-*/bin/xentrace"  # where Debian keeps it, one for each version of Xen
RUNNING = "/sys/hypervisor/version"  # major and minor of the running Xen
HANDLERS = 0x0008_2000  # port and memory accesses among them; entry and exit records are left out
FIRST_RECORD = 10.0  # seconds in which Xen must have given something: a vCPU that merely idles does
LAST_WORD = 1.0  # seconds in which the child must have switched tracing off and ended

_CHUNK = 1 << 16
_VERSION = re.compile(r"/xen-(\d+(?:\.\d+)+)/bin/xentrace")
_WAITING = 1 << 16  # writes that wait to be taken before they count as lost
_WORDS = 4096
_GREETING = f"change evtmask to {HANDLERS:#x}\n".encode()


class XentraceSource:
    """A `WriteSource`. `pvh` says whether dom0 is one; `command` is the xentrace to run, found if None.

    A thread reads all the time: reading the machine again is itself so many port accesses that Xen's buffers
    would overflow meanwhile, which would mean reading it again.
    """

    def __init__(
        self, regions: Sequence[EcamRegion] = (), *, pvh: bool = True, command: str | None = None
    ) -> None:
        if not pvh:
            why = "Xen traces the accesses of a PVH dom0 only; of a PV one it tells no more than where it ran"
            raise UnsupportedError(FEATURE, why)
        self._decoder = TraceDecoder(regions)
        self._lock = threading.Lock()  # over the next two
        self._items: list[ConfigWrite | Lost] = []
        self._ended = False
        self.problems: tuple[str, ...] = ()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._said = os.memfd_create("xentrace-stderr")
        self._ready = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
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
        """Give a descriptor that is readable when writes have come; once the child has ended, never again."""
        return self._ready

    def read(self) -> list[ConfigWrite | Lost]:
        """Take what has come; nothing if there is nothing. The end of the child is a `Lost`."""
        try:
            os.eventfd_read(self._ready)
        except BlockingIOError:
            return []
        with self._lock:
            found, self._items = self._items, []
            ended, self._ended = self._ended, False
        if ended:
            code = self._bury()
            found.append(Lost())
            self.problems = (*self.problems, f"xentrace ended with {code}: {self._last_words()}")
        return found

    def overrun(self) -> Lost | None:
        """Xen writes a record of its own where it had to drop some."""
        return None

    def blind(self) -> str | None:
        return "xentrace has ended" if self._child is None or self._child.poll() is not None else None

    def close(self) -> None:
        """End the child, gently first, so that it switches tracing off; what it still gives is dropped."""
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            if self._bury() == -signal.SIGKILL:
                self.problems = (*self.problems, "xentrace had to be killed: Xen's tracing may still be on")
        for name in ("_ready", "_said"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)

    def _start(self, command: str) -> None:
        arguments = [command, "-D", "-e", f"{HANDLERS:#x}", "/dev/stdout"]  # it insists on a file
        try:
            self._child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said, bufsize=0
            )
        except OSError as error:
            raise UnsupportedError(FEATURE, f"{command}: {error.strerror or error}") from error
        assert self._child.stdout is not None
        pipe = self._child.stdout.fileno()
        if not select.select([pipe], [], [], FIRST_RECORD)[0]:
            raise UnsupportedError(FEATURE, f"{command} gave no record within {FIRST_RECORD:.0f} s")
        head = os.read(pipe, _CHUNK)
        if not looks_like_trace(head):  # it tells how to use it on its standard output
            why = _last_line(head) or self._last_words()
            raise UnsupportedError(FEATURE, f"{command} cannot be run here: {why}")
        self._thread = threading.Thread(target=self._follow, args=(pipe, head), name="xentrace", daemon=True)
        self._thread.start()

    def _follow(self, pipe: int, data: bytes) -> None:
        """Decode until the child closes its end; runs in the thread."""
        while data:
            self._hand_over(self._decoded(data))
            data = os.read(pipe, _CHUNK)
        self._hand_over([], ended=True)

    def _hand_over(self, found: list[ConfigWrite | Lost], *, ended: bool = False) -> None:
        with self._lock:
            self._items = [Lost()] if len(self._items) > _WAITING else [*self._items, *found]
            self._ended = ended
        if found or ended:
            os.eventfd_write(self._ready, 1)

    def _decoded(self, data: bytes) -> list[ConfigWrite | Lost]:
        found: list[ConfigWrite | Lost] = []
        for piece in self._decoder.decode(data):
            if isinstance(piece, Damage):
                found.append(Lost())
            else:
                found += [item for item in piece if isinstance(item, ConfigWrite | Lost)]
        return found

    def _bury(self) -> int:
        """Reap the child, by force if need be, and the thread; give the child's exit code."""
        child, self._child = self._child, None
        assert child is not None
        try:
            code = child.wait(LAST_WORD)
        except subprocess.TimeoutExpired:
            child.kill()
            code = child.wait()
        if self._thread is not None:
            self._thread.join(LAST_WORD)
            self._thread = None
        if child.stdout is not None:
            child.stdout.close()
        return code

    def _last_words(self) -> str:
        said = os.pread(self._said, _WORDS, 0)
        return _last_line(said.removeprefix(_GREETING)) or "it said nothing"


def find_xentrace() -> str:
    """Return the path of xentrace: from PATH, else Debian's for the running Xen, else Debian's newest.

    Raises: UnsupportedError if there is none.
    """
    found = shutil.which("xentrace")
    if found is not None:
        return found
    installed = glob.glob(PLACES)
    if not installed:
        raise UnsupportedError(FEATURE, f"no xentrace in PATH nor as {PLACES}; Debian's xen-utils has it")
    running = _running_version()
    return max([path for path in installed if _version_in(path)[:2] == running] or installed, key=_version_in)


def _version_in(path: str) -> tuple[int, ...]:
    """Return the numbers of Xen's version in a path of `PLACES`; empty if the path names no version."""
    found = _VERSION.search(path)
    return tuple(int(number) for number in found[1].split(".")) if found is not None else ()


def _running_version() -> tuple[int, ...] | None:
    """Return (major, minor) of the running Xen, or None if it cannot be read."""
    numbers = []
    for part in ("major", "minor"):
        try:
            with open(os.path.join(RUNNING, part), "rb") as file:
                numbers.append(int(file.read(16)))
        except (OSError, ValueError):
            return None
    return tuple(numbers)


def _last_line(data: bytes) -> str:
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1].strip()) if lines else ""
