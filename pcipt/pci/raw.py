"""What an edge read of one function; `function` gives it meaning."""

import zlib

import attrs

from pcipt.pci.address import Sbdf
from pcipt.pci.bars import UNUSED, VF_BAR_INDEX, Resource
from pcipt.pci.config import HEADER_SIZE
from pcipt.pci.finding import Finding
from pcipt.pci.ids import UNKNOWN_IDS, Ids

_WINDOW, _LITTLE = -12, 1  # raw deflate within 4 KiB and little memory: 3 to 8 microseconds


class _Packed(bytes):
    """Config space compressed: machines have thousands of functions, and of each 4 KiB are mostly zeros."""

    __slots__ = ()


def _pack(config: bytes | None) -> bytes | None:
    if config is None or isinstance(config, _Packed) or len(config) <= HEADER_SIZE:
        return config
    packer = zlib.compressobj(1, zlib.DEFLATED, _WINDOW, _LITTLE)
    return _Packed(packer.compress(config) + packer.flush())


def _trim(resources: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """Leave out the lines behind the ROM's where all of them are unused."""
    behind = resources[VF_BAR_INDEX:]
    return resources[:VF_BAR_INDEX] if behind and behind.count(UNUSED) == len(behind) else resources


@attrs.frozen
class RawFunction:
    """What an edge read of one function, not yet interpreted; None is what it could not read.

    `parent`, `root_bus` and `secondary` are Linux's: the bridge above, the root bus where there is none, and
    the bus number below, from the names of sysfs directories: `secondary_bus_number` is the register.
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

    @property
    def config(self) -> bytes | None:
        held = self._config
        return zlib.decompress(held, _WINDOW) if isinstance(held, _Packed) else held
