/* What stands around Xen's parsers of DMAR and IVRS: types, memory, messages, and one machine of a few functions.
 * Written for this harness; nothing of Xen's is here. Hardware of the IOMMUs is always found and has no features. */
#ifndef ORACLE_MACHINE_H
#define ORACLE_MACHINE_H
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_X86 1
#define CONFIG_64BIT 1
#define BITS_PER_LONG 64
/* Marks of sections, of branches, of pointers: they mean nothing here. */
#define __init
#define __initdata
#define __hwdom_init
#define __read_mostly
#define __ro_after_init
#define __must_check
#define __iomem
#define __maybe_unused __attribute__((unused))
#define cf_check
#define likely(x) (x)
#define unlikely(x) (x)
#define prefetch(x) ((void)(x))
#define smp_wmb()
#define bool_t bool
typedef uint8_t u8;
typedef uint16_t u16, domid_t;
typedef uint32_t u32, acpi_status;
typedef uint64_t u64, paddr_t, xen_pfn_t, xen_ulong_t, acpi_physical_address, acpi_native_uint, acpi_size;
typedef unsigned long mfn_t;
typedef uint8_t nodeid_t;

/* How a run ends: a failed assertion counts for nothing, the rest ends it. */
void oracle_end(const char *how) __attribute__((noreturn));
#define BUG_ON(x) do { if ( x ) oracle_end("panic"); } while (0)
#define panic(...) oracle_end("panic")
#define ASSERT(x) ((void)(x))
#define ASSERT_UNREACHABLE() ((void)0)
void oracle_say(const char *format, ...);
#define printk oracle_say
#define printk_once oracle_say
#define dprintk(level, ...) oracle_say(level __VA_ARGS__)
#define XENLOG_ERR ""
#define XENLOG_WARNING ""
#define XENLOG_INFO ""
#define XENLOG_DEBUG ""
#define KERN_ERR ""
#define PRI_mfn "05lx"
#define AS_TEXT(x) #x
#define __stringify(x) AS_TEXT(x)

#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define PAGE_ALIGN(x) (((x) + PAGE_SIZE - 1) & PAGE_MASK)
#define PFN_DOWN(x) ((x) >> PAGE_SHIFT)
#define PFN_UP(x) (((x) + PAGE_SIZE - 1) >> PAGE_SHIFT)
#define pfn_to_paddr(x) ((paddr_t)(x) << PAGE_SHIFT)
#define paddr_to_pfn(x) ((unsigned long)((x) >> PAGE_SHIFT))
#define maddr_to_mfn(x) ((mfn_t)((x) >> PAGE_SHIFT))
#define mfn_to_maddr(x) ((paddr_t)(x) << PAGE_SHIFT)
#define mfn_add(m, i) ((m) + (i))
#define mfn_x(m) (m)
#define _mfn(m) ((mfn_t)(m))
#define mfn_valid(m) true
#define ARRAY_SIZE(x) (sizeof(x) / sizeof((x)[0]))
#define MASK_EXTR(v, m) (((v) & (m)) / ((m) & -(m)))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define DECLARE_BITMAP(name, bits) uint64_t name[(bits) / 64]
static inline void set_bit(unsigned int n, uint64_t *map) { map[n / 64] |= 1UL << (n & 63); }
#define test_bit(n, map) (((map)[(n) / 64] >> ((n) & 63)) & 1)
#define write_atomic(p, v) (*(p) = (v))
#define simple_strtoul(s, end, base) strtoul(s, (char **)(end), base)
#define custom_param(name, function) static const void *kept_##function __maybe_unused = function

#define xmalloc(type) ((type *)calloc(1, sizeof(type)))
#define xzalloc(type) xmalloc(type)
#define xmalloc_array(type, n) ((type *)calloc((n) + 1, sizeof(type)))
#define xzalloc_array(type, n) xmalloc_array(type, n)
#define xfree(p) free((void *)(p))
#define XFREE(p) ((p) = (xfree(p), NULL))
typedef struct { int held; } spinlock_t;
#define spin_lock_init(l) ((l)->held = 0)
#define pcidevs_lock()
#define pcidevs_unlock()

#define ACPI_NAME_SIZE 4
#define ACPI_OEM_ID_SIZE 6
#define ACPI_OEM_TABLE_ID_SIZE 8
#define ACPI_CAST_PTR(type, p) ((type *)(p))
#define ACPI_SUCCESS(x) (!(x))
#include "gen/acpi.h"
#include "gen/list.h"
#include "gen/pci_regs.h"
typedef int (*acpi_table_handler)(struct acpi_table_header *);
int acpi_table_parse(const char *id, acpi_table_handler handler);
u8 acpi_tb_checksum(u8 *buffer, acpi_native_uint length);

/* Addresses: the macros of all releases, told apart by their number of arguments. */
typedef union {
    uint32_t sbdf;
    struct {
        union {
            uint16_t bdf;
            struct {
                union { struct { uint8_t fn : 3, dev : 5; }; uint8_t devfn; };
                uint8_t bus;
            };
        };
        uint16_t seg;
    };
} pci_sbdf_t;
#define PCI_SEG(x) ((uint16_t)((x) >> 16))
#define PCI_BUS(x) ((uint8_t)((x) >> 8))
#define PCI_SLOT(x) (((x) >> 3) & 0x1f)
#define PCI_FUNC(x) ((x) & 7)
#define PCI_DEVFN(d, f) ((((d) & 0x1f) << 3) | ((f) & 7))
#define BY_COUNT(_1, _2, _3, _4, chosen, ...) chosen
#define BDF_OF_2(b, devfn) ((((b) & 0xff) << 8) | ((devfn) & 0xff))
#define BDF_OF_3(b, d, f) BDF_OF_2(b, PCI_DEVFN(d, f))
#define SBDF_OF_2(s, bdf) ((pci_sbdf_t){ .sbdf = ((uint32_t)(s) << 16) | ((bdf) & 0xffff) })
#define SBDF_OF_3(s, b, devfn) SBDF_OF_2(s, BDF_OF_2(b, devfn))
#define SBDF_OF_4(s, b, d, f) SBDF_OF_2(s, BDF_OF_3(b, d, f))
#define PCI_BDF(...) BY_COUNT(__VA_ARGS__, 0, BDF_OF_3, BDF_OF_2, 0)(__VA_ARGS__)
#define PCI_SBDF(...) BY_COUNT(__VA_ARGS__, SBDF_OF_4, SBDF_OF_3, SBDF_OF_2, 0)(__VA_ARGS__)
struct pci_dev {
    union { struct { uint8_t devfn, bus; uint16_t seg; }; pci_sbdf_t sbdf; };
    struct { bool is_extfn, is_virtfn; struct { uint8_t bus, devfn; } physfn; } info;
};
uint8_t pci_conf_read8(pci_sbdf_t, unsigned int);
uint32_t pci_conf_read32(pci_sbdf_t, unsigned int);
bool pci_device_detect(u16 seg, u8 bus, u8 dev, u8 func);
/* The machines' MCFG names segment 1: who has read it knows the segment, and reads its functions by MMCFG. */
#ifdef ORACLE_MCFG_EARLY
#define pci_known_segment(seg) ((seg) <= 1)
#else
#define pci_known_segment(seg) (!(seg))
#endif
#define parse_pci(...) NULL
#define parse_pci_seg(...) NULL
struct pci_dev *oracle_device(pci_sbdf_t);
#define pci_get_pdev(d, sbdf) oracle_device(sbdf)

extern bool iommu_verbose, iommu_debug, iommu_enable, force_iommu;
extern int iommu_intremap;
enum { iommu_intremap_off, iommu_intremap_restricted, iommu_intremap_full };
struct iommu_init_ops { int unused; };
extern const struct iommu_init_ops *iommu_init_ops, intel_iommu_init_ops;
typedef int iommu_grdm_t(xen_pfn_t start, xen_ulong_t nr, u32 id, void *ctxt);
#define iommu_get_extra_reserved_device_memory(f, c) 0

enum { E820_RAM = 1, E820_RESERVED, E820_ACPI, E820_NVS, E820_UNUSABLE };
enum {
    RAM_TYPE_CONVENTIONAL = 1, RAM_TYPE_RESERVED = 2, RAM_TYPE_UNUSABLE = 4, RAM_TYPE_ACPI = 8, RAM_TYPE_UNKNOWN = 16
};
struct e820entry { uint64_t addr, size; uint32_t type; };
struct e820map { unsigned int nr_map; struct e820entry map[1024]; };
extern struct e820map e820;
int e820_all_mapped(u64 start, u64 end, unsigned type);
unsigned int page_get_ram_type(mfn_t mfn);
#ifdef ORACLE_MAP_GIVEN
int e820_add_range(struct e820map *map, uint64_t s, uint64_t e, uint32_t type);
#else
int e820_add_range(uint64_t s, uint64_t e, uint32_t type);
#endif
bool iommu_unity_region_ok(const char *prefix, mfn_t start, mfn_t end);

#define MAX_IO_APICS 128
extern unsigned int nr_ioapics, nr_ioapic_entries[MAX_IO_APICS], oracle_apics[MAX_IO_APICS];
#define IO_APIC_ID(apic) (oracle_apics[apic])

/* What the two sides tell. */
int oracle_reserved(xen_pfn_t start, xen_ulong_t nr, u32 id, void *asked);
int amd_read(void), vtd_read(void);
long amd_unit(struct pci_dev *dev), vtd_unit(struct pci_dev *dev);
void amd_regions(u32 *asked), vtd_regions(u32 *asked);
#endif
