"""What the engine needs of the world: a host (live, recorded, made up by a test) and a keeper."""

from typing import Protocol

from pcipt.firmware.coverage import BootSnapshot
from pcipt.pci import Finding, RawFunction, Sbdf
from pcipt.remap.ledger import Ledger


class Host(Protocol):
    """dom0's Linux. Reading the machine never raises for what a device or a file does."""

    @property
    def boot_id(self) -> str:
        """What distinguishes this boot from every other."""

    def read_machine(self) -> list[RawFunction]:
        """Read every function, with all of its config space that may be read."""

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        """Read one function again; None if Linux does not have it."""

    def iommu_tables(self) -> list[bytes]:
        """Read the DMAR (also as RMAD or XMAR) and IVRS tables that dom0 can see; none on PVH."""

    def read_command(self, sbdf: Sbdf) -> int:
        """Read the command register through sysfs `config`.

        Raises: PciptError, as `write_command` does.
        """

    def write_command(self, sbdf: Sbdf, value: int) -> None:
        """Write the command register through sysfs `config`, never through ports."""


class Keeper(Protocol):
    """Where the ledger and the boot snapshot live. `save` returns when they are on disk."""

    def load(self, boot_id: str) -> tuple[Ledger, BootSnapshot | None, list[Finding]]: ...

    def save(self, ledger: Ledger) -> None: ...

    def save_snapshot(self, snapshot: BootSnapshot) -> None: ...
