"""What the shim declares of Xen, compared with Xen's own headers where libxen-dev is installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
HEADER = HERE.parents[1] / "csrc" / "hypervisor.h"
CC = shutil.which("cc") or shutil.which("gcc")


def compiles(source: str | Path, *flags: str) -> tuple[bool, str]:
    assert CC is not None
    # gnu11: Xen's headers use anonymous unions and attributes only there
    command = [CC, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *flags]
    text = source.read_text() if isinstance(source, Path) else source
    done = subprocess.run([*command, "-xc", "-"], input=text, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stderr


@pytest.fixture(scope="module", autouse=True)
def _headers():
    if CC is None:
        pytest.skip("no C compiler is installed")
    if not compiles("#include <xencall.h>\n#include <xenctrl.h>\n")[0]:
        pytest.skip("Xen's headers are not installed (libxen-dev)")


def test_every_declaration_is_xens():
    fine, errors = compiles(HERE / "compare_headers.c", f"-I{HEADER.parent}")
    assert fine, errors


# what is declared wrong, the text it replaces; each must be noticed
WRONG = {
    "segment of 32 bits": ("uint16_t segment;", "uint32_t segment;"),
    "flags behind physfn": ("uint32_t flags;\n    uint8_t physfn_bus;", "uint8_t physfn_bus;\n    int x;"),
    "hypercall": ("PHYSDEV_OP 33u", "PHYSDEV_OP 32u"),
    "add is remove": ("DEVICE_ADD 25u", "DEVICE_ADD 26u"),
    "remove is add": ("DEVICE_REMOVE 26u", "DEVICE_REMOVE 25u"),
    "extended flag": ("FLAG_EXTENDED 0x1u", "FLAG_EXTENDED 0x4u"),
    "virtual flag": ("FLAG_VIRTUAL 0x2u", "FLAG_VIRTUAL 0x4u"),
    "domain": ("0x7ff4u", "0x7ff0u"),
    "no node": ("NODE_NONE 0xffffffffu", "NODE_NONE 0xfffffffdu"),
    "unknown": ("NODE_UNKNOWN 0xfffffffeu", "NODE_UNKNOWN 0xffffffffu"),
    "memory hypercall": ("MEMORY_OP 12u", "MEMORY_OP 13u"),
    "reserved map": ("RESERVED_MAP 27u", "RESERVED_MAP 26u"),
    "all regions": ("RESERVED_ALL 0x1u", "RESERVED_ALL 0x2u"),
    "version hypercall": ("XEN_VERSION 17u", "XEN_VERSION 18u"),
    "command line is build id": ("VERSION_COMMAND_LINE 9u", "VERSION_COMMAND_LINE 10u"),
    "command line is longer": ("COMMAND_LINE_SIZE 1024", "COMMAND_LINE_SIZE 512"),
    "map is unmap": ("MAPPING_ADD 1u", "MAPPING_ADD 0u"),
    "unmap is map": ("MAPPING_REMOVE 0u", "MAPPING_REMOVE 1u"),
    "pages in front of the frame": ("    uint64_t start;\n    uint64_t count;",
                                    "    uint32_t count;\n    uint64_t start;"),
    "regions in front of their number": ("    uint32_t count;\n    struct pcipt_region *regions;",
                                         "    struct pcipt_region *regions;\n    uint32_t count;"),
    "frames cut to 32 bits": ("unsigned long first_mfn,", "uint32_t first_mfn,"),
    "pages cut to 32 bits": ("unsigned long count, uint32_t add", "unsigned int count, uint32_t add"),
    "logger's order": ("    pcipt_logger_message *message;\n    pcipt_logger_progress *progress;",
                       "    pcipt_logger_progress *progress;\n    pcipt_logger_message *message;"),
    "logger's error": ("int error,", "long error,"),
    "flags of opening": ("*logger, unsigned int flags);", "*logger, unsigned long flags);"),
    "argument cut to 32 bits": ("uint64_t arg1, uint64_t arg2", "uint64_t arg1, uint32_t arg2"),
    "size of a buffer": ("*xcall, size_t size", "*xcall, int size"),
    "count of devices": ("*xch, unsigned int count,", "*xch, uint64_t count,"),
    "address cut to 16 bits": ("uint32_t domain, uint32_t sbdf", "uint32_t domain, uint16_t sbdf"),
    "keys": ("*xch, const char *keys", "*xch, char keys"),
    "console index": ("int incremental, uint32_t *index", "int incremental, uint64_t *index"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_declaration_is_noticed(what, tmp_path):
    right, wrong = WRONG[what]
    text = HEADER.read_text()
    assert right in text
    asserts = [line for line in text.splitlines() if line.startswith("_Static_assert")]
    changed = text.replace(right, wrong)
    # without our own assertions: Xen's headers alone must contradict
    for line in asserts:
        changed = changed.replace(line, "")
    (tmp_path / "hypervisor.h").write_text(changed)
    fine, errors = compiles(HERE / "compare_headers.c", f"-I{tmp_path}")
    assert not fine
    assert "static assertion failed" in errors
