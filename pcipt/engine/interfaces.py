"""What the engine needs of the world: a host (live, recorded, made up by a test) and a store."""

from collections.abc import Sequence
from typing import Protocol

from pcipt.firmware.coverage import BootSnapshot
from pcipt.host.iomem import MemoryReading
from pcipt.pci import Finding, RawFunction, Sbdf
from pcipt.pci.config import Register
from pcipt.remap.ledger import Ledger
from pcipt.remap.steps import Step


class Host(Protocol):
    """dom0's Linux. Reading the machine never raises for what a device or a file does."""

    @property
    def boot_id(self) -> str:
        """What distinguishes this boot from every other."""

    def addresses(self) -> list[Sbdf]:
        """List the addresses of all functions that Linux has."""

    def read_machine(self) -> list[RawFunction]:
        """Read every function, with all of its config space that may be read."""

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        """Read one function again; None if Linux does not have it."""

    def acpi_tables(self) -> list[bytes]:
        """Read the ACPI tables that dom0 can see: DMAR (also as RMAD or XMAR), IVRS, APIC, MCFG, HPET."""

    def memory(self) -> MemoryReading:
        """Read the memory maps.

        Raises: PciptError where none can be read.
        """

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        """Read a register through sysfs `config`.

        Raises: PciptError, as `write_register` does.
        """

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        """Write one of the registers WRITABLE through sysfs `config`, never through ports."""


class Settings(Protocol):
    """What the administrator lets pcipt do."""

    def performs(self, word: str) -> bool:
        """Return True if actions of this word are performed, not only planned."""


class Store(Protocol):
    """Where ledger, boot snapshot and seen mappings are kept. Every method that writes returns once it is on
    disk.

    Raises: OSError where it cannot be written.
    """

    def load(self, boot_id: str) -> tuple[Ledger, BootSnapshot | None, list[Finding]]: ...

    def append(self, steps: Sequence[Step]) -> None: ...

    def save(self, ledger: Ledger) -> None: ...

    def save_mappings(self, ledger: Ledger) -> None: ...

    def save_snapshot(self, snapshot: BootSnapshot) -> None: ...

    def close(self) -> None: ...
