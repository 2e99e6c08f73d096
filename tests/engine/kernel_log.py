"""The kernel's log of a made-up machine: what Linux prints of functions that come, as /dev/kmsg gives it."""

from pcipt.host.log.kmsg import parsed
from pcipt.pci.notation.kernel_log import LogReading

REGISTERS = range(0x10, 0x28, 4)


class Log:
    """Records of which the oldest are overwritten; `words` are those of Linux before or from 6.8 on.

    `readable` is False if /dev/kmsg cannot be opened. `uevents` counts the kernel's messages.
    """

    def __init__(self, words="old", room=10_000):
        self.words = words
        self.room = room
        self.readable = True
        self.uevents = 100
        self._records = []
        self._next = 0
        self._at = 0
        self._last = None
        self.say("Linux version 6.1.0-18-amd64")

    def say(self, text, sbdf=None):
        keys = f" SUBSYSTEM=pci\n DEVICE=+pci:{sbdf}\n" if sbdf is not None else ""
        driver = f"pci {sbdf}: " if sbdf is not None else ""
        record = f"6,{self._next},{1000 * self._next},-;{driver}{text}\n{keys}"
        self._records = [*self._records, (self._next, record.encode())][-self.room :]
        self._next += 1

    def found(self, sbdf, sizes, starts=None):
        """Print what pci_setup_device prints: ids, type, and each BAR."""
        self.say("[8086:10d3] type 00 class 0x020000", sbdf)
        for index, size in enumerate(sizes):
            start = starts[index] if starts else 0
            span = f"[mem {start:#010x}-{start + size - 1:#010x}]"
            name = f"BAR {index}" if self.words == "new" else f"reg {REGISTERS[index]:#x}:"
            self.say(f"{name} {span}", sbdf)

    def assigned(self, sbdf, index, start, size):
        span = f"[mem {start:#010x}-{start + size - 1:#010x}]"
        new = f"BAR {index} {span}: assigned"
        self.say(new if self.words == "new" else f"BAR {index}: assigned {span}", sbdf)

    def open_anew(self):
        """Begin with the oldest record again, as a new process does."""
        self._at, self._last = 0, None

    def read(self):
        if not self.readable:
            return LogReading(uevents=self.uevents)
        found = [(number, record) for number, record in self._records if number >= self._at]
        lines = [line for _, record in found if (line := parsed(record)[1]) is not None]
        if found:
            self._at, self._last = found[-1][0] + 1, found[-1][0]
        return LogReading(tuple(lines), found[0][0] if found else None, self._last, self.uevents)
