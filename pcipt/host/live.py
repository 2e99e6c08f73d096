"""Provide the host interface of the engine for the Linux of one root.

Only the files of the closed list in `files` are read.
"""

from pcipt.host import control, files, sysfs
from pcipt.host.iomem import MemoryReading, read_memory
from pcipt.host.log.kmsg import KernelLog
from pcipt.host.machine_files import read_listed
from pcipt.host.toolstack import Toolstack
from pcipt.pci import RawFunction, Sbdf
from pcipt.pci.config import Register
from pcipt.pci.notation.kernel_log import LogReading

RELEASE = "proc/sys/kernel/osrelease"
BOOT_ID = "proc/sys/kernel/random/boot_id"
ACPI_TABLES = ("DMAR", "RMAD", "XMAR", "IVRS", "APIC", "MCFG", "HPET", "FACP")


class LinuxHost:
    """The Linux below the directory `root`, with the methods that the engine needs.

    `/` is the running Linux.
    """

    def __init__(self, root: str = "/") -> None:
        self._root = root
        self._toolstack = Toolstack(root)
        self._log = KernelLog() if root == "/" else None

    @property
    def boot_id(self) -> str:
        """Return the kernel's random id of this boot, or an empty text if it cannot be read."""
        return (read_listed(self._root, BOOT_ID) or b"").decode("ascii", "replace").strip()

    @property
    def release(self) -> str:
        """Return the release of the kernel, or an empty text if it cannot be read."""
        return (read_listed(self._root, RELEASE) or b"").decode("ascii", "replace").strip()

    def addresses(self) -> list[Sbdf]:
        """Return the addresses of all functions, sorted, without reading any file of them.

        Raises: InputError if sys/bus/pci/devices cannot be listed.
        """
        return sysfs.read_addresses(self._root)

    def read_machine(self) -> list[RawFunction]:
        """Read all functions completely, in the order of their directory paths.

        A function that cannot be read has findings that say so.
        Raises: InputError if sys/bus/pci/devices cannot be listed.
        """
        return sysfs.read_machine(self._root)

    def read_function(self, sbdf: Sbdf) -> RawFunction | None:
        """Read one function completely, or return None if Linux does not list it.

        A function that is listed but cannot be read has findings that say so.
        Raises: InputError if sys/bus/pci/devices is missing.
        """
        return sysfs.read_function(self._root, sbdf)

    def acpi_tables(self) -> list[bytes]:
        """Return the bytes of the tables in `ACPI_TABLES`, in this order. Raises nothing.

        Tables that are missing, empty or cannot be read are left out.
        """
        found = (read_listed(self._root, f"{files.TABLES}/{name}") for name in ACPI_TABLES)
        return [table for table in found if table]

    def memory(self) -> MemoryReading:
        """Read /proc/iomem and the firmware's memory map.

        Raises: NotPermittedError if the root is `/` and the kernel hides the addresses; InputError if there
                is no usable map.
        """
        return read_memory(self._root)

    def read_register(self, sbdf: Sbdf, register: Register) -> int:
        """Return the value of one register of a function.

        If Linux lists the function and the device does not answer, all bits of the value are one, and nothing
        is raised.
        Raises: NoSuchDeviceError if Linux does not list the function; NotPermittedError if permission is
                refused; InputError for every other failure.
        """
        return control.read_register(self._root, sbdf, register)

    def write_register(self, sbdf: Sbdf, register: Register, value: int) -> None:
        """Write one register of a function. It is not read back.

        Raises: ValueError if the register is not in `WRITABLE` or the value does not fit in it;
                NoSuchDeviceError if Linux does not list the function; NotPermittedError if permission is
                refused; InputError for every other failure.
        """
        control.write_register(self._root, sbdf, register, value)

    def probe(self, sbdf: Sbdf) -> None:
        """Let Linux find a driver for a function; see `Toolstack.start_probe`. Raises: InputError."""
        self._toolstack.start_probe(sbdf)

    def guarded_ports(self) -> frozenset[Sbdf] | None:
        """Return the list of slots of xen-pciback; see `Toolstack.guarded_ports`. Raises: InputError."""
        return self._toolstack.guarded_ports()

    def is_usb4_port(self, sbdf: Sbdf) -> bool:
        """Return True if a port belongs to a USB4 host interface; see `Toolstack.is_usb4_port`."""
        return self._toolstack.is_usb4_port(sbdf)

    def guard_port(self, sbdf: Sbdf, *, on: bool) -> None:
        """Put a port into that list, or take it out; see `Toolstack.guard_port`. Raises: InputError."""
        self._toolstack.guard_port(sbdf, on=on)

    def quarantine(self, sbdf: Sbdf) -> None:
        """Let xl quarantine a function; see `Toolstack.start_give`.

        Raises: InputError, UnsupportedError.
        """
        self._toolstack.start_give(sbdf)

    def read_log(self) -> LogReading | None:
        """Read the lines of the kernel's log that are new since the last call; None for a recorded root."""
        return self._log.read() if self._log is not None else None
