"""Devices whose isolation Linux judges by a list and not by their ACS registers; requester ids that lie.

Facts only, of devices that can be in an x86 machine. A row needs the vendor's statement or the kernel's
commit that names the device.
Source: linux 6.18 drivers/pci/quirks.c: pci_dev_acs_enabled, pci_quirk_intel_pch_acs_ids,
        pci_quirk_intel_spt_pch_acs_match, pci_dev_acs_ops; quirk_dma_func0_alias, quirk_dma_func1_alias,
        fixed_dma_alias_tbl, quirk_mic_x200_dma_alias, quirk_pex_vca_alias, quirk_plx_ntb_dma_alias,
        quirk_use_pcie_bridge_dma_alias. The ids of quirk_switchtec_ntb_dma_alias are in registers behind the
        device's BAR. arch/x86/kernel/pci-dma.c: a PV dom0 asks for ACS (pci_xen_swiotlb_init); a PVH dom0
        would ask if it had DMAR or IVRS, which Xen hides.
"""

import enum

from pcipt import values as attrs
from pcipt.pci import Function
from pcipt.pci.requester import PCIE_TO_PCI

Ids = frozenset[int]

_INTEL, _AMD, _ATI = 0x8086, 0x1022, 0x1002
_ROOT_PORT, _DOWNSTREAM, _ROOT_COMPLEX_ENDPOINT = 0x4, 0x6, 0x9


class Separation(enum.Enum):
    """How a listed device separates its functions or ports.

    CLOSED: it forwards nothing between them, by the vendor's word. SOUTHBRIDGE: the same, of functions on a
    root bus of an AMD machine that has an IOMMU. BY_LINUX: the same, once Linux has written registers that no
    config space has. WIDE: it has ACS, and its control register lies two bytes after the place that the
    specification names. Under Xen, Linux sets up the last two kinds in a PV dom0 only, and Xen never does.
    """

    CLOSED = "closed"
    BY_LINUX = "by linux"
    SOUTHBRIDGE = "southbridge"
    WIDE = "wide"


@attrs.frozen
class AcsQuirk:
    """One row: devices of a vendor (`devices` None: all) with one of the port types (`types` None: any)."""

    separation: Separation
    vendor: int
    devices: Ids | None
    types: Ids | None = None


def _ids(*parts: int | tuple[int, int]) -> Ids:
    """Return the ids of `parts`: single ones, and ranges (first, last)."""
    found: set[int] = set()
    for part in parts:
        found.update(range(part[0], part[1] + 1) if isinstance(part, tuple) else (part,))
    return frozenset(found)


# Intel's network cards whose functions do not reach each other.
_INTEL_CARDS = _ids(
    0x105E, 0x105F, 0x1060, 0x10A7, 0x10A9, 0x10C6, 0x10C9, 0x10D6, 0x10D9, 0x10DB, 0x10DD, 0x10E1,
    (0x10E6, 0x10E8), 0x10F1, (0x10F7, 0x10FC), 0x1507, 0x1509, 0x150A, (0x150D, 0x1511), 0x1514, 0x1516,
    0x1518, 0x151C, (0x1521, 0x1524), (0x1526, 0x1527), (0x1529, 0x152A), 0x154D, 0x154F, 0x1551, 0x1558,
    0x15B7, 0x15B8,
)  # fmt: skip
# Root ports of Intel chipsets without ACS; Linux closes the ways between them when it enables ACS.
_INTEL_PORTS = _ids(
    (0x3B42, 0x3B51), (0x1C10, 0x1C1F), (0x1E10, 0x1E1F), (0x8C10, 0x8C1F), (0x9C10, 0x9C1B),
    (0x9C90, 0x9C9B), 0x1D10, 0x1D12, 0x1D14, 0x1D16, 0x1D18, 0x1D1A, 0x1D1C, 0x1D1E, (0x8D10, 0x8D1E),
    0x8C90, 0x8C92, 0x8C94, 0x8C96, 0x8C98, 0x8C9A, 0x8C9C, 0x8C9E,
)  # fmt: skip
_INTEL_WIDE = _ids((0xA110, 0xA11F), (0xA167, 0xA16A), (0xA290, 0xA29F), (0xA2E7, 0xA2EE), (0x9D10, 0x9D1B))
_PORTS = frozenset({_ROOT_PORT, _DOWNSTREAM})
_ROOT_PORTS = frozenset({_ROOT_PORT})

ACS_QUIRKS: tuple[AcsQuirk, ...] = (
    AcsQuirk(Separation.SOUTHBRIDGE, _ATI, _ids((0x4383, 0x4385), 0x4399, (0x439C, 0x439D))),
    AcsQuirk(Separation.SOUTHBRIDGE, _AMD, _ids(0x7809, 0x780F)),
    AcsQuirk(Separation.CLOSED, _INTEL, _INTEL_CARDS),
    AcsQuirk(Separation.CLOSED, _INTEL, None, frozenset({_ROOT_COMPLEX_ENDPOINT})),  # VT-d 4.1 §3.16
    AcsQuirk(Separation.BY_LINUX, _INTEL, _INTEL_PORTS, _ROOT_PORTS),
    AcsQuirk(Separation.WIDE, _INTEL, _INTEL_WIDE, _ROOT_PORTS),
    AcsQuirk(Separation.CLOSED, 0x1924, _ids(0x0903, 0x0923, 0x0A03)),  # Solarflare
    AcsQuirk(Separation.CLOSED, 0x19A2, _ids(0x0710)),  # Emulex BE3-R
    AcsQuirk(Separation.CLOSED, 0x10DF, _ids(0x0720)),  # Emulex Skyhawk-R
    AcsQuirk(Separation.CLOSED, 0x177D, _ids(0xA026, 0xA059, 0xA060)),  # Cavium
    AcsQuirk(Separation.CLOSED, 0x14E4, _ids(0x16D7, (0x1750, 0x1752), (0x1760, 0x1763))),  # Broadcom
    AcsQuirk(Separation.CLOSED, 0x1D17, _ids(0x3038, 0x3104, 0x9083)),  # Zhaoxin
    AcsQuirk(Separation.CLOSED, 0x1D17, _ids((0x0710, 0x071E), 0x0721, (0x0723, 0x0752)), _PORTS),
    AcsQuirk(
        Separation.CLOSED,
        0x8088,  # Wangxun
        _ids((0x0100, 0x010F), 0x1001, 0x2001, 0x5010, 0x5025, 0x5040, 0x5110, 0x5125, 0x5140),
    ),
)


class Alias(enum.Enum):
    """The requester id that a device uses for DMA, either in place of its own id or beside its own id.

    FUNCTION_0, FUNCTION_1: that function number of its own device. OTHER_DEVICE: other device numbers of its
    bus, which Xen's option pci-phantom= cannot name.
    """

    FUNCTION_0 = "function 0"
    FUNCTION_1 = "function 1"
    OTHER_DEVICE = "other device"


@attrs.frozen
class AliasQuirk:
    """One row: devices of one vendor that use other requester ids than their own. `devfns` are these ids for
    OTHER_DEVICE, each as device number << 3 | function number. `subsystems` are pairs (vendor, device): the
    row holds only for cards with one of these subsystem ids; it holds for all cards if there are none.
    """

    alias: Alias
    vendor: int
    devices: Ids
    devfns: tuple[int, ...] = ()
    subsystems: frozenset[tuple[int, int]] = frozenset()


_MARVELL = _ids(
    0x9120, 0x9123, 0x9125, 0x9128, 0x9130, 0x9170, 0x9172, 0x917A, 0x9182, 0x9183, 0x91A0, 0x9215, 0x9220,
    0x9230, 0x9235,
)  # fmt: skip

ALIAS_QUIRKS: tuple[AliasQuirk, ...] = (
    AliasQuirk(Alias.FUNCTION_0, 0x1180, _ids(0xE832, 0xE476)),  # Ricoh
    AliasQuirk(Alias.FUNCTION_0, 0x6766, _ids(0x3D40, 0x3D41)),  # Glenfly
    AliasQuirk(Alias.FUNCTION_1, 0x1B4B, _MARVELL),
    AliasQuirk(Alias.FUNCTION_1, 0x1103, _ids(0x0642, 0x0645)),  # HighPoint RocketRAID
    AliasQuirk(Alias.FUNCTION_1, 0x197B, _ids(0x2392)),  # JMicron JMB388
    AliasQuirk(Alias.FUNCTION_1, 0x1C28, _ids(0x0122)),  # Plextor M6e
    AliasQuirk(
        Alias.OTHER_DEVICE, 0x9005, _ids(0x0285), (0x08,), frozenset({(0x9005, 0x02BB), (0x9005, 0x02BC)})
    ),  # Adaptec 3405, 3805
    AliasQuirk(Alias.OTHER_DEVICE, _INTEL, _ids(0x2260, 0x2264), (0x80, 0x88, 0x93)),  # Xeon Phi x200
    AliasQuirk(
        Alias.OTHER_DEVICE,
        _INTEL,
        _ids((0x2954, 0x2956), (0x2958, 0x295A)),  # Visual Compute Accelerator
        tuple(slot << 3 | number for slot in range(32) for number in range(5)),
    ),
    AliasQuirk(Alias.OTHER_DEVICE, 0x10B5, _ids(0x87B0, 0x87B1), tuple(range(256))),  # PLX, two hosts' bridge
)


# Bridges from PCI Express to conventional PCI that may lack the capability that says so: (vendor, device).
HIDDEN_EXPRESS = frozenset({
    (0x1B21, 0x1080),  # ASMedia ASM1083
    (0x10E3, 0x8113),  # Tundra Tsi381
    (0x1283, 0x8892), (0x1283, 0x8893),  # ITE
    (_INTEL, 0x244E),  # Intel 82801, behind a port
})  # fmt: skip


def hides_express(bridge: Function, above: Function | None) -> bool:
    """Return True if the bridge has a PCI Express link and no capability that shows this link.

    `above` is the bridge directly above it, None on a root bus. The capabilities of both must have been read.
    """
    return (
        (bridge.ids.vendor, bridge.ids.device) in HIDDEN_EXPRESS
        and bridge.bridge is not None
        and bridge.express is None
        and above is not None
        and above.express is not None
        and above.express.port_type != PCIE_TO_PCI
    )


def acs_quirk(function: Function) -> AcsQuirk | None:
    """Return the first row of `ACS_QUIRKS` for the function, or None."""
    port = function.express.port_type if function.express is not None else None
    for row in ACS_QUIRKS:
        if (
            row.vendor == function.ids.vendor
            and (row.devices is None or function.ids.device in row.devices)
            and (row.types is None or port in row.types)
        ):
            return row
    return None


def alias_quirk(function: Function) -> AliasQuirk | None:
    """Return the row of `ALIAS_QUIRKS` for the function, or None.

    A function that has the requester id of the row itself (function 1 of FUNCTION_1) has none.
    """
    ids, number = function.ids, function.sbdf.function
    for row in ALIAS_QUIRKS:
        if row.vendor != ids.vendor or ids.device not in row.devices:
            continue
        if row.subsystems and (ids.subsystem_vendor, ids.subsystem_device) not in row.subsystems:
            continue
        own = {Alias.FUNCTION_0: 0, Alias.FUNCTION_1: 1}.get(row.alias)
        return row if own != number else None
    return None


def alias_devfns(function: Function) -> tuple[int, ...]:
    """Return the other requester ids that the function uses on its bus, each as device << 3 | function."""
    row = alias_quirk(function)
    if row is None:
        return ()
    if row.alias is Alias.OTHER_DEVICE:
        return tuple(devfn for devfn in row.devfns if devfn != function.sbdf.devfn)
    return (function.sbdf.device << 3 | (row.alias is Alias.FUNCTION_1),)
