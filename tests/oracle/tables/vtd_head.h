/* What vtd/dmar.c needs of the rest of Xen's VT-d driver. */
#include "machine.h"
#define VTDPREFIX ""
struct vtd_iommu { unsigned int node; uint64_t root_maddr; };
#include "gen/dmar.h"
extern struct list_head acpi_drhd_units, acpi_rmrr_units;
void acpi_dmar_zap(void);
static int iommu_alloc(struct acpi_drhd_unit *drhd)
{
    drhd->iommu = xzalloc(struct vtd_iommu);
    return 0;
}
#define iommu_free(drhd) ((void)(drhd))
#define acpi_get_table_phys(...) 1
#define map_pages_to_xen(...) 0
#define __va(x) ((void *)(uintptr_t)(x))
#define PAGE_HYPERVISOR 0
#define tboot_parse_dmar_table(handler) acpi_table_parse(ACPI_SIG_DMAR, handler)
#define pxm_to_node(x) 0
#define alloc_pgtable_maddr(...) 0x1000
#define cpu_has_x2apic true
