/* What the parts of Xen's AMD driver need: data of iommu_init.c and iommu_intr.c, and hardware without features. */
#include "machine.h"
#define ACPI_FADT_NO_MSI 8
static struct { unsigned int boot_flags; } acpi_gbl_FADT;
struct msi_desc { struct { int type, pos, is_64; } msi_attrib; int irq; };
#define DOMID_INVALID 0x7ff4
#define IOMMU_NOTHING 0x4000 /* bytes of registers that read 0 */
#define ioremap(address, size) calloc(1, IOMMU_NOTHING)
#define map_iommu_mmio_region(iommu) (((iommu)->mmio_base = calloc(1, IOMMU_NOTHING)), 0)
#define readq(p) (*(const volatile uint64_t *)(p))
#define writeq(v, p) (*(volatile uint64_t *)(p) = (v))
#define iommu_init_domid(id) ((unsigned long *)calloc(1, 8192))
#define pci_ro_device(...) 0
#define pci_find_cap_offset(...) 0x64
#define amd_iommu_init_cleanup()
#define amd_sp5100_erratum28() false
#define iommu_hwdom_reserved 0
#include "gen/iommu-defs.h"
#include "gen/iommu.h"

LIST_HEAD(amd_iommu_head);
unsigned int ivrs_bdf_entries, amd_iommu_acpi_info, amd_iommu_max_paging_mode = 6, nr_ioapic_sbdf;
int amd_iommu_min_paging_mode = 1;
u8 ivhd_type;
bool iommuv2_enabled, amd_iommu_perdev_intremap = true;
void *shared_intremap_table;
unsigned long *shared_intremap_inuse;
struct ioapic_sbdf ioapic_sbdf[MAX_IO_APICS];
struct hpet_sbdf hpet_sbdf;
static const struct iommu_init_ops _iommu_init_ops;
static bool init_done;
static char a_table[64];
#define amd_iommu_alloc_intremap_table(iommu, inuse, n) (*(inuse) = (void *)a_table, (void *)a_table)
/* The tree of segments is an array. */
static void *segments_of[65536];
#define ivrs_maps segments_of
#define radix_tree_lookup(tree, seg) ((*(tree))[seg])
#define radix_tree_insert(tree, seg, p) ((*(tree))[seg] = (p), 0)
#define radix_tree_init(tree)
int amd_iommu_get_supported_ivhd_type(void), amd_iommu_detect_acpi(void), amd_iommu_get_ivrs_dev_entries(void);
int amd_iommu_update_ivrs_mapping_acpi(void);
