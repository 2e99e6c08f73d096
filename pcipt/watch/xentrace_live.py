"""Watch configuration writes of a PVH dom0 live, from Xen's trace buffers. `xentrace` runs as a child.

    [watch]
    source = "xentrace"      # off by default

This is for a kernel that refuses kprobes. It costs more than kprobes (each port access of the domain is a
record) and shows less: no width and no writer, and pcipt's own writes are not marked. So each write only
causes a re-read. Port accesses of other HVM guests also cause re-reads, because the records do not tell the
domains apart. Xen's buffers have only one consumer, so no other xentrace may run.
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
from typing import IO, Self

from pcipt.errors import UnsupportedError, printable
from pcipt.pci.write import ConfigWrite, EcamRegion, Lost
from pcipt.watch.xentrace import Damage, TraceDecoder, looks_like_trace

FEATURE = "watching by xentrace"
PLACES = "/usr/lib/xen-*/bin/xentrace"  # on Debian, one for each installed version of Xen
RUNNING = "/sys/hypervisor/version"  # major and minor of the running Xen
HANDLERS = 0x0008_2000  # event mask: includes port and memory accesses, excludes VM entries and exits
FIRST_RECORD = 10.0  # seconds to wait for the first record; even an idle vCPU causes records
LAST_WORD = 1.0  # seconds that the child has after SIGTERM to switch tracing off and end

_CHUNK = 1 << 16
_VERSION = re.compile(r"/xen-(\d+(?:\.\d+)+)/bin/xentrace")
_WAITING = 1 << 16  # writes that may wait for `read`; with more, all of them are lost
_STDERR_LIMIT = 4096
_GREETING = f"change evtmask to {HANDLERS:#x}\n".encode()


class XentraceSource:
    """A `WriteSource` that runs xentrace and decodes its output. The constructor waits for the first record,
    at most 10 s.

    `regions` are the ECAM regions; without them, no ECAM access is decoded. `pvh` is True if dom0 is a PVH
    one. `command` is the path of xentrace; if it is None, `find_xentrace` finds it. `problems` lists what
    went wrong, for example why the child ended. A thread reads the output all the time. Otherwise Xen's
    buffers would overflow while the daemon reads the machine, because these reads are port accesses too.
    Raises: UnsupportedError if dom0 is not PVH, or if xentrace is missing, cannot be run or gives no record;
            InputError if one of the `regions` is impossible or if there are more than 16.
    """

    def __init__(
        self, regions: Sequence[EcamRegion] = (), *, pvh: bool = True, command: str | None = None
    ) -> None:
        if not pvh:
            why = "Xen traces the accesses of a PVH dom0 only, not those of a PV dom0"
            raise UnsupportedError(FEATURE, why)
        self._decoder = TraceDecoder(regions)
        self._lock = threading.Lock()  # protects _items, _ended, and _ready while the thread runs
        self._items: list[ConfigWrite | Lost] = []
        self._ended = False
        self._closing = False  # what the child still writes is read and dropped, so that it can end
        self.problems: tuple[str, ...] = ()
        self._thread: threading.Thread | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stderr = os.memfd_create("xentrace-stderr")
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
        """Return a descriptor to poll; -1 after `close`. It is readable while `read` has something to return.

        The end of the child makes it readable once. After `read` has returned the `Lost` for this end, the
        descriptor is never readable again.
        """
        return self._ready

    def read(self) -> list[ConfigWrite | Lost]:
        """Return the writes and losses that arrived since the last call; empty if there are none. This method
        does not wait for records.

        When the child has ended, one call returns a list whose last item is a `Lost` of unknown count for
        this end, and adds the reason to `problems`. Later calls return an empty list.
        Raises: OSError after `close`.
        """
        try:
            os.eventfd_read(self._ready)
        except BlockingIOError:
            return []
        with self._lock:
            found, self._items = self._items, []
            ended, self._ended = self._ended, False
        if ended:
            code = self._reap()
            found.append(Lost())
            self.problems = (*self.problems, f"xentrace ended with {code}: {self._last_error_line()}")
        return found

    def overrun(self) -> Lost | None:
        """Return None always: Xen writes a record into the trace itself if it had to drop records, and `read`
        returns it.
        """
        return None

    def blind(self) -> str | None:
        """Return "xentrace has ended" if the child has ended or the source is closed, else None."""
        return "xentrace has ended" if self._child is None or self._child.poll() is not None else None

    def close(self) -> None:
        """End the child and release all resources. Output that was not read is dropped. A second call does no
        harm.

        The child first gets SIGTERM, so that it switches Xen's tracing off. If it has not ended after
        `LAST_WORD` seconds, it is killed, and `problems` says so.
        """
        self._closing = True
        if self._child is not None:
            self._child.send_signal(signal.SIGTERM)
            if self._reap() == -signal.SIGKILL:
                self.problems = (*self.problems, "xentrace had to be killed: Xen's tracing may still be on")
        with self._lock:  # a thread that has not ended yet must not write to a descriptor of this number
            for name in ("_ready", "_stderr"):
                if getattr(self, name) >= 0:
                    os.close(getattr(self, name))
                    setattr(self, name, -1)

    def _start(self, command: str) -> None:
        """Start the child, check its first output, and start the thread.

        Raises: UnsupportedError if the child cannot be started, writes nothing within `FIRST_RECORD` seconds,
                or writes something that is not a trace.
        """
        arguments = [
            command,
            "-D",
            "-e",
            f"{HANDLERS:#x}",
            "/dev/stdout",
        ]  # xentrace writes only to a named file
        try:
            self._child = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._stderr, bufsize=0
            )
        except OSError as error:
            raise UnsupportedError(FEATURE, f"{command}: {error.strerror or error}") from error
        assert self._child.stdout is not None
        pipe = self._child.stdout.fileno()
        if not select.select([pipe], [], [], FIRST_RECORD)[0]:
            raise UnsupportedError(FEATURE, f"{command} gave no record within {FIRST_RECORD:.0f} s")
        head = os.read(pipe, _CHUNK)
        if not looks_like_trace(head):  # on an error, xentrace prints its usage to standard output
            why = _last_line(head) or self._last_error_line()
            raise UnsupportedError(FEATURE, f"{command} cannot be run here: {why}")
        self._thread = threading.Thread(
            target=self._follow, args=(self._child.stdout, head), name="xentrace", daemon=True
        )
        self._thread.start()

    def _follow(self, pipe: IO[bytes], data: bytes) -> None:
        """Decode the first output `data` and then the output in `pipe`, and queue the writes and losses. This
        method runs in the thread.

        When the child closes the pipe, this method queues the mark that the child has ended, closes the pipe
        and returns. Only the thread closes the pipe: another process can hold its other end open after the
        child has ended.
        """
        with pipe:
            while data:
                if not self._closing:
                    self._queue(self._decode(data))
                data = os.read(pipe.fileno(), _CHUNK)
        self._queue([], ended=True)

    def _queue(self, found: list[ConfigWrite | Lost], *, ended: bool = False) -> None:
        """Queue items for `read` and make the descriptor readable. `ended` True marks the end of the child.
        After `close`, nothing is queued.

        If more than `_WAITING` items wait, these and `found` are replaced by one `Lost` of unknown count.
        """
        with self._lock:
            if self._ready < 0:
                return
            self._items = [Lost()] if len(self._items) > _WAITING else [*self._items, *found]
            self._ended = ended
            if found or ended:
                os.eventfd_write(self._ready, 1)

    def _decode(self, data: bytes) -> list[ConfigWrite | Lost]:
        """Return the writes and losses in a piece of output, in order; a damaged record is a `Lost` of
        unknown count.
        """
        found: list[ConfigWrite | Lost] = []
        for piece in self._decoder.decode(data):
            if isinstance(piece, Damage):
                found.append(Lost())
            else:
                found += [item for item in piece if isinstance(item, ConfigWrite | Lost)]
        return found

    def _reap(self) -> int:
        """Wait for the child and for the thread. Kill the child if it has not ended after `LAST_WORD`
        seconds. Return the child's exit code, negative for a signal.

        The source must have a child when this is called, and has none afterwards.
        """
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
        elif child.stdout is not None:
            child.stdout.close()
        return code

    def _last_error_line(self) -> str:
        """Return the last line that the child wrote to standard error, or "it said nothing" if there is none.
        The line that xentrace writes at every start is not counted.
        """
        said = os.pread(self._stderr, _STDERR_LIMIT, 0)
        return _last_line(said.removeprefix(_GREETING)) or "it printed no message"


def find_xentrace() -> str:
    """Return the path of xentrace.

    It is the xentrace in PATH. If there is none, it is Debian's for the running Xen; if that does not exist
    or the running version is unknown, Debian's for the newest version that is installed.
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
    """Return the numbers of Xen's version in a path of `PLACES`, for example (4, 17); empty if the path names
    no version.
    """
    found = _VERSION.search(path)
    return tuple(int(number) for number in found[1].split(".")) if found is not None else ()


def _running_version() -> tuple[int, ...] | None:
    """Return (major, minor) of the running Xen, or None if it cannot be read. Raises nothing."""
    numbers = []
    for part in ("major", "minor"):
        try:
            with open(os.path.join(RUNNING, part), "rb") as file:
                numbers.append(int(file.read(16)))
        except (OSError, ValueError):
            return None
    return tuple(numbers)


def _last_line(data: bytes) -> str:
    """Return the last line of some output, made printable; an empty text if the output is blank."""
    lines = data.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1].strip()) if lines else ""
