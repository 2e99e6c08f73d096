"""Which ACPI tables Xen gives to a PVH hardware domain, which it never gives, which pcipt does not copy.

Source: xen/arch/x86/hvm/dom0_build.c, pvh_acpi_table_allowed, pvh_acpi_xsdt_table_allowed.
"""

from collections.abc import Mapping

from pcipt.xen.releases import OEM_TABLES_GIVEN, TPM_TABLES_GIVEN, VFCT_GIVEN, Fact, Version

# Listed in the XSDT together with the MADT that Xen makes, by every release.
ALLOWED = ("FACP", "PSDT", "SSDT", "SBST", "MCFG", "SLIC", "MSDM", "WDAT", "FPDT", "S3PT")

# Listed there by some releases.
BY_RELEASE: Mapping[str, Fact] = {
    "TCPA": TPM_TABLES_GIVEN,
    "TPM2": TPM_TABLES_GIVEN,
    "VFCT": VFCT_GIVEN,
}

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


def why_not_given(signature: str, xen: Version | None) -> str:
    """Return why Xen does not list a table in its hardware domain's XSDT; an empty text if it does.

    `xen` is the version of Xen, None if it is not known. A table that this Xen may or may not list counts as
    not listed. Tables of `FORBIDDEN` and `OTHERS` are not listed either.
    """
    if signature in ALLOWED:
        return ""
    fact = OEM_TABLES_GIVEN if signature.startswith("OEM") else BY_RELEASE.get(signature)
    if fact is None:
        return "Xen hands no such table to its hardware domain"
    if fact.of(xen):
        return ""
    since = f"Xen hands it to its hardware domain from {fact.begins} on"
    if xen is None:
        return f"{since}, and the version of this Xen is not known"
    if fact.known_of(xen) is None:
        return f"{since}, and whether this build of {xen.branch} does is not known"
    return f"{since}, not yet in {xen}"
