/* Asks Xen's VT-d parser. A table without a unit ends in vtd_setup, which is not here (vtd/iommu.c). */
int vtd_read(void)
{
    int rc = acpi_dmar_init();
    return !rc && list_empty(&acpi_drhd_units) ? -ENODEV : rc;
}
long vtd_unit(struct pci_dev *dev)
{
    struct acpi_drhd_unit *drhd = acpi_find_matched_drhd_unit(dev);
    return drhd ? (long)drhd->address : -1;
}
void vtd_regions(u32 *asked) { intel_iommu_get_reserved_device_memory(oracle_reserved, asked); }
