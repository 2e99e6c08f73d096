"""Define accesses to configuration space, as every source of accesses yields them: writes, reads and losses.

Units:  `offset` in bytes; `size` 1, 2 or 4 bytes, None if unknown (Xen's trace records do not contain it);
        `when` in seconds of the source's own clock; `number` is the number of the access in a recording.
"""

from pcipt import values as attrs
from pcipt.hints import Protocol
from pcipt.pci.address import Sbdf

BUSES = 256
BUS_SHIFT = 20  # ECAM: 256 functions of 4 KiB each


@attrs.frozen
class Writer:
    """Who made an access: a thread of dom0's Linux, or a virtual CPU.

    `comm` is the command name and `pid` the thread id. A source that knows only the CPU sets `vcpu` and
    leaves the others None.
    """

    comm: str | None = None
    pid: int | None = None
    vcpu: int | None = None

    def __str__(self) -> str:
        return f"vcpu{self.vcpu}" if self.pid is None else f"{self.comm}-{self.pid}"


@attrs.frozen
class ConfigWrite:
    """One write to a register of a function.

    `value` is the value that was written, which the hardware may not have taken. `who` is None if the source
    does not know the writer. `own` is True if the source knows that this process made the write. Otherwise
    `own` is False.
    """

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
    """One read of a register, with the value that it returned. Only recordings of port accesses, of ECAM
    accesses and of xentrace contain reads.
    """

    sbdf: Sbdf
    offset: int
    size: int | None
    value: int
    number: int | None = None


@attrs.frozen
class Lost:
    """A mark in a stream of accesses: records are missing at this point, so the machine must be read again.

    `count` is the number of missing records, None if it is unknown.
    """

    count: int | None = None


@attrs.frozen
class EcamRegion:
    """One entry of the ACPI table MCFG: a memory range through which config space is accessed (ECAM).

    `base` is the address of bus 0 of the segment, whether or not the region contains bus 0. The region itself
    begins at `first`, the address of `start_bus`.
    """

    base: int
    segment: int = 0
    start_bus: int = 0
    end_bus: int = BUSES - 1

    @property
    def first(self) -> int:
        """Return the first byte address of the region."""
        return self.base + (self.start_bus << BUS_SHIFT)

    @property
    def end(self) -> int:
        """Return the first byte address after the region (exclusive end)."""
        return self.base + (self.end_bus + 1 << BUS_SHIFT)


class WriteSource(Protocol):
    """A live source of configuration writes, for a loop that polls with `selectors`.

    If the descriptor of `fileno` is readable, `read` does not block.
    """

    def fileno(self) -> int:
        """Return the descriptor to poll."""

    def read(self) -> list[ConfigWrite | Lost]:
        """Return the writes and losses that arrived since the last call, in order of arrival. The list may be
        empty.

        Raises: OSError if the source is broken: it sees no writes any more.
        """

    def overrun(self) -> Lost | None:
        """Return a `Lost` if the kernel or Xen counted losses that neither `read` nor this method has
        returned yet, else None.

        Raises: OSError if the source is broken: it sees no writes any more.
        """

    def blind(self) -> str | None:
        """Return the reason why no more writes can arrive although the source is open. Return None if writes
        can arrive.
        """

    def close(self) -> None:
        """Stop watching and release all resources."""
