"""Reads the kernel's log, and keeps the BAR sizes that the log tells.

Nothing else shows the sizes of a function that came and left before pcipt read it.
"""

from collections.abc import Callable, Mapping

from pcipt.pci.address import Sbdf
from pcipt.pci.notation.kernel_log import LogReading

MOST = 128  # addresses of functions; each has at most LONGEST ranges
LONGEST = 24


class ReadLog:
    """The kernel's log as far as it was read. `read` gives each line once: all readings go through here."""

    def __init__(self, read: Callable[[], LogReading | None]) -> None:
        self._read = read
        self._sizes: dict[Sbdf, dict[tuple[int, int], int]] = {}  # the function that was told of last is last

    def read(self) -> LogReading | None:
        """Return the lines that are new since the last call; None if this host has no log."""
        log = self._read()
        for sbdf, arrivals in log.arrivals.items() if log is not None else ():
            told = self._sizes.pop(sbdf, {})
            for arrival in arrivals:
                for bar, span in sorted(arrival.bars, key=lambda each: (each[0], each[1].start)):
                    told[bar, int(span.start)] = max(span.size, told.pop((bar, int(span.start)), 0))
            self._sizes[sbdf] = dict([*told.items()][-LONGEST:])
        for oldest in [*self._sizes][:-MOST]:
            del self._sizes[oldest]
        return log

    def sizes(self, sbdf: Sbdf) -> Mapping[tuple[int, int], int]:
        """Return the sizes in bytes that Linux has told, up to now, of the memory BARs at an address.

        The key is (BAR number, byte address). If functions of different sizes had their BAR there, the
        largest size counts.
        """
        self.read()
        return self._sizes.get(sbdf, {})
