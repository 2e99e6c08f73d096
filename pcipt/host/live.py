"""The Linux of one root as the engine wants a host; it reads by the closed list of files."""

from pcipt.host import control, files, sysfs
from pcipt.host.iomem import MemoryReading, read_memory
from pcipt.host.machine_files import read_listed
from pcipt.pci import RawFunction, Sbdf
from pcipt.pci.config import Register

BOOT_ID = "proc/sys/kernel/random/boot_id"
ACPI_TABLES = ("DMAR", "RMAD", "XMAR", "IVRS", "APIC", "MCFG", "HPET")


class LinuxHost:
    """A host below `root`; `/` is the running one."""

    def __init__(self, root: str = "/") -> None:
        self._root = root

    @property
    def boot_id(self) -> str:
        """What distinguishes this boot; empty where the kernel does not tell."""
        return (read_listed(self._root, BOOT_ID) or b"").decode("ascii", "replace").strip()

    def read_machine(self) -> list[RawFunction]:
        return sysfs.read_machine(self._root)

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        return sysfs.read_function(self._root, sbdf)

    def acpi_tables(self) -> list[bytes]:
        found = (read_listed(self._root, f"{files.TABLES}/{name}") for name in ACPI_TABLES)
        return [table for table in found if table]

    def memory(self) -> MemoryReading:
        return read_memory(self._root)

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        return control.read_register(self._root, sbdf, register)

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        control.write_register(self._root, sbdf, register, value)
