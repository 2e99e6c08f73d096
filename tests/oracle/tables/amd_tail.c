/* Asks Xen's AMD parser; a unit is told by its number in the table. */
int amd_read(void)
{
    int rc = acpi_ivrs_init();
    rc = rc ?: amd_iommu_prepare(false);
    init_done = true;
    return rc;
}
long amd_unit(struct pci_dev *dev)
{
    struct amd_iommu *iommu, *found;
    long number = 0;

    list_for_each_entry ( iommu, &amd_iommu_head, list )
    {
#ifdef ORACLE_UNIT_HAS_SBDF
        if ( iommu->sbdf.sbdf == dev->sbdf.sbdf ) return -2;
#else
        if ( PCI_SBDF(iommu->seg, iommu->bdf).sbdf == dev->sbdf.sbdf ) return -2;
#endif
    }
#ifdef ORACLE_FIND_BY_SBDF
    found = find_iommu_for_device(dev->sbdf);
#else
    found = find_iommu_for_device(dev->sbdf.seg, dev->sbdf.bdf);
#endif
    if ( !found ) return -1;
    list_for_each_entry ( iommu, &amd_iommu_head, list )
    {
        if ( iommu == found ) break;
        number++;
    }
    return number;
}
void amd_regions(u32 *asked)
{
    if ( get_ivrs_mappings(0) ) amd_iommu_get_reserved_device_memory(oracle_reserved, asked);
}
