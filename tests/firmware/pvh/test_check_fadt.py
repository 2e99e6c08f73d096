import pytest

from pcipt.firmware.acpi.fadt import HW_REDUCED, NO_VGA
from pcipt.firmware.acpi.table_set import Domain
from pcipt.firmware.pvh.check_tables import check_tables
from pcipt.firmware.pvh.facts import Facts
from tests.pvh import native_fadt
from tests.pvh_tables import BASE, GUEST, HARDWARE, G, H, patched, problems, replaced


@pytest.mark.parametrize(
    ("domain", "name", "changes", "expected"),
    [
        (G, "FACP", [(109, "<H", 0x20)], ("error", "no-vga", "FACP (FACP)", 109)),
        (G, "FACP", [(109, "<H", 0x04)], ("error", "no-cmos-rtc", "FACP (FACP)", 109)),
        (G, "FACP", [(109, "<H", 0x26)], ("warn", "legacy", "FACP (FACP)", 109)),
        (G, "FACP", [(112, "<I", 0x8175 | HW_REDUCED)], ("error", "hw-reduced", "FACP (FACP)", 112)),
        (G, "FACP", [(76, "<I", 0xB008)], ("warn", "pm-timer", "FACP (FACP)", 76)),
        (G, "FACP", [(212, "<Q", 0xB008)], ("warn", "pm-timer", "FACP (FACP)", 76)),  # the wide one
        (G, "FACP", [(46, "<H", 10)], ("warn", "sci", "FACP (FACP)", 46)),
        (G, "FACP", [(140, "<Q", 0xDEAD)], ("error", "pointer", "FACP (FACP)", 140)),  # no DSDT there
        (G, "FACP", [(40, "<I", 0xDEAD)], ("warn", "pointer", "FACP (FACP)", 140)),  # they differ
        (G, "FACP", [(40, "<I", 0), (140, "<Q", 0)], ("error", "pointer", "FACP (FACP)", 40)),
        (G, "FACP", [(36, "<I", 0)], ("error", "pointer", "FACP (FACP)", 132)),  # no FACS
        (G, "FACP", [(36, "<I", 0xFC00_0040)], ("error", "pointer", "FACP (FACP)", 36)),  # the DSDT
        (G, "FACP", [(8, "<B", 6)], ("warn", "fadt-length", "FACP (FACP)", 4)),  # 268 bytes are too few
        (H, "FACP", [(112, "<I", HW_REDUCED)], ("warn", "hw-reduced", "FACP", 112)),
    ],
)  # fmt: skip
def test_a_changed_field_is_found(domain, name, changes, expected):
    assert expected in problems(patched(BASE[domain], name, *changes), domain, vcpus=2)


@pytest.mark.parametrize(
    ("size", "revision", "expected"),
    [
        (115, 1, "115 bytes are no FADT, it has at least 116"),
        (240, 3, "240 bytes, revision 3 has 244"),  # it is cut within its last field
        (275, 6, "275 bytes, revision 6 has 276"),
        (300, 6, "300 bytes, revision 6"),  # of a later edition
        (244, 3, "244 bytes, revision 3"),
    ],
)
def test_the_length_is_that_of_the_table(size, revision, expected):
    data = bytearray(native_fadt().ljust(size, b"\0")[:size])
    data[4:9] = size.to_bytes(4, "little") + bytes([revision])
    tables = replaced(HARDWARE, "FACP", bytes(data))
    rows = check_tables(tables, Domain.HARDWARE, Facts())
    assert [row.reason for row in rows if row.rule == "fadt-length"] == [expected]


@pytest.mark.parametrize(
    ("arch", "vga", "expected"),
    [
        (NO_VGA, True, {("warn", "no-vga", "FACP", 109)}),  # it contradicts the machine
        (NO_VGA, False, set()),
        (0, False, set()),  # usual on servers without a screen
        (NO_VGA, None, set()),
    ],
)
def test_the_machine_is_asked_for_its_vga(arch, vga, expected):
    tables = replaced(HARDWARE, "FACP", native_fadt(IAPC_BOOT_ARCH=arch))
    assert problems(tables, Domain.HARDWARE, vga=vga) == expected


def test_the_pm_timer_that_libxl_leaves_in_revision_1_is_known():
    assert problems(patched(GUEST, "FACP-rev1", (76, "<I", 0xB008)), Domain.GUEST) == set()
