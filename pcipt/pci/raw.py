"""Hold the data that was read of one function, before `function` decodes it."""

import enum
import zlib
from functools import lru_cache

from pcipt import values as attrs
from pcipt.pci.address import Sbdf
from pcipt.pci.bars import UNUSED, VF_BAR_INDEX, Bar, Resource
from pcipt.pci.bridge import Bridge
from pcipt.pci.config import HEADER_SIZE
from pcipt.pci.finding import Finding
from pcipt.pci.ids import UNKNOWN_IDS, Ids

_WINDOW, _MEMORY_LEVEL = -12, 1  # zlib: raw deflate, window 4 KiB, least memory; takes 3 to 8 microseconds


class _Packed(bytes):
    """Compressed config space.

    It is compressed because a machine can have thousands of functions, and most of their 4 KiB are zeros.
    """

    __slots__ = ()


def _pack(config: bytes | None) -> bytes | None:
    """Return config space compressed if it has more than 64 bytes, else unchanged. Bytes that are compressed
    already are returned unchanged.
    """
    if config is None or isinstance(config, _Packed) or len(config) <= HEADER_SIZE:
        return config
    return _compressed(config)


@lru_cache(maxsize=8)  # around an action the same registers are read several times
def _compressed(config: bytes) -> _Packed:
    """Return config space compressed."""
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW, _MEMORY_LEVEL)
    return _Packed(packer.compress(config) + packer.flush())


@lru_cache(maxsize=8)
def _unpacked(packed: _Packed) -> bytes:
    """Return compressed config space as it was."""
    return zlib.decompress(packed, _WINDOW)


def _trim(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Return `resources` without the lines after the ROM's line (line 6) if all lines after it are unused;
    else return `resources` unchanged.
    """
    behind = resources[VF_BAR_INDEX:]
    return resources[:VF_BAR_INDEX] if behind and behind.count(UNUSED) == len(behind) else resources


@attrs.frozen
class Told:
    """What the words of lspci tell of a function whose registers were not read; None is not told.

    `title` is lspci's heading: class, vendor and device in words, with numbers if lspci printed them.
    `command` is the command register. `bridge` are the bus numbers and the open windows of a bridge. `bars`
    are the BARs and the ROM in index order, with Linux's addresses. `silent` is True if the words show that
    the registers read all ones.
    """

    title: str = ""
    command: int | None = None
    bridge: Bridge | None = None
    bars: tuple[Bar, ...] = ()
    silent: bool = False


@attrs.frozen
class RawFunction:
    """The data that was read of one function, not decoded. None means that it could not be read or does not
    exist.

    `config` is the config space from offset 0 on and may be short. `resources` are the lines of sysfs
    `resource`. `ids` and `driver` are Linux's. `physfn` is the physical function of a virtual function.
    `findings` tell about problems of the reading.

    Three fields are Linux's view, taken from the names of sysfs directories. `parent` is the bridge directly
    above. `root_bus` is the number of the root bus, if there is no bridge above. `secondary` is the number of
    the bus below a bridge. (The sysfs file `secondary_bus_number` is not Linux's view: it reads the
    register.) If `parent` and `root_bus` are both None, Linux's view is unknown. `controller` is the function
    of another segment below which Linux has this function's root bus (a VMD controller); None if there is
    none, and for a function behind a bridge. `told` is set only for a function without `config`, of which
    there are lspci's words. `instance` is the number of its directory in a live sysfs: a function that came
    to the address later has another one, in the same boot.
    """

    sbdf: Sbdf
    _config: bytes | None = attrs.field(default=None, converter=_pack)
    resources: tuple[Resource, ...] = attrs.field(default=(), converter=_trim)
    ids: Ids = UNKNOWN_IDS
    driver: str | None = None
    numa_node: int | None = None
    physfn: Sbdf | None = None
    parent: Sbdf | None = None
    root_bus: int | None = None
    secondary: int | None = None
    findings: tuple[Finding, ...] = ()
    controller: Sbdf | None = None
    told: Told | None = None
    instance: int | None = None

    @property
    def config(self) -> bytes | None:
        """Return the bytes of config space that were read, or None. They are decompressed when asked for."""
        held = self._config
        return _unpacked(held) if isinstance(held, _Packed) else held


@attrs.frozen
class LinuxFacts:
    """Reset methods, IOMMU group and boot display of a function; None is unknown.

    `reset_methods` is empty if Linux has no way to reset the function. `iommu_group` is None under Xen,
    because Linux has no IOMMU groups there. `boot_vga` is True if the firmware used this function as the
    display at boot.
    """

    reset_methods: tuple[str, ...] | None = None
    iommu_group: int | None = None
    boot_vga: bool | None = None


class UseKind(enum.Enum):
    """What dom0 uses a function for. DISK and INTERFACE are there; the others are in use now."""

    DISK = "disk"
    MOUNT = "mount"
    SWAP = "swap"
    INTERFACE = "interface"
    ROUTE = "default-route"
    SSH = "ssh"


@attrs.frozen
class Use:
    """One thing that dom0 loses with a function.

    `name` is a disk, the directory of a mount, a swap device, or a network interface. `through` is the device
    or interface above it that is really mounted or routed (a partition, a bridge xenbr0); empty if it is
    `name` itself.
    """

    kind: UseKind
    name: str
    through: str = ""

    @property
    def active(self) -> bool:
        """Return True if dom0 uses it now."""
        return self.kind not in (UseKind.DISK, UseKind.INTERFACE)
