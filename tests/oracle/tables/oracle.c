/* Reads cases from standard input and writes one line of JSON for each. A case is lines of words, numbers in
 * hexadecimal, and ends with "go"; it runs in a process of its own, because Xen reads the tables once.
 *   table BYTES | ram START SIZE TYPE | apic ID | unit SBDF CAPABILITY
 *   function SBDF CLASS SECONDARY SUBORDINATE | ask SBDF PHYSFN (or 10000) */
#include "machine.h"
#include <setjmp.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

bool iommu_verbose, iommu_debug, iommu_enable = true, force_iommu;
int iommu_intremap = iommu_intremap_full;
const struct iommu_init_ops *iommu_init_ops, intel_iommu_init_ops;
struct e820map e820;
unsigned int nr_ioapics, nr_ioapic_entries[MAX_IO_APICS], oracle_apics[MAX_IO_APICS];

static uint8_t table[1 << 20];
static struct { uint32_t at, class, secondary, subordinate; struct pci_dev dev; } functions[4096];
static struct { uint32_t at, capability; } units[64];
static struct { uint32_t at, physfn; } asked[4096];
static unsigned int nr_functions, nr_units, nr_asked;
static long seconds = 2; /* of the processor: a reading that takes longer hangs */
static const char *comma;

void oracle_say(const char *format, ...) { (void)format; }
void oracle_end(const char *how)
{
    printf("{\"result\": 0, \"died\": \"%s\"}\n", how);
    fflush(stdout);
    _exit(0);
}
static void on_signal(int number) { oracle_end(number == SIGVTALRM ? "hang" : "panic"); }

int acpi_table_parse(const char *id, acpi_table_handler handler)
{
    return memcmp(id, table, 4) ? -ENODEV : handler((struct acpi_table_header *)table);
}
uint32_t pci_conf_read32(pci_sbdf_t sbdf, unsigned int reg)
{
    for ( unsigned int i = 0; i < nr_units; i++ )
        if ( units[i].at == sbdf.sbdf && units[i].capability == reg ) return 0x3000f; /* AMD's own capability */
    for ( unsigned int i = 0; pci_known_segment(sbdf.seg) && i < nr_functions; i++ )
        if ( functions[i].at == sbdf.sbdf )
            switch ( reg )
            {
            case 0: return 0x10d38086;
            case 8: return functions[i].class << 8;
            case 0x18: return functions[i].secondary << 8 | functions[i].subordinate << 16;
            default: return 0;
            }
    return ~0U;
}
uint8_t pci_conf_read8(pci_sbdf_t sbdf, unsigned int reg)
{
    return pci_conf_read32(sbdf, reg & ~3U) >> 8 * (reg & 3);
}
bool pci_device_detect(u16 seg, u8 bus, u8 dev, u8 func)
{
    return pci_conf_read32(PCI_SBDF(seg, bus, dev, func), 0) != ~0U;
}
struct pci_dev *oracle_device(pci_sbdf_t sbdf)
{
    for ( unsigned int i = 0; i < nr_functions; i++ )
        if ( functions[i].at == sbdf.sbdf ) return &functions[i].dev;
    return NULL;
}
#ifndef ORACLE_HAS_UNITY_OK
bool iommu_unity_region_ok(const char *prefix, mfn_t start, mfn_t end) { return true; }
#endif

int oracle_reserved(xen_pfn_t start, xen_ulong_t nr, u32 id, void *wanted)
{
    if ( id != *(u32 *)wanted ) return 0;
    if ( nr )
    {
        printf("%s[%lu, %ld]", comma, (unsigned long)start, (long)nr);
        comma = ", ";
    }
    return 1;
}

static void run(void)
{
    const struct itimerval enough = { .it_value.tv_sec = seconds }, never = { 0 };
    bool amd = !memcmp(table, "IVRS", 4);
    int rc;

    signal(SIGVTALRM, on_signal);
    signal(SIGSEGV, on_signal);
    signal(SIGBUS, on_signal);
    setitimer(ITIMER_VIRTUAL, &enough, NULL);
    rc = amd ? amd_read() : vtd_read();
    setitimer(ITIMER_VIRTUAL, &never, NULL);
    printf("{\"result\": %d, \"died\": \"\", \"answers\": [", rc);
    for ( unsigned int i = 0; !rc && i < nr_asked; i++ )
    {
        struct pci_dev dev = { .sbdf = { asked[i].at } };

        dev.info.is_virtfn = asked[i].physfn < 0x10000;
        dev.info.physfn.bus = asked[i].physfn >> 8;
        dev.info.physfn.devfn = asked[i].physfn;
        printf("%s{\"unit\": %ld, \"reserved\": [", i ? ", " : "", amd ? amd_unit(&dev) : vtd_unit(&dev));
        comma = "";
        if ( amd ) amd_regions(&asked[i].at); else vtd_regions(&asked[i].at);
        printf("]}");
    }
    printf("]}\n");
    fflush(stdout);
    _exit(0);
}

int main(int argc, char **argv)
{
    if ( argc > 1 ) seconds = strtol(argv[1], NULL, 10);
    static char line[1 << 21];
    uint64_t start, size;
    unsigned int a, b, c, d;

    while ( fgets(line, sizeof(line), stdin) )
    {
        if ( !strncmp(line, "table ", 6) )
        {
            memset(table, 0, sizeof(table));
            for ( size_t i = 0; i < sizeof(table) && sscanf(line + 6 + 2 * i, "%2x", &a) == 1; i++ ) table[i] = a;
        }
        else if ( sscanf(line, "ram %lx %lx %x", &start, &size, &a) == 3 )
            e820.map[e820.nr_map++] = (struct e820entry){ start, size, a };
        else if ( sscanf(line, "apic %x", &a) == 1 )
        {
            oracle_apics[nr_ioapics] = a;
            nr_ioapic_entries[nr_ioapics++] = 24;
        }
        else if ( sscanf(line, "unit %x %x", &a, &b) == 2 )
        {
            units[nr_units].at = a;
            units[nr_units++].capability = b;
        }
        else if ( sscanf(line, "function %x %x %x %x", &a, &b, &c, &d) == 4 )
        {
            functions[nr_functions].at = functions[nr_functions].dev.sbdf.sbdf = a;
            functions[nr_functions].class = b;
            functions[nr_functions].secondary = c;
            functions[nr_functions++].subordinate = d;
        }
        else if ( sscanf(line, "ask %x %x", &a, &b) == 2 )
        {
            asked[nr_asked].at = a;
            asked[nr_asked++].physfn = b;
        }
        else if ( !strncmp(line, "go", 2) )
        {
            pid_t child = fork();

            if ( !child ) run();
            waitpid(child, NULL, 0);
            e820.nr_map = nr_ioapics = nr_units = nr_functions = nr_asked = 0;
        }
    }
    return 0;
}
