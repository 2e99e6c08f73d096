"""Every way in which Xen refuses a DMAR or IVRS table, hangs, panics, or goes without interrupt remapping.

One row a way. A row without a fact holds for all versions that were read (4.17.0 to 4.22.0). What Xen accepts
in spite of the specification has no row.
Source: each row names Xen's file (below drivers/passthrough/) and function.
"""

import enum

from pcipt.hints import NamedTuple
from pcipt.pci.requester import Vendor
from pcipt.xen.releases import (
    IVMD_MEMORY_CHECK_INVERTED,
    IVMD_WITHOUT_UNIT_ENDS_AMD_VI,
    RMRR_OVER_RAM_ENDS_VTD,
    SATC_READ,
    SEGMENTS_READ_FOR_IOMMU,
    Fact,
    Version,
)


class Ending(enum.Enum):
    """What becomes of the host."""

    REFUSED = "refused"
    HANG = "hang"
    PANIC = "panic"
    NO_INTERRUPTS = "no-interrupt-remapping"


class Rule(NamedTuple):
    """One way.

    `name` is the finding's code. `text` says what is in the table, with fields in braces. `source` names
    Xen's file and function. `cure` is what helps besides other firmware. The rule holds for the versions of
    the fact `only`, and not for those of the fact `unless`. `vendor` None: the rule holds for both.
    """

    name: str
    vendor: Vendor | None
    ending: Ending
    text: str
    source: str
    cure: str = ""
    only: Fact | None = None
    unless: Fact | None = None

    def holds(self, version: Version | None) -> bool | None:
        """Return True if a version of Xen follows the rule, None if that depends on what is not known."""
        if self.only is not None:
            return self.only.known_of(version) if version is not None else None
        if self.unless is not None:
            other = self.unless.known_of(version) if version is not None else None
            return None if other is None else not other
        return True

    @property
    def versions(self) -> str:
        """The versions that follow the rule, in words; empty if all do."""
        fact = self.only or self.unless
        if fact is None:
            return ""
        if (self.only is not None) == bool(fact.since):
            return f"from {fact.begins if fact.since else fact.ends} on"
        return f"before {fact.ends if fact.until else fact.begins}"


_I, _A = Vendor.INTEL, Vendor.AMD
_REFUSED, _HANG, _PANIC, _OFF = Ending.REFUSED, Ending.HANG, Ending.PANIC, Ending.NO_INTERRUPTS
_DMAR, _ACPI, _DETECT = "vtd/dmar.c", "amd/iommu_acpi.c", "amd/iommu_detect.c"
_NOT_MAPPED = "boot Xen with iommu=no-intremap: then Xen uses the IOMMU, but does not remap interrupts"

# fmt: off
# Both tables.
FADT_NO_MSI = Rule("fadt-no-msi", None, _REFUSED, "the FADT says that the machine has no MSI",
    "vtd/iommu.c vtd_setup, amd/iommu_init.c amd_iommu_prepare")

# DMAR.
WIDTH = Rule("dmar-width", _I, _REFUSED, "the host address width is 0", f"{_DMAR} acpi_parse_dmar")
ENTRY_LENGTH = Rule("dmar-entry-length", _I, _REFUSED, "the entry has {length} bytes and needs {least}",
    f"{_DMAR} acpi_dmar_check_length")
SATC_LENGTH = ENTRY_LENGTH._replace(name="dmar-satc-length", only=SATC_READ)
BASE = Rule("dmar-unit-base", _I, _REFUSED, "the registers of the IOMMU unit are at {base:#x}",
    f"{_DMAR} acpi_parse_one_drhd")
INCLUDE_ALL = Rule("dmar-two-include-all", _I, _REFUSED,
    "a second unit of segment 0 is for all functions that no unit names (INCLUDE_PCI_ALL)",
    f"{_DMAR} acpi_parse_one_drhd")
SCOPE = Rule("dmar-scope-length", _I, _REFUSED, "a device scope has {length} bytes and needs 8",
    f"{_DMAR} scope_device_count")
SATC_SCOPE = SCOPE._replace(name="dmar-satc-scope-length", only=SATC_READ)
ALL_PORTS = Rule("dmar-two-all-ports", _I, _REFUSED,
    "a second ATSR of segment 0 is for all root ports (ALL_PORTS)", f"{_DMAR} acpi_parse_one_atsr")
RMRR_OVERLAP = Rule("dmar-regions-overlap", _I, _REFUSED,
    "the reserved region {base:#x}-{limit:#x} overlaps {other}", f"{_DMAR} acpi_parse_one_rmrr")
RMRR_OVER_RAM = Rule("dmar-region-over-ram", _I, _REFUSED,
    "the reserved region {base:#x}-{limit:#x} lies over {what} at {page:#x}",
    f"{_DMAR} acpi_parse_one_rmrr, x86/iommu.c iommu_unity_region_ok",
    "Xen 4.18 and older accept the table", only=RMRR_OVER_RAM_ENDS_VTD)
RMRR_ENDLESS = Rule("dmar-region-endless", _I, _HANG,
    "the region {base:#x}-{limit:#x} is not in reserved memory, and Xen looks at each of its {pages} pages",
    "x86/iommu.c iommu_unity_region_ok", only=RMRR_OVER_RAM_ENDS_VTD)
RMRR_REVERSED = Rule("dmar-region-reversed", _I, _REFUSED,
    "the limit {limit:#x} of the reserved region is below its base {base:#x}", f"{_DMAR} register_one_rmrr")
NO_UNIT = Rule("dmar-no-unit", _I, _REFUSED, "the table has no IOMMU unit (DRHD)", "vtd/iommu.c vtd_setup")
NO_FLAG = Rule("dmar-no-interrupt-remapping", _I, _OFF,
    "the table says that interrupts cannot be remapped (INTR_REMAP is 0)", "vtd/intremap.c enable_intremap",
    "switch x2APIC or interrupt remapping on in the firmware's setup")
IO_APIC_UNSERVED = Rule("dmar-io-apic", _I, _OFF, "no IOMMU unit serves IO-APIC {apic}",
    "vtd/iommu.c init_vtd_hw")

# IVRS: blocks and device entries.
CHECKSUM = Rule("ivrs-checksum", _A, _REFUSED, "the bytes of the table do not sum to zero",
    f"{_ACPI} get_supported_ivhd_type")
BLOCK_ZERO = Rule("ivrs-block-zero", _A, _HANG, "the block has the length 0",
    f"{_ACPI} get_supported_ivhd_type")
BLOCK_LENGTH = Rule("ivrs-block-length", _A, _REFUSED,
    "the block has {length} bytes and ends behind the table", f"{_ACPI} get_supported_ivhd_type")
NO_IVHD = Rule("ivrs-no-unit", _A, _REFUSED,
    "the table has no IVHD block of a type that Xen reads (10, and 11 if IVinfo has EFRSup)",
    f"{_ACPI} get_supported_ivhd_type")
IVHD_LENGTH = Rule("ivrs-unit-length", _A, _REFUSED, "the block has {length} bytes and needs 40",
    f"{_DETECT} amd_iommu_detect_one_acpi")
IVHD_HEADER = Rule("ivrs-unit-header", _A, _REFUSED,
    "the IOMMU's {what} is 0", f"{_DETECT} amd_iommu_detect_one_acpi")
ENTRY_UNKNOWN = Rule("ivrs-entry-unknown", _A, _REFUSED, "Xen does not know device entries of type {kind:#x}",
    f"{_ACPI} get_last_bdf_ivhd")
ENTRY_CUT = Rule("ivrs-entry-length", _A, _REFUSED, "the device entry ends behind its block",
    f"{_ACPI} parse_ivhd_block")
RANGE_OPEN = Rule("ivrs-range-open", _A, _REFUSED, "the range from {first:#06x} on has no end",
    f"{_ACPI} parse_ivhd_device_range")
RANGE = Rule("ivrs-range", _A, _REFUSED,
    "the range {first:#06x} to {last:#06x} is not valid: the last id must be above the first",
    f"{_ACPI} parse_ivhd_device_range")
ALIAS = Rule("ivrs-alias", _A, _REFUSED,
    "the alias {other:#06x} is above the last id {most:#06x} that units serve",
    f"{_ACPI} parse_ivhd_device_alias")
VARIETY = Rule("ivrs-special-variety", _A, _REFUSED,
    "a special device has the variety {variety}, and Xen knows IO-APICs (1) and HPETs (2)",
    f"{_ACPI} parse_ivhd_device_special")

# IVRS: IO-APICs.
APIC_CONFLICT = Rule("ivrs-io-apic-conflict", _A, _REFUSED,
    "IO-APIC {apic} is at {place} here and at {other} before", f"{_ACPI} parse_ivhd_device_special",
    "boot Xen with ivrs_ioapic[{apic}]=BUS:DEV.FN of the right one")
APIC_UNKNOWN = Rule("ivrs-io-apic-unknown", _A, _REFUSED,
    "the table names IO-APIC {apic} at {place}, and the MADT has none with this id",
    f"{_ACPI} parse_ivhd_device_special", _NOT_MAPPED)
APIC_MISSING = Rule("ivrs-io-apic-missing", _A, _REFUSED,
    "the MADT has IO-APIC {apic}, and the table does not name it", f"{_ACPI} parse_ivrs_table",
    "boot Xen with ivrs_ioapic[{apic}]=BUS:DEV.FN (of the chipset: 00:14.0), or with iommu=no-intremap")
NO_SOUTHBRIDGE = Rule("ivrs-no-southbridge", _A, _REFUSED,
    "no IO-APIC is at 00:14.0, where the chipset has one", f"{_ACPI} parse_ivrs_table",
    "boot Xen with ivrs_ioapic[ID]=00:14.0 for the chipset's IO-APIC, or with iommu=no-intremap")

# IVRS: registers of the machine.
UNIT_SEGMENT = Rule("ivrs-unit-segment", _A, _REFUSED,
    "the IOMMU {unit} is in a segment whose registers Xen cannot read yet",
    f"{_DETECT} get_iommu_capabilities",
    f"use Xen {SEGMENTS_READ_FOR_IOMMU.begins} or newer", unless=SEGMENTS_READ_FOR_IOMMU)
UNIT_CAPABILITY = Rule("ivrs-unit-capability", _A, _REFUSED,
    "the function {unit} has no IOMMU capability at {capability:#x}", f"{_DETECT} get_iommu_capabilities")
UNIT_MSI = Rule("ivrs-unit-msi", _A, _REFUSED, "the IOMMU {unit} has no MSI capability",
    f"{_DETECT} get_iommu_msi_capabilities")
COMBINED_SATA = Rule("sp5100-combined-mode", _A, _REFUSED,
    "the SATA controller of the SP5100 is in combined mode (erratum 28)",
    "amd/iommu_init.c amd_sp5100_erratum28",
    f"switch SATA combined (IDE) mode off in the firmware's setup; {_NOT_MAPPED}")

# IVRS: reserved memory.
IVMD_LENGTH = Rule("ivmd-length", _A, _REFUSED, "the block has {length} bytes and needs 32",
    f"{_ACPI} parse_ivmd_block")
IVMD_NOTHING = Rule("ivmd-end", _A, _PANIC, "{size:#x} bytes from {start:#x} end at address 0",
    f"{_ACPI} parse_ivmd_block, amd/iommu.h amd_iommu_get_paging_mode")
IVMD_OVER_RAM = Rule("ivmd-over-ram", _A, _REFUSED,
    "the reserved region {base:#x}-{limit:#x} lies over {what} at {page:#x}", f"{_ACPI} parse_ivmd_block",
    unless=IVMD_MEMORY_CHECK_INVERTED)
IVMD_OVER_ACPI = Rule("ivmd-over-acpi", _A, _REFUSED,
    "the reserved region {base:#x}-{limit:#x} lies over {what} at {page:#x}, which this Xen does not take",
    f"{_ACPI} parse_ivmd_block", "newer Xen accepts the table", only=IVMD_MEMORY_CHECK_INVERTED)
IVMD_ENDLESS = Rule("ivmd-endless", _A, _HANG,
    "the region {base:#x}-{limit:#x} is not in reserved memory, and Xen looks at each of its {pages} pages",
    f"{_ACPI} parse_ivmd_block")
IVMD_FLAGS = Rule("ivmd-flags", _A, _REFUSED,
    "its flags {flags:#04x} make it neither a unity map nor an exclusion range", f"{_ACPI} parse_ivmd_block")
IVMD_BEYOND = Rule("ivmd-beyond", _A, _REFUSED,
    "it is for the id {routing:#06x}, above the last id {most:#06x} that units serve",
    f"{_ACPI} parse_ivmd_device_select, parse_ivmd_device_range")
IVMD_RANGE = Rule("ivmd-range", _A, _REFUSED,
    "it is for the ids {first:#06x} to {last:#06x}: the last id must be above the first",
    f"{_ACPI} parse_ivmd_device_range")
IVMD_OVERLAP = Rule("ivmd-overlap", _A, _REFUSED,
    "for the id {routing:#06x} its pages {pages} overlap {other}, and are not the same with the same flags",
    f"{_ACPI} reserve_unity_map_for_device")
IVMD_NO_UNIT = Rule("ivmd-no-unit", _A, _REFUSED,
    "it is for an IOMMU {routing:#06x} with its capability at {capability:#x}, and there is none",
    f"{_ACPI} parse_ivmd_device_iommu")
IVMD_UNSERVED = Rule("ivmd-unserved", _A, _REFUSED,
    "it is for the id {routing:#06x}, which no IVHD block before it serves",
    f"{_ACPI} register_range_for_device", "newer Xen passes over the block",
    only=IVMD_WITHOUT_UNIT_ENDS_AMD_VI)
IVMD_NO_SEGMENT = Rule("ivmd-no-segment", _A, _PANIC,
    "it is for all functions, and no IOMMU is in segment 0", f"{_ACPI} reserve_unity_map_for_device")
# fmt: on

RULES: tuple[Rule, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Rule))
