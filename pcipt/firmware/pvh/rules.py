"""Which ACPI tables Xen gives to a PVH hardware domain, which it never gives, which pcipt does not copy.

Source: xen/arch/x86/hvm/dom0_build.c, pvh_acpi_table_allowed, pvh_acpi_xsdt_table_allowed.
"""

# Listed in the XSDT together with the MADT that Xen makes. Some releases leave out TCPA, TPM2
# and VFCT: xen/releases.py, TPM_TABLES_GIVEN and VFCT_GIVEN.
ALLOWED = (
    "FACP", "PSDT", "SSDT", "SBST", "MCFG", "SLIC", "MSDM", "WDAT", "FPDT", "S3PT",
    "TCPA", "TPM2", "VFCT", "OEM*",
)  # fmt: skip

# Not listed in the XSDT but found in other ways, or made by Xen.
OTHERS = ("APIC", "DSDT", "FACS", "XSDT", "RSDT", "RSDP")

# signature: why the domain must not see the table
FORBIDDEN = {
    "DMAR": "Xen owns the IOMMU",
    "RMAD": "Xen owns the IOMMU (this is DMAR, renamed)",
    "XMAR": "Xen owns the IOMMU (this is DMAR, renamed)",
    "IVRS": "Xen owns the IOMMU",
    "HPET": "Xen uses the timer itself",
    "SRAT": "it tells the machine's NUMA nodes, not the domain's",
    "SLIT": "it tells the machine's NUMA nodes, not the domain's",
    "MPST": "it tells the machine's memory, not the domain's",
    "PMTT": "it tells the machine's memory, not the domain's",
}

SECRET = ("MSDM", "SLIC")  # Windows licence keys
