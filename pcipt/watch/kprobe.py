"""Watch configuration writes of dom0's Linux live, by kprobes on the two functions that make them.

The probes write into a trace instance that only pcipt uses. Opening a source first removes the probes and the
instance that a killed process of pcipt left. If a later step of opening fails, the steps before it are
undone. Closing a source removes its probes and the instance. If the kernel cannot do what opening needs (no
tracefs, no such function, lockdown), the constructor raises `UnsupportedError`.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Container, Mapping
from types import TracebackType
from typing import Self

from pcipt.errors import MalformedError, UnsupportedError
from pcipt.pci.write import ConfigWrite, Lost
from pcipt.watch.kprobe_text import parse_line
from pcipt.watch.tracefs import Tracefs

FEATURE = "watching by kprobes"
INSTANCE = "pcipt"
PROBES = {"conf1": "pci_conf1_write", "mmcfg": "pci_mmcfg_write"}
# comm is an argument because the name at the head of a line is `<...>` for a process that never slept.
ARGUMENTS = "seg=%di:u32 bus=%si:u32 devfn=%dx:u32 reg=%cx:s32 len=%r8:s32 val=%r9:x32 comm=$comm"
BUFFER_KIB = 1024  # for each CPU; holds about 15 000 writes

_EVENTS = "kprobe_events"
_INSTANCE_PATH = f"instances/{INSTANCE}"
_CHUNK = 1 << 16
_OVERWRITTEN = "overrun"  # the only counter whose losses the pipe shows too, as [LOST n EVENTS]
_COUNTERS = (_OVERWRITTEN, "commit overrun", "dropped events")  # linux kernel/trace/ring_buffer.c


class KprobeSource:
    """A `WriteSource` that reads kprobe events from the kernel. The constructor sets up the probes.

    `tracefs` None is the one at /sys/kernel/tracing. `own` are thread ids; writes of these threads are marked
    as this process's own. If `own` is None, only the writes of the main thread are marked. `buffer_kib` is
    the size of the kernel's buffer for each CPU. After `close`, `problems` lists the steps of closing that
    failed.
    Raises: UnsupportedError if the kernel cannot do this, or if another pcipt uses the trace instance. The
            steps that were done before are undone.
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
        self._seen_in_pipe = self._reported = 0
        self._counters: dict[str, dict[str, int]] = {}  # the latest value of each counter, by CPU
        self._counted = dict.fromkeys(_COUNTERS, 0)  # the losses that the counters showed, of all CPUs
        self._reported_unseen = 0  # those that never appear in the pipe
        self._pipe = -1
        self.problems: tuple[str, ...] = ()
        self._check()
        self._remove_leftovers()
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
        """Return the descriptor of the trace pipe, to poll; -1 after `close`."""
        return self._pipe

    def read(self) -> list[ConfigWrite | Lost]:
        """Return the writes and losses that are in the pipe now, without waiting. The list may be empty.

        One call reads at most 64 KiB, so that more may be left. An incomplete line is kept for the next call.

        Shape:  in the order of the trace. Missing records give a `Lost`; records that `overrun` has already
                returned are not counted again. A line that cannot be parsed gives a `Lost` of unknown count.
        Raises: OSError if the pipe cannot be read, and always after `close`.
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
                item = self._unreported(item)
            if item is not None:
                found.append(item)
        return found

    def _unreported(self, lost: Lost) -> Lost | None:
        """Return the part of the loss `lost` that `overrun` has not returned yet, or None if nothing is left.

        Only overwritten records appear in the pipe. `overrun` can return their loss first, because the
        kernel's counters show it before it appears in the pipe. A loss of unknown count is returned
        unchanged.
        """
        if lost.count is None:
            return lost
        self._seen_in_pipe += lost.count
        missing = self._seen_in_pipe - self._reported
        if missing <= 0:
            return None
        self._reported = self._seen_in_pipe
        return Lost(missing)

    def overrun(self) -> Lost | None:
        """Return a `Lost` if the kernel's counters show losses that neither `read` nor this method has
        returned yet, else None.

        A CPU whose counters cannot be read is skipped; its losses are returned once they can be read again.
        Raises: OSError if the trace instance does not exist, for example after `close`.
        """
        for cpu in self._tracefs.names(f"{_INSTANCE_PATH}/per_cpu"):
            with contextlib.suppress(OSError):  # the CPU can go offline meanwhile
                self._count(cpu, _lost_in(self._tracefs.read(f"{_INSTANCE_PATH}/per_cpu/{cpu}/stats")))
        overwritten = self._counted[_OVERWRITTEN]
        unseen = sum(self._counted.values()) - overwritten
        missing = max(0, overwritten - self._reported) + unseen - self._reported_unseen
        if not missing:
            return None
        self._reported = max(self._reported, overwritten)
        self._reported_unseen = unseen
        return Lost(missing)

    def _count(self, cpu: str, now: Mapping[str, int]) -> None:
        """Add to `_counted` what the counters of one CPU show beyond their values at the last call.

        A counter that has become smaller was reset, as the kernel does when somebody clears or resizes the
        buffer: it counts from 0 again.
        """
        before = self._counters.get(cpu, {})
        for name, value in now.items():
            held = before.get(name, 0)
            self._counted[name] += value - held if value >= held else value
        self._counters[cpu] = {**before, **now}

    def blind(self) -> str | None:
        """Return the reason if tracing was switched off or its state cannot be read. Return None if tracing
        is on.

        Every process of root can switch off the events of the trace instance.
        """
        try:
            for name in (f"events/{INSTANCE}/enable", "tracing_on"):
                if self._tracefs.read(f"{_INSTANCE_PATH}/{name}").strip() != "1":
                    return f"{_INSTANCE_PATH}/{name} has been switched off"
        except OSError as error:
            return _reason(error)
        return None

    def close(self) -> None:
        """Remove probes and trace instance. A second call does no harm.

        If a step fails, the other steps are still done, and `problems` lists the reasons. OSError is not
        raised.
        """
        problems: list[str] = []
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
        if self._tracefs.exists(_INSTANCE_PATH):
            _try(problems, lambda: self._tracefs.write(f"{_INSTANCE_PATH}/events/{INSTANCE}/enable", "0"))
            _try(problems, lambda: self._tracefs.remove_instance(INSTANCE))
        _try(problems, self._remove_probes)
        self.problems = tuple(problems)

    def _check(self) -> None:
        """Raise UnsupportedError if tracefs is not mounted or cannot be entered, or if the kernel has no
        kprobe events.
        """
        path = self._tracefs.path
        if not self._tracefs.exists("instances"):
            raise UnsupportedError(
                FEATURE, (f"no tracefs is mounted at {path}, or pcipt may not enter this directory")
            )
        if not self._tracefs.exists(_EVENTS):
            raise UnsupportedError(FEATURE, "this kernel has no kprobe events (CONFIG_KPROBE_EVENTS)")

    def _remove_leftovers(self) -> None:
        """Remove the trace instance and the probes that a killed process of pcipt left.

        Raises: UnsupportedError if the instance is in use (by a running pcipt), or if the instance or a probe
                cannot be removed.
        """
        try:
            if self._tracefs.exists(_INSTANCE_PATH):
                self._tracefs.remove_instance(INSTANCE)  # also disables its events; EBUSY if it is in use
            self._remove_probes()
        except OSError as error:
            if error.errno == errno.EBUSY:
                why = f"the trace instance {INSTANCE} is in use; probably another pcipt is running"
                raise UnsupportedError(FEATURE, why) from error
            raise UnsupportedError(FEATURE, _reason(error)) from error

    def _remove_probes(self) -> None:
        """Remove the probes of pcipt from kprobe_events. Raises: OSError at the first probe that cannot be
        removed.
        """
        for line in self._tracefs.read(_EVENTS).splitlines():
            name = line.split(" ", 1)[0].partition(":")[2]
            if name.startswith(f"{INSTANCE}/"):
                self._tracefs.write(_EVENTS, f"-:{name}\n", append=True)

    def _add_probes(self) -> None:
        """Add a probe on each function of `PROBES`.

        Raises: UnsupportedError at the first function that cannot be probed.
        """
        for name, symbol in PROBES.items():
            try:
                self._tracefs.write(_EVENTS, f"p:{INSTANCE}/{name} {symbol} {ARGUMENTS}\n", append=True)
            except OSError as error:
                why = _reason(error)
                if error.errno in {errno.ENOENT, errno.EINVAL}:
                    why = f"this kernel has no function {symbol} that can be probed"
                raise UnsupportedError(FEATURE, why) from error

    def _make_instance(self, buffer_kib: int) -> None:
        """Create the trace instance, open its pipe and enable the events.

        Raises: UnsupportedError if a step fails; the caller must then call `close`.
        """
        tracefs = self._tracefs
        try:
            tracefs.make_instance(INSTANCE)
            tracefs.write(f"{_INSTANCE_PATH}/buffer_size_kb", str(buffer_kib))
            for name, value in (("buffer_percent", "0"), ("trace_clock", "mono")):
                # Newer kernels wake a poller only when the buffer is half full, unless buffer_percent is 0.
                if tracefs.exists(f"{_INSTANCE_PATH}/{name}"):
                    tracefs.write(f"{_INSTANCE_PATH}/{name}", value)
            self._pipe = tracefs.open_pipe(f"{_INSTANCE_PATH}/trace_pipe")
            tracefs.write(f"{_INSTANCE_PATH}/events/{INSTANCE}/enable", "1")
        except OSError as error:
            raise UnsupportedError(FEATURE, _reason(error)) from error


def _try(problems: list[str], action: Callable[[], None]) -> None:
    """Run `action`; if it raises OSError, append the reason to `problems` and return normally."""
    try:
        action()
    except OSError as error:
        problems.append(_reason(error))


def _lost_in(stats: str) -> dict[str, int]:
    """Return the counters of lost records that the text of one CPU's `stats` file shows, by name."""
    pairs = (line.partition(":") for line in stats.splitlines())
    return {name: int(value) for name, _, value in pairs if name in _COUNTERS and value.strip().isdecimal()}


def _reason(error: OSError) -> str:
    """Return the text that explains an OSError to the user."""
    if error.errno in {errno.EPERM, errno.EACCES}:
        return (
            "the kernel refuses this: pcipt must be root, and the kernel must not be in lockdown mode "
            "confidentiality"
        )
    about = f" ({error.filename})" if error.filename else ""
    return f"{error.strerror or error}{about}"
