"""Read the kernel's log from /dev/kmsg: the lines of the kernel about PCI functions.

Each read gives one record: "LEVEL,NUMBER,TIME,FLAGS;TEXT", then lines " KEY=value". The kernel adds the keys
SUBSYSTEM and DEVICE to what it prints about a device; a program that writes to /dev/kmsg cannot add them, and
cannot use the kernel's facility, 0.
Source: linux Documentation/ABI/testing/dev-kmsg; drivers/base/core.c (set_dev_info); kernel/printk/printk.c
        (devkmsg_read: EPIPE if the next line was overwritten; devkmsg_emit, devkmsg_write).
"""

import contextlib
import errno
import os

from pcipt.host.function.raw_function import sbdf_from_name
from pcipt.pci.notation.kernel_log import LogLine, LogReading

KMSG = "/dev/kmsg"
UEVENTS = "/sys/kernel/uevent_seqnum"
_RECORD = 16 << 10  # bytes; more than the kernel's longest record (PRINTK_MESSAGE_MAX)
_MOST = 1 << 20  # records of one reading
_KERNEL = 0  # facility
_PCI = " DEVICE=+pci:"


class KernelLog:
    """The kernel's log, read from its oldest line on. It is opened at the first reading."""

    def __init__(self, path: str = KMSG, uevents: str = UEVENTS) -> None:
        self._path = path
        self._uevents = uevents
        self._file: int | None = None
        self._last: int | None = None

    def read(self) -> LogReading:
        """Return the lines about PCI functions that are new since the last call.

        Raises nothing: if the log cannot be opened, `last` of the result is None.
        """
        uevents = _number_in(self._uevents)
        first: int | None = None
        lines: list[LogLine] = []
        for record in self._records():
            number, line = parsed(record)
            if number is None:
                continue
            first = number if first is None else first
            self._last = number
            if line is not None:
                lines.append(line)
        return LogReading(tuple(lines), first, self._last, uevents)

    def close(self) -> None:
        """Close the file. A later reading begins with the oldest line again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _records(self) -> list[bytes]:
        """Return the records that wait, as far as they can be read."""
        found: list[bytes] = []
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            for _ in range(_MOST):
                record = _next(self._file)
                if not record:
                    break
                found.append(record)
        except OSError:
            return found
        return found


def _next(file: int) -> bytes:
    """Return the next record, the oldest one if some were overwritten; empty if there is none."""
    for _ in range(8):
        try:
            return os.read(file, _RECORD)
        except BlockingIOError:
            return b""
        except OSError as error:
            if error.errno != errno.EPIPE:
                raise
    return b""


def parsed(record: bytes) -> tuple[int | None, LogLine | None]:
    """Return the number of a record, and its line if the kernel printed it about a PCI function.

    The number is None if it is no record.
    """
    head, _, body = record.partition(b";")
    parts = head.split(b",")
    try:
        level, number = int(parts[0]), int(parts[1])
    except (ValueError, IndexError):
        return None, None
    text, *keys = body.decode("utf-8", "replace").split("\n")
    sbdf = next((sbdf_from_name(key[len(_PCI) :]) for key in keys if key.startswith(_PCI)), None)
    if level >> 3 != _KERNEL or sbdf is None:
        return number, None
    _, _, told = text.partition(f"{sbdf}: ")  # the driver's name or "pci" comes before the address
    return number, LogLine(number, sbdf, told)


def _number_in(path: str) -> int | None:
    """Return the number in a file, None if it cannot be read."""
    with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
        return int(file.read(32))
    return None
