"""List every file that pcipt reads of a machine. `pcipt record` copies exactly the same files.

Reader and recorder both use these tables, so they cannot differ. No file here may contain a secret: no kernel
command line (passwords), no MSDM or SLIC table (licence keys), no VPD or UUID (serial numbers).

Units:  `limit` is in bytes. A longer file is reported, and not read completely.
Source: linux Documentation/ABI/testing/sysfs-bus-pci; drivers/pci/pci-sysfs.c (one page per attribute).
"""

import enum
from collections.abc import Mapping

from pcipt import values as attrs

PAGE = 4096  # a sysfs attribute has at most one page and must be read with one call
DEVICES = "sys/bus/pci/devices"
GROUPS = "sys/kernel/iommu_groups"
TABLES = "sys/firmware/acpi/tables"
MAX_FUNCTIONS = 1 << 18  # four full segments; a tree with more is malicious or damaged


#: What was read of a directory, by file name: the content, or the text of a link; None if it is missing.
Contents = Mapping[str, bytes | None]


class Kind(enum.Enum):
    """The kind of a file: text, binary data or symbolic link."""

    TEXT = "text"
    BINARY = "binary"
    LINK = "link"


class Depth(enum.Enum):
    """How much of a function is read. Reading less disturbs a sleeping device less.

    GLANCE reads vendor, device, class and the first 64 bytes of `config` (the header). HEADER reads
    everything except the bytes of `config` after the first 64. FULL reads everything.
    """

    GLANCE = "glance"
    HEADER = "header"
    FULL = "full"


@attrs.frozen
class Entry:
    """One file: its name in its directory (or its path below the root), its kind and its size limit in bytes.

    If a file that is `needed` is missing, the function gets a finding.
    """

    name: str
    kind: Kind
    limit: int
    needed: bool = False


CONFIG = Entry("config", Kind.BINARY, PAGE)  # not `needed`: if it is missing, the decoder makes a finding
RESOURCE = Entry("resource", Kind.TEXT, PAGE, needed=True)
VENDOR = Entry("vendor", Kind.TEXT, 32, needed=True)
DEVICE = Entry("device", Kind.TEXT, 32, needed=True)
CLASS = Entry("class", Kind.TEXT, 32, needed=True)
REVISION = Entry("revision", Kind.TEXT, 32)  # since Linux 4.10
SUBSYSTEM_VENDOR = Entry("subsystem_vendor", Kind.TEXT, 32)
SUBSYSTEM_DEVICE = Entry("subsystem_device", Kind.TEXT, 32)
NUMA_NODE = Entry("numa_node", Kind.TEXT, 32)
SECONDARY_BUS = Entry("secondary_bus_number", Kind.TEXT, 32)  # bridges, since Linux 4.20; shows the register
BUSES_BELOW = "pci_bus"  # a directory of a bridge; the name in it has Linux's number of the bus below
SUBORDINATE_BUS = Entry("subordinate_bus_number", Kind.TEXT, 32)
DRIVER = Entry("driver", Kind.LINK, PAGE)
PHYSFN = Entry("physfn", Kind.LINK, PAGE)
IOMMU_GROUP = Entry("iommu_group", Kind.LINK, PAGE)
RESET_METHOD = Entry("reset_method", Kind.TEXT, 256)  # since Linux 5.15
ARI_ENABLED = Entry("ari_enabled", Kind.TEXT, 32)
ENABLE = Entry("enable", Kind.TEXT, 32)
BOOT_VGA = Entry("boot_vga", Kind.TEXT, 32)
IRQ = Entry("irq", Kind.TEXT, 32)
LABEL = Entry("label", Kind.TEXT, PAGE)  # by the firmware: SMBIOS or ACPI
INDEX = Entry("index", Kind.TEXT, 32)  # of a device on board, by SMBIOS
ACPI_INDEX = Entry("acpi_index", Kind.TEXT, 32)
POWER_STATE = Entry("power_state", Kind.TEXT, 32)  # Linux's belief, since 5.11
LINK_SPEED = Entry("current_link_speed", Kind.TEXT, 64)
LINK_WIDTH = Entry("current_link_width", Kind.TEXT, 32)
MAX_LINK_SPEED = Entry("max_link_speed", Kind.TEXT, 64)
MAX_LINK_WIDTH = Entry("max_link_width", Kind.TEXT, 32)
AER_CORRECTABLE = Entry("aer_dev_correctable", Kind.TEXT, PAGE)  # counters since Linux found the function
AER_NONFATAL = Entry("aer_dev_nonfatal", Kind.TEXT, PAGE)
AER_FATAL = Entry("aer_dev_fatal", Kind.TEXT, PAGE)

FUNCTION_FILES = (
    CONFIG, RESOURCE, VENDOR, DEVICE, CLASS, REVISION, SUBSYSTEM_VENDOR, SUBSYSTEM_DEVICE, NUMA_NODE,
    SECONDARY_BUS, SUBORDINATE_BUS, DRIVER, PHYSFN, IOMMU_GROUP, RESET_METHOD, ARI_ENABLED, ENABLE, BOOT_VGA,
    IRQ, LABEL, INDEX, ACPI_INDEX, POWER_STATE, LINK_SPEED, LINK_WIDTH, MAX_LINK_SPEED, MAX_LINK_WIDTH,
    AER_CORRECTABLE, AER_NONFATAL, AER_FATAL,
)  # fmt: skip

GROUP_FILES = (
    Entry("reserved_regions", Kind.TEXT, 65536),
    Entry("type", Kind.TEXT, 32),
)

# One directory for each physical slot, named as the slot; the file in it has segment, bus and device.
SLOTS = "sys/bus/pci/slots"
MAX_SLOTS = 4096
SLOT_ADDRESS = Entry("address", Kind.TEXT, 32)

# One directory for each host bridge, named after its segment and root bus; in it a link to its ACPI object,
# whose name stays when the firmware numbers root buses anew.
HOST_BRIDGES = "sys/devices"
MAX_DEVICES = 4096
HOST_BRIDGE_NAME = Entry("firmware_node/path", Kind.TEXT, 1024)

# The memory map that the firmware gave at boot: one directory for each entry, numbered from 0.
MEMMAP = "sys/firmware/memmap"
MEMMAP_ENTRIES = 128  # the most entries that the kernel's table can have
MEMMAP_FILES = (Entry("start", Kind.TEXT, 64), Entry("end", Kind.TEXT, 64), Entry("type", Kind.TEXT, 64))

# `roles` first reads the line of `/` in mountinfo and the names of consoles. Then it reads the text of links
# (sys/dev/block, sys/class/block, sys/class/tty, sys/fs/btrfs, slaves) and the names of mapped devices.
# `uses` reads the other lines of mountinfo that lead to a disk, proc/swaps, the links of sys/class/block and
# sys/class/net, and the default routes of proc/net.
MOUNTS = "proc/self/mountinfo"
CONSOLES = "sys/class/tty/console/active"

# What Xen said when the machine was recorded; only recordings have these files. `xen/info` has lines of
# `xl info` (INFO_NAMES), `xen/boot` those lines of Xen's console that tell of the IOMMU.
XEN_INFO, XEN_BOOT = Entry("xen/info", Kind.TEXT, 1 << 14), Entry("xen/boot", Kind.TEXT, 1 << 16)
INFO_NAMES = ("virt_caps", "xen_commandline")

# Xen renames DMAR to RMAD (since 4.6) or XMAR, so that Linux does not use the IOMMU.
MACHINE_FILES = (
    *(
        Entry(f"{TABLES}/{name}", Kind.BINARY, 1 << 20)
        for name in ("DMAR", "RMAD", "XMAR", "IVRS", "MCFG", "APIC", "FACP", "DSDT", "FACS", "HPET", "SRAT")
    ),
    Entry("sys/hypervisor/type", Kind.TEXT, 64),
    Entry("sys/hypervisor/guest_type", Kind.TEXT, 64),
    Entry("sys/hypervisor/version/major", Kind.TEXT, 64),
    Entry("sys/hypervisor/version/minor", Kind.TEXT, 64),
    Entry("sys/hypervisor/version/extra", Kind.TEXT, 256),
    Entry("sys/hypervisor/properties/capabilities", Kind.TEXT, PAGE),
    Entry("sys/hypervisor/properties/features", Kind.TEXT, PAGE),
    *(
        Entry(f"{MEMMAP}/{number}/{entry.name}", entry.kind, entry.limit)
        for number in range(MEMMAP_ENTRIES)
        for entry in MEMMAP_FILES
    ),
    Entry("proc/iomem", Kind.TEXT, 1 << 20),
    Entry("proc/xen/capabilities", Kind.TEXT, 256),
    Entry("proc/sys/kernel/random/boot_id", Kind.TEXT, 64),
    Entry("proc/sys/kernel/osrelease", Kind.TEXT, 256),
    XEN_INFO,
    XEN_BOOT,
)
