"""The Linux of one root as the engine wants a host; it reads by the closed list of files."""

from pcipt.host import control, files, sysfs
from pcipt.host.machine_files import read_listed
from pcipt.pci import RawFunction, Sbdf

BOOT_ID = "proc/sys/kernel/random/boot_id"
IOMMU_TABLES = ("DMAR", "RMAD", "XMAR", "IVRS")


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

    def iommu_tables(self) -> list[bytes]:
        found = (read_listed(self._root, f"{files.TABLES}/{name}") for name in IOMMU_TABLES)
        return [table for table in found if table]

    def read_command(self, sbdf: Sbdf) -> int:
        return control.read_command(self._root, sbdf)

    def write_command(self, sbdf: Sbdf, value: int) -> None:
        control.write_command(self._root, sbdf, value)
