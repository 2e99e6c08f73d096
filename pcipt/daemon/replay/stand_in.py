"""A host with recorded or generated files and the registers of simulated hardware.

Register writes go through the simulated Xen, as they do on a real machine: vPCI may drop or change them.
"""

from collections.abc import Callable
from typing import Protocol

import attrs

from pcipt.engine.interfaces import Host
from pcipt.errors import NoSuchDeviceError
from pcipt.host.iomem import MemoryReading
from pcipt.pci import RawFunction, Sbdf
from pcipt.pci.config import Register
from pcipt.pci.notation.kernel_log import LogReading

Write = Callable[[Sbdf, int, int, int], None]


class Readable(Protocol):
    """What dom0 reads registers from: hardware, or vPCI, which hides some of them."""

    def config(self, function: Sbdf) -> bytes | None: ...


class StandIn:
    """A host whose files come from `files` and whose config space comes from `hardware`.

    `write` performs a register write: function, offset, size in bytes, value. If the hardware has nothing at
    a function's address, the function's config space reads as all ones.
    """

    def __init__(self, files: Host, hardware: Readable, write: Write) -> None:
        self._files = files
        self._hardware = hardware
        self._write = write
        self._read: dict[Sbdf, tuple[RawFunction, RawFunction]] = {}  # the files' and what it became

    @property
    def boot_id(self) -> str:
        return self._files.boot_id

    @property
    def release(self) -> str:
        return self._files.release

    def addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions that Linux has."""
        return self._files.addresses()

    def read_machine(self) -> list[RawFunction]:
        """Return all functions that Linux has, each with its config space from the hardware."""
        return [self._with_registers(raw) for raw in self._files.read_machine()]

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        """Return one function with its config space from the hardware; None if Linux does not have it."""
        raw = self._files.read_function(sbdf)
        return self._with_registers(raw) if raw is not None else None

    def acpi_tables(self) -> list[bytes]:
        return self._files.acpi_tables()

    def memory(self) -> MemoryReading:
        return self._files.memory()

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        """Return the value of a register from the hardware. Bytes beyond the recorded config space read as 0.

        Raises: NoSuchDeviceError if Linux does not have the function.
        """
        raw = self.read_function(sbdf)
        if raw is None:
            raise NoSuchDeviceError(str(sbdf))
        return int.from_bytes((raw.config or b"")[register.offset :][: register.size], "little")

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        """Write a register by calling `write`, so through the simulated Xen."""
        self._write(sbdf, register.offset, register.size, value)

    def probe(self, sbdf: Sbdf) -> None:
        """Let the host with the files find a driver for a function."""
        self._files.probe(sbdf)

    def guarded_ports(self) -> frozenset[Sbdf] | None:
        """Return the list of slots of xen-pciback that the host with the files has."""
        return self._files.guarded_ports()

    def is_usb4_port(self, sbdf: Sbdf) -> bool:
        """Ask the host with the files."""
        return self._files.is_usb4_port(sbdf)

    def guard_port(self, sbdf: Sbdf, *, on: bool) -> None:
        """Let the host with the files change that list."""
        self._files.guard_port(sbdf, on=on)

    def quarantine(self, sbdf: Sbdf) -> None:
        """Let the host with the files quarantine a function."""
        self._files.quarantine(sbdf)

    def read_log(self) -> LogReading | None:
        """Let the host with the files read the kernel's log."""
        return self._files.read_log()

    def _with_registers(self, raw: RawFunction) -> RawFunction:
        """Return the function with the hardware's config space, cut to the length that was recorded.

        A function without recorded config space is returned unchanged.
        """
        recorded = raw.config
        if recorded is None:
            return raw
        size = len(recorded)
        config = (self._hardware.config(raw.sbdf) or b"\xff" * size)[:size]
        if config == recorded:
            return raw
        files, found = self._read.get(raw.sbdf, (None, raw))
        if files is not raw or found.config != config:
            found = attrs.evolve(raw, config=config)
            self._read[raw.sbdf] = raw, found
        return found
