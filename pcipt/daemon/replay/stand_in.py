"""A host whose files are recorded or made up, and whose registers are those of simulated hardware.

What dom0's Linux writes goes through the simulated Xen, as on a real machine: vPCI may stand in the way.
"""

from collections.abc import Callable

import attrs

from pcipt.engine.interfaces import Host
from pcipt.errors import NoSuchDeviceError
from pcipt.host.iomem import MemoryReading
from pcipt.pci import RawFunction, Sbdf
from pcipt.pci.config import Register
from pcipt.xen.simulated.hardware import BusHardware

Write = Callable[[Sbdf, int, int, int], None]


class StandIn:
    """`files` is what Linux shows; where nothing answers at Linux's address `config` reads all ones."""

    def __init__(self, files: Host, hardware: BusHardware, write: Write) -> None:
        self._files = files
        self._hardware = hardware
        self._write = write

    @property
    def boot_id(self) -> str:
        return self._files.boot_id

    def addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions that Linux has."""
        return self._files.addresses()

    def read_machine(self) -> list[RawFunction]:
        return [self._with_registers(raw) for raw in self._files.read_machine()]

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        raw = self._files.read_function(sbdf)
        return self._with_registers(raw) if raw is not None else None

    def acpi_tables(self) -> list[bytes]:
        return self._files.acpi_tables()

    def memory(self) -> MemoryReading:
        return self._files.memory()

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        """Read a register.

        Raises: NoSuchDeviceError where Linux does not have the function.
        """
        raw = self.read_function(sbdf)
        if raw is None:
            raise NoSuchDeviceError(str(sbdf))
        return int.from_bytes((raw.config or b"")[register.offset :][: register.size], "little")

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        self._write(sbdf, register.offset, register.size, value)

    def _with_registers(self, raw: RawFunction) -> RawFunction:
        if raw.config is None:
            return raw
        size = len(raw.config)
        return attrs.evolve(raw, config=(self._hardware.config(raw.sbdf) or b"\xff" * size)[:size])
