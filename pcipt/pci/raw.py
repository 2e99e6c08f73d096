"""What an edge read of one function; `function` gives it meaning."""

import attrs

from pcipt.pci.address import Sbdf
from pcipt.pci.bars import Resource
from pcipt.pci.finding import Finding
from pcipt.pci.ids import UNKNOWN_IDS, Ids


@attrs.frozen
class RawFunction:
    """What an edge read of one function, not yet interpreted; None is what it could not read.

    `parent`, `root_bus` and `secondary` are Linux's: the bridge above, the root bus where there is none, and
    the bus number below, from the names of sysfs directories and `secondary_bus_number`.
    """

    sbdf: Sbdf
    config: bytes | None = None
    resources: tuple[Resource, ...] = ()
    ids: Ids = UNKNOWN_IDS
    driver: str | None = None
    numa_node: int | None = None
    physfn: Sbdf | None = None
    parent: Sbdf | None = None
    root_bus: int | None = None
    secondary: int | None = None
    findings: tuple[Finding, ...] = ()
