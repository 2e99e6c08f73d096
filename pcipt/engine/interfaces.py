"""Interfaces that the engine uses: a host (live, recorded, or made up by a test), settings, store, policy."""

from collections.abc import Sequence
from typing import Protocol

from pcipt.firmware.coverage import BootSnapshot
from pcipt.host.iomem import MemoryReading
from pcipt.pci import Finding, PciPath, RawFunction, Sbdf
from pcipt.pci.config import Register
from pcipt.pci.notation.kernel_log import LogReading
from pcipt.remap.actions import Action
from pcipt.remap.ledger import Ledger
from pcipt.remap.steps import AnyStep


class Host(Protocol):
    """Linux in dom0: the engine reads functions, registers and tables from it, and writes registers to it.

    `read_machine` and `read_function` raise no error: facts that cannot be read are missing in the result.
    """

    @property
    def boot_id(self) -> str:
        """Return a text that no other boot has; empty if the kernel does not tell it."""

    @property
    def release(self) -> str:
        """Return the release of dom0's Linux, such as 6.1.0-18-amd64; empty if it is not known."""

    def addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions that Linux has; no function is read."""

    def read_machine(self) -> list[RawFunction]:
        """Read every function, with all of its config space that may be read."""

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        """Read one function again; return None if Linux does not have it."""

    def acpi_tables(self) -> list[bytes]:
        """Return the ACPI tables that dom0 can see: DMAR (or RMAD, XMAR), IVRS, APIC, MCFG, HPET, FACP."""

    def memory(self) -> MemoryReading:
        """Read the memory maps of Linux and of the firmware.

        Raises: PciptError if none can be read.
        """

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        """Read a register of a function through sysfs `config`.

        Raises: PciptError if Linux does not have the function, or the register cannot be read.
        """

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        """Write one of the registers WRITABLE of a function through sysfs `config`, never through ports.

        Raises: PciptError if Linux does not have the function, or the register cannot be written.
        """

    def probe(self, sbdf: Sbdf) -> None:
        """Let Linux find a driver for a function that has none, without waiting for the result.

        Raises: PciptError if Linux cannot be asked.
        """

    def guarded_ports(self) -> frozenset[Sbdf] | None:
        """Read the list of slots of xen-pciback; return None if it is not loaded.

        Raises: PciptError if it cannot be read.
        """

    def is_usb4_port(self, sbdf: Sbdf) -> bool:
        """Return True if Linux has linked a port with a USB4 host interface: devices are tunnelled to it."""

    def guard_port(self, sbdf: Sbdf, *, on: bool) -> None:
        """Put an address into the list of slots of xen-pciback, or take it out.

        Raises: PciptError if that fails.
        """

    def quarantine(self, sbdf: Sbdf) -> None:
        """Let xl give a function to xen-pciback and quarantine it, without waiting for the result.

        Raises: PciptError if xl cannot be started, or did not end yet or failed when it was started last.
        """

    def read_log(self) -> LogReading | None:
        """Read the lines of the kernel's log that are new since the last call: all of them at the first one.

        Return None if this host has no log.
        """


class Settings(Protocol):
    """What the administrator lets pcipt do."""

    def performs(self, word: str) -> bool:
        """Return True if actions of this word are performed, not only planned."""

    def probes(self) -> bool:
        """Return True if Linux is asked to find a driver for a function that Xen was told of late."""

    @property
    def ports(self) -> tuple[PciPath, ...]:
        """The ports below which what appears is quarantined (hotplug.below)."""

    @property
    def owners_s(self) -> int:
        """The seconds between two questions to Xen about owners that change without a message."""

    @property
    def list_s(self) -> int:
        """The seconds between two questions to Xen if no owner changes without a message; 0: never."""

    @property
    def faults_s(self) -> int:
        """The seconds between two readings of Xen's console for refused DMA; 0: by no timer."""

    @property
    def restore_on_fault(self) -> bool:
        """True if a region that was withdrawn is restored when DMA of a device of dom0 to it is refused."""


class Store(Protocol):
    """The files that hold ledger, boot snapshot and seen mappings.

    A method that writes a file returns when the data is on disk.
    """

    def load(self, boot_id: str) -> tuple[Ledger, BootSnapshot | None, list[Finding]]:
        """Read all files. A file that is damaged or was made in another boot counts as missing.

        Shape:  the ledger (empty if there is none), the boot snapshot (None if there is none), findings of
                damage.
        Raises: OSError if a file exists and cannot be read, or if a damaged file cannot be renamed.
        """

    def append(self, steps: Sequence[AnyStep]) -> None:
        """Append steps to the ledger's file. Raises: OSError if they are not on disk."""

    @property
    def is_long(self) -> bool:
        """True if so many steps were appended that the ledger is to be written as a whole."""

    def save(self, ledger: Ledger) -> None:
        """Write the ledger as a whole. Raises: OSError; the former file is then unchanged."""

    def save_mappings(self, ledger: Ledger) -> None:
        """Write the pages that vPCI was seen to map. Raises: OSError; the former file is then unchanged."""

    def save_snapshot(self, snapshot: BootSnapshot) -> None:
        """Write the boot snapshot. Raises: OSError; the former file is then unchanged."""

    def close(self) -> None:
        """Close the files."""


class Policy(Protocol):
    """What performer and reconciliation ask of the service that they work for."""

    def allows(self, action: Action) -> bool:
        """Return True if the settings let this action be performed, not only planned."""

    def stopping(self) -> bool:
        """Return True if no further action may begin."""

    def now(self) -> str:
        """Return the time (UTC, RFC 3339)."""

    def collect(self) -> None:
        """Put the messages that have arrived into the queue."""

    @property
    def settings(self) -> Settings:
        """The settings that hold now."""
