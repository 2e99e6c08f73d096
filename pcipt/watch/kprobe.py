"""Configuration writes of dom0's Linux, live: kprobes on its two low-level functions, in a trace instance of
our own.

Setting up cleans what a killed predecessor left, and undoes itself when a step fails; closing takes
everything away again. What a kernel cannot do (no tracefs, no such symbol, lockdown) is `UnsupportedError` in
one line.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Container
from types import TracebackType
from typing import Self

from pcipt.errors import MalformedError, UnsupportedError
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.watch.kprobe_text import parse_line
from pcipt.watch.tracefs import Tracefs

FEATURE = "watching by kprobes"
INSTANCE = "pcipt"
PROBES = {"conf1": "pci_conf1_write", "mmcfg": "pci_mmcfg_write"}
# The name goes with the record: the one at a line's head is `<...>` for a process that has not slept yet.
ARGUMENTS = "seg=%di:u32 bus=%si:u32 devfn=%dx:u32 reg=%cx:s32 len=%r8:s32 val=%r9:x32 comm=$comm"
BUFFER_KIB = 1024  # for each CPU: some 15 000 writes

_EVENTS = "kprobe_events"
_HOME = f"instances/{INSTANCE}"
_CHUNK = 1 << 16
_COUNTERS = ("overrun:", "dropped events:")


class KprobeSource:
    """A `WriteSource`. `own` are the thread ids whose writes are marked as this process's, its main one if
    None.
    """

    def __init__(
        self,
        tracefs: Tracefs | None = None,
        *,
        own: Container[int] | None = None,
        buffer_kib: int = BUFFER_KIB,
    ) -> None:
        self._tracefs = tracefs or Tracefs()
        self._own = own if own is not None else {os.getpid()}
        self._rest = b""
        self._told = self._counted = self._announced = 0
        self._pipe = -1
        self.problems: tuple[str, ...] = ()
        self._check()
        self._clean()
        try:
            self._add_probes()
            self._make_instance(buffer_kib)
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
        return self._pipe

    def read(self) -> list[ConfigWrite | Lost]:
        """Take what is in the pipe; nothing if there is nothing.

        Shape:  in the order of the trace; a `Lost` stands where records are missing or a line is not
                understood.
        """
        try:
            data = os.read(self._pipe, _CHUNK)
        except BlockingIOError:
            return []
        *lines, self._rest = (self._rest + data).split(b"\n")
        found = []
        for line in lines:
            try:
                item = parse_line(line.decode("utf-8", "replace"), self._own)
            except MalformedError:
                item = Lost()
            if isinstance(item, Lost):
                item = self._untold(item)
            if item is not None:
                found.append(item)
        return found

    def _untold(self, lost: Lost) -> Lost | None:
        """Take off what the counters, which run ahead of the pipe, have announced already."""
        if lost.count is None:
            return lost
        self._told += lost.count
        missing = self._told - self._announced
        if missing <= 0:
            return None
        self._announced = self._told
        return Lost(missing)

    def overrun(self) -> Lost | None:
        """Ask the buffers' counters for losses that no record has told yet."""
        total = 0
        for cpu in self._tracefs.names(f"{_HOME}/per_cpu"):
            with contextlib.suppress(OSError):  # the CPU went offline just now
                total += _lost_in(self._tracefs.read(f"{_HOME}/per_cpu/{cpu}/stats"))
        self._counted = max(self._counted, total)
        missing = self._counted - self._announced
        if missing <= 0:
            return None
        self._announced = self._counted
        return Lost(missing)

    def blind(self) -> str | None:
        """Look whether our events are still switched on; any root process may have switched them off."""
        try:
            for name in (f"events/{INSTANCE}/enable", "tracing_on"):
                if self._tracefs.read(f"{_HOME}/{name}").strip() != "1":
                    return f"{_HOME}/{name} has been switched off"
        except OSError as error:
            return _reason(error)
        return None

    def close(self) -> None:
        """Take everything away; a step that fails does not keep the others, `problems` tells it."""
        problems: list[str] = []
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._tracefs.exists(_HOME):
            _attempt(problems, lambda: self._tracefs.write(f"{_HOME}/events/{INSTANCE}/enable", "0"))
            _attempt(problems, lambda: self._tracefs.remove_instance(INSTANCE))
        _attempt(problems, self._remove_probes)
        self.problems = tuple(problems)

    def _check(self) -> None:
        path = self._tracefs.path
        if not self._tracefs.exists("instances"):
            raise UnsupportedError(FEATURE, f"no tracefs is mounted at {path}, or it may not be entered")
        if not self._tracefs.exists(_EVENTS):
            raise UnsupportedError(FEATURE, "this kernel has no kprobe events (CONFIG_KPROBE_EVENTS)")

    def _clean(self) -> None:
        """Remove what a predecessor left that was killed; another that lives holds its instance busy."""
        try:
            if self._tracefs.exists(_HOME):
                self._tracefs.remove_instance(INSTANCE)  # switches its events off, or is refused as busy
            self._remove_probes()
        except OSError as error:
            if error.errno == errno.EBUSY:
                why = f"the trace instance {INSTANCE} is in use; does another pcipt run?"
                raise UnsupportedError(FEATURE, why) from error
            raise UnsupportedError(FEATURE, _reason(error)) from error

    def _remove_probes(self) -> None:
        for line in self._tracefs.read(_EVENTS).splitlines():
            name = line.split(" ", 1)[0].partition(":")[2]
            if name.startswith(f"{INSTANCE}/"):
                self._tracefs.write(_EVENTS, f"-:{name}\n", append=True)

    def _add_probes(self) -> None:
        for name, symbol in PROBES.items():
            try:
                self._tracefs.write(_EVENTS, f"p:{INSTANCE}/{name} {symbol} {ARGUMENTS}\n", append=True)
            except OSError as error:
                why = _reason(error)
                if error.errno in {errno.ENOENT, errno.EINVAL}:
                    why = f"this kernel has no function {symbol} that can be probed"
                raise UnsupportedError(FEATURE, why) from error

    def _make_instance(self, buffer_kib: int) -> None:
        tracefs = self._tracefs
        try:
            tracefs.make_instance(INSTANCE)
            tracefs.write(f"{_HOME}/buffer_size_kb", str(buffer_kib))
            for name, value in (("buffer_percent", "0"), ("trace_clock", "mono")):
                # Kernels that wake a poller only at half a buffer can be told not to; older ones do not.
                if tracefs.exists(f"{_HOME}/{name}"):
                    tracefs.write(f"{_HOME}/{name}", value)
            self._pipe = tracefs.open_pipe(f"{_HOME}/trace_pipe")
            tracefs.write(f"{_HOME}/events/{INSTANCE}/enable", "1")
        except OSError as error:
            raise UnsupportedError(FEATURE, _reason(error)) from error


def _attempt(problems: list[str], action: Callable[[], None]) -> None:
    try:
        action()
    except OSError as error:
        problems.append(_reason(error))


def _lost_in(stats: str) -> int:
    total = 0
    for line in stats.splitlines():
        for counter in _COUNTERS:
            if line.startswith(counter) and line[len(counter) :].strip().isdecimal():
                total += int(line[len(counter) :])
    return total


def _reason(error: OSError) -> str:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return "the kernel refuses it: it needs root and no lockdown in confidentiality mode"
    about = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{about}"
