"""Build Xen's own parsers of DMAR and IVRS of one release; nothing of Xen's source is kept here."""

import re
import subprocess
from pathlib import Path

from tests.oracle.build import NoSourceError, Source, bare, git_directory

HERE = Path(__file__).resolve().parent
AMD, VTD = "xen/drivers/passthrough/amd", "xen/drivers/passthrough/vtd"
OF_INIT = ("get_ivrs_mappings", "alloc_ivrs_mappings", "amd_iommu_prepare_one", "amd_iommu_prepare")
OF_INTR = ("ioapic_id_to_index", "get_next_ioapic_sbdf_index")
OF_PCI = ("find_iommu_for_device", "get_dma_requestor_id", "acpi_ivrs_init")
OF_HEADER = {
    "structs": ("typedef struct iommu_cap", "struct table_struct", "struct ring_buffer", "struct amd_iommu",
                "struct ivrs_unity_map", "struct ivrs_mappings", "extern struct ioapic_sbdf",
                "extern struct hpet_sbdf"),
    "defines": ("AMD_IOMMU_ERROR", "AMD_IOMMU_WARN", "AMD_IOMMU_DEBUG", "for_each_amd_iommu", "iommu_found"),
    "functions": ("get_field_from_reg_u32", "amd_iommu_get_paging_mode", "iommu_has_cap"),
}  # fmt: skip


def _one(pattern, text, what):
    found = re.search(pattern, text, re.MULTILINE | re.DOTALL)
    if found is None:
        raise NoSourceError(f"there is no {what}")
    return found.group(0)


def function(text, name):
    return _one(rf"^[a-z][^\n;{{}}]*\b{name}\([^;{{}}]*?\)\s*\{{.*?^\}}", text, f"function {name}")


def struct(text, head):
    return _one(rf"^{head}\s*\{{.*?^\}}[^;]*;", text, head)


def define(text, name):
    return _one(rf"^#define {name}\b(?:[^\n]*\\\n)*[^\n]*$", text, f"#define {name}")


def _headers(source):
    actbl = source.get("xen/include/acpi/actbl.h")
    head = [struct(actbl, "struct acpi_table_header"), struct(actbl, "struct acpi_generic_address")]
    acpi = [
        "#pragma pack(1)",
        *head,
        "#pragma pack()",
        bare(source.get("xen/include/acpi/actbl2.h")),
        "#pragma pack()",
    ]
    own = source.get(f"{AMD}/iommu.h")
    prototypes = ["struct ivrs_mappings *get_ivrs_mappings(uint16_t seg);",
                  "unsigned int ioapic_id_to_index(unsigned int), get_next_ioapic_sbdf_index(void);",
                  "void get_iommu_features(struct amd_iommu *);",
                  "int amd_iommu_detect_one_acpi(const struct acpi_ivrs_hardware *);",
                  "extern struct list_head amd_iommu_head;",
                  "extern unsigned int amd_iommu_acpi_info, amd_iommu_max_paging_mode;"]  # fmt: skip
    parts = [*(struct(own, name) for name in OF_HEADER["structs"]), *prototypes,
             *(define(own, name) for name in OF_HEADER["defines"]),
             *(function(own, name) for name in OF_HEADER["functions"])]  # fmt: skip
    return {
        "acpi.h": "\n".join(acpi),
        "list.h": bare(source.get("xen/include/xen/list.h")),
        "pci_regs.h": bare(source.get("xen/include/xen/pci_regs.h")),
        "iommu-defs.h": bare(source.get(f"{AMD}/iommu-defs.h")),
        "iommu.h": "\n".join(parts),
        "dmar.h": bare(source.get(f"{VTD}/dmar.h")),
    }


def _files(source):
    init, pci = bare(source.get(f"{AMD}/iommu_init.c")), source.get(f"{AMD}/pci_amd_iommu.c")
    intr, memory = source.get(f"{AMD}/iommu_intr.c"), source.get(f"{AMD}/iommu_map.c")
    own = [define(init, "IVRS_MAPPINGS_SEG"), *(function(init, name) for name in OF_INIT[:2]),
           *(function(intr, name) for name in OF_INTR), *(function(pci, name) for name in OF_PCI[:2]),
           bare(source.get(f"{AMD}/iommu_detect.c")), bare(source.get(f"{AMD}/iommu_acpi.c")),
           *(function(init, name) for name in OF_INIT[2:]), function(pci, OF_PCI[2]),
           function(memory, "amd_iommu_get_reserved_device_memory")]  # fmt: skip
    e820, shared = source.get("xen/arch/x86/e820.c"), source.get("xen/drivers/passthrough/x86/iommu.c")
    map_parts = [function(e820, "e820_all_mapped"), function(e820, "e820_add_range"),
                 function(source.get("xen/arch/x86/mm.c"), "page_get_ram_type"),
                 function(source.get("xen/drivers/acpi/tables/tbutils.c"), "acpi_tb_checksum")]  # fmt: skip
    setup = source.get("xen/arch/x86/setup.c")
    tables_read = setup.index("acpi_iommu_init()")
    if "iommu_unity_region_ok" in shared:
        map_parts.append(function(shared, "iommu_unity_region_ok"))
    flags = {
        "ORACLE_HAS_UNITY_OK": "iommu_unity_region_ok" in shared,
        "ORACLE_MCFG_EARLY": any(
            call in setup[:tables_read] for call in ("acpi_mmcfg_init()", "pci_setup()")
        ),
        "ORACLE_MAP_GIVEN": "struct e820map" in map_parts[1].partition("{")[0],
        "ORACLE_UNIT_HAS_SBDF": "pci_sbdf_t sbdf" in struct(source.get(f"{AMD}/iommu.h"), "struct amd_iommu"),
        "ORACLE_FIND_BY_SBDF": "find_iommu_for_device(pci_sbdf_t" in pci,
    }
    files = {
        "vtd": '#include "vtd_head.h"\n' + bare(source.get(f"{VTD}/dmar.c")) + '\n#include "vtd_tail.c"\n',
        "amd": '#include "amd_head.h"\n' + "\n\n".join(own) + '\n#include "amd_tail.c"\n',
        "memory": '#include "machine.h"\n' + "\n\n".join(map_parts) + "\n",
    }
    return files, [f"-D{name}" for name, holds in flags.items() if holds]


def build(git, release, scratch):
    """Build the program of one release below a scratch folder; give its path.

    Raises: NoSourceError if the git directory does not have the release; CalledProcessError if gcc fails.
    """
    into = Path(scratch) / f"tables-{release}"
    (into / "gen").mkdir(parents=True, exist_ok=True)
    source = Source(git_directory(git), release)
    files, flags = _files(source)
    for name, text in _headers(source).items():
        (into / "gen" / name).write_text(text + "\n", encoding="utf-8")
    for name, text in files.items():
        (into / "gen" / f"{name}.c").write_text(text, encoding="utf-8")
    program = into / "tables"
    command = [
        "gcc", "-g", "-O1", "-w", "-std=gnu11", "-fno-strict-aliasing", f"-I{into}", f"-I{HERE}", *flags,
        "-o", str(program), str(HERE / "oracle.c"), *(str(into / "gen" / f"{name}.c") for name in files),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    return program
