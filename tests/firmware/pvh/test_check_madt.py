import time

import pytest

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.acpi.madt import InterruptOverride, IoApic, LocalApic, OtherEntry
from pcipt.firmware.acpi.table_set import Domain
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.pvh.build_tables import Guest, build_guest_tables
from tests.pvh import IO_APIC, NMI, TIMER, native_madt
from tests.pvh_tables import BASE, HARDWARE, PCAT, G, H, patched, problems, replaced


@pytest.mark.parametrize(
    ("domain", "name", "changes", "expected"),
    [
        (G, "APIC", [(40, "<I", 1)], ("warn", "pcat-compat", "APIC", 40)),
        (H, "APIC", [(40, "<I", 1)], ("warn", "pcat-compat", "APIC", 40)),
        (G, "APIC", [(40, "<I", 2)], ("error", "madt-flags", "APIC", 40)),
        (G, "APIC", [(36, "<I", 0xFEE0_1000)], ("error", "lapic-address", "APIC", 36)),
        (G, "APIC", [(55, "<B", 0)], ("error", "local-apics", "APIC", 52)),  # id 0 again
        (G, "APIC", [(54, "<B", 0)], ("error", "local-apics", "APIC", 52)),  # processor 0 again
        (G, "APIC", [(56, "<I", 0)], ("error", "local-apics", "APIC", None)),  # one of two is off
        (G, "APIC", [(56, "<I", 5)], ("error", "local-apics", "APIC", 52)),  # a reserved flag
        (G, "APIC", [(53, "<B", 0)], ("error", "acpi-entry", "APIC", 52)),  # length 0
        (H, "APIC", [(48, "<I", 0xFEC0_0001)], ("error", "io-apic", "APIC", 44)),
        (H, "APIC", [(60, "<I", 0xFEC0_0000)], ("error", "io-apic", "APIC", 56)),  # on the other
        (H, "APIC", [(64, "<I", 0)], ("error", "io-apic", "APIC", 56)),  # the same interrupts
        (H, "APIC", [(102, "<B", 1)], ("error", "override", "APIC", 100)),  # not ISA
        (H, "APIC", [(103, "<B", 16)], ("error", "override", "APIC", 100)),
        (H, "APIC", [(113, "<B", 0)], ("error", "override", "APIC", 110)),  # twice
        (H, "APIC", [(104, "<I", 1000)], ("error", "override", "APIC", 100)),  # nobody has it
        (H, "APIC", [(108, "<H", 2)], ("error", "override", "APIC", 100)),  # reserved polarity
    ],
)  # fmt: skip
def test_a_changed_field_is_found(domain, name, changes, expected):
    assert expected in problems(patched(BASE[domain], name, *changes), domain, vcpus=2)


@pytest.mark.parametrize(
    ("madt", "facts", "expected"),
    [
        (native_madt(IO_APIC, NMI), {}, {("warn", "madt-entry", "APIC", 88), PCAT}),
        (native_madt(OtherEntry(0x7F, b"\x7f\x02")), {}, {("warn", "madt-entry", "APIC", 76),
                                                        PCAT}),
        (native_madt(TIMER), {}, {("error", "override", "APIC", 76), PCAT}),
        (native_madt(IO_APIC), {"vcpus": 5}, {("error", "local-apics", "APIC", None),
                                            PCAT}),
        (native_madt(IoApic(0, 0x10_0000, 0)), {"memory": (entry(0x10_0000, 0x1000, MemoryType.RAM),)},
         {("error", "io-apic", "APIC", 76), PCAT}),
        (native_madt(IO_APIC), {"memory": (entry(0, 0x1000, MemoryType.RAM),)}, {PCAT}),  # RAM is elsewhere
        (native_madt(IoApic(0, 0, 0)), {}, {("error", "io-apic", "APIC", 76), PCAT}),
    ],
)  # fmt: skip
def test_other_madts(madt, facts, expected):
    assert problems(replaced(HARDWARE, "APIC", madt), Domain.HARDWARE, **facts) == expected


def test_an_io_apic_that_nobody_asked_for():
    tables = build_guest_tables(Guest(2, io_apic=True))
    assert problems(tables, Domain.GUEST) == {("warn", "io-apic", "APIC", None)}
    assert problems(tables, Domain.GUEST, io_apic=True) == set()


def test_a_huge_madt_is_judged_soon():
    apics = b"".join(LocalApic(n & 0xFF, n & 0xFF).data for n in range(40_000))
    ios = b"".join(IoApic(0, 0xFEC0_0000 + 16 * n, 24 * n).data for n in range(20_000))
    overrides = b"".join(InterruptOverride(n & 0xF, n, 0).data for n in range(20_000))
    data = build_table(Header("APIC", 4), bytes(8) + apics + ios + overrides)
    started = time.monotonic()
    assert problems(replaced(HARDWARE, "APIC", data), Domain.HARDWARE)
    assert time.monotonic() - started < 10
