"""Configuration accesses as every source yields them: writes, reads that teach, and gaps.

Units:  `offset` in bytes, `size` 1, 2 or 4 (None is unknown: Xen's trace records do not tell), `when` in
        seconds of the source's own clock, `number` the recording's own number of the access.
"""

from typing import Protocol

import attrs

from pcipt.pci.address import Sbdf

BUSES = 256
BUS_SHIFT = 20  # ECAM: 256 functions of 4 KiB each


@attrs.frozen
class Writer:
    """Who made an access, as far as the source knows: a thread of dom0's Linux, or a virtual CPU."""

    comm: str | None = None
    pid: int | None = None
    vcpu: int | None = None

    def __str__(self) -> str:
        return f"vcpu{self.vcpu}" if self.pid is None else f"{self.comm}-{self.pid}"


@attrs.frozen
class ConfigWrite:
    """One write to a register of a function; `own` marks what this process wrote itself."""

    sbdf: Sbdf
    offset: int
    size: int | None
    value: int
    when: float | None = None
    who: Writer | None = None
    number: int | None = None
    own: bool = False


@attrs.frozen
class ConfigRead:
    """One read and its answer; only recordings of ports and ECAM have them."""

    sbdf: Sbdf
    offset: int
    size: int | None
    value: int
    number: int | None = None


@attrs.frozen
class Lost:
    """Records are missing here; `count` None is an unknown number. Everything seen must be read again."""

    count: int | None = None


@attrs.frozen
class EcamRegion:
    """One entry of MCFG: `base` is where bus 0 of the segment would be, also if `start_bus` is not 0."""

    base: int
    segment: int = 0
    start_bus: int = 0
    end_bus: int = BUSES - 1

    @property
    def first(self) -> int:
        return self.base + (self.start_bus << BUS_SHIFT)

    @property
    def end(self) -> int:
        """The first address behind the region."""
        return self.base + (self.end_bus + 1 << BUS_SHIFT)


class WriteSource(Protocol):
    """A live source, made for a loop over `selectors`: when `fileno` is readable, `read` does not block."""

    def fileno(self) -> int: ...

    def read(self) -> list[ConfigWrite | Lost]:
        """Take what has come, at least something if `fileno` was readable."""

    def overrun(self) -> Lost | None:
        """Ask the kernel's or Xen's counters whether anything was lost without a record that says so."""

    def blind(self) -> str | None:
        """Say why nothing more will come although the source is open; None while it sees."""

    def close(self) -> None: ...
