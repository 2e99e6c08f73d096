"""How much of MMCFG Xen and Linux take, by the memory map (mmconfig-shared.c, is_mmconf_reserved)."""

import pytest

from pcipt.firmware.memory_map import MemoryType, entry, flatten_map
from pcipt.firmware.mmcfg import Basis, findings_of, mmcfg_of, taken_of_tables, without_ram
from pcipt.pci import Address, Frames, Gfn, Range
from pcipt.pci.write import EcamRegion
from pcipt.remap.guard.protected import protected_ranges
from tests.firmware.acpi.test_mcfg import entry as mcfg_entry
from tests.firmware.acpi.test_mcfg import table

MIB = 1 << 20
RAM, RESERVED, NVS = MemoryType.RAM, MemoryType.RESERVED, MemoryType.NVS
LOW = entry(0, 0x8000_0000, RAM)


def reserved(start, mib):
    return entry(start, mib * MIB, RESERVED)


#  claim, memory map; last bus that is taken, what the map says
CASES = {
    "all of it": (EcamRegion(0xE000_0000), [reserved(0xE000_0000, 256)], 0xFF, "RESERVED"),
    "case 04: 64 of 256 MiB": (
        EcamRegion(0xF800_0000), [reserved(0xF800_0000, 64), entry(1 << 32, 1 << 30, RAM)], 0x3F, "RESERVED",
    ),
    "65 MiB give 64": (EcamRegion(0xF000_0000), [reserved(0xF000_0000, 65)], 0x3F, "RESERVED"),
    "127 MiB give 64": (EcamRegion(0xF000_0000), [reserved(0xF000_0000, 127)], 0x3F, "RESERVED"),
    "16 MiB are the least": (EcamRegion(0xF000_0000), [reserved(0xF000_0000, 16)], 0x0F, "RESERVED"),
    "15 MiB are too few": (EcamRegion(0xF000_0000), [reserved(0xF000_0000, 15)], 0xFF, "REFUSED"),
    "a small area that is reserved as a whole": (
        EcamRegion(0xF000_0000, 0, 0, 4), [reserved(0xF000_0000, 5)], 4, "RESERVED",
    ),
    "a small area of which a part is reserved": (
        EcamRegion(0xF000_0000, 0, 0, 4), [reserved(0xF000_0000, 4)], 4, "REFUSED",
    ),
    "buses from 40 on, 64 of 192 MiB: halved to 48": (
        EcamRegion(0xE000_0000, 0, 0x40, 0xFF), [reserved(0xE400_0000, 64)], 0x6F, "RESERVED",
    ),
    "the area begins at its first bus": (
        EcamRegion(0xE000_0000, 0, 0x40, 0x7F), [reserved(0xE400_0000, 64)], 0x7F, "RESERVED",
    ),
    "adjacent entries are one": (
        EcamRegion(0xE000_0000), [reserved(0xE000_0000, 128), reserved(0xE800_0000, 128)], 0xFF, "RESERVED",
    ),
    "a gap between entries": (
        EcamRegion(0xE000_0000), [reserved(0xE000_0000, 127), reserved(0xE800_0000, 128)], 0x3F, "RESERVED",
    ),
    "only the end is reserved": (EcamRegion(0xE000_0000), [reserved(0xE800_0000, 128)], 0xFF, "REFUSED"),
    "another type is not reserved": (
        EcamRegion(0xE000_0000), [entry(0xE000_0000, 256 * MIB, NVS)], 0xFF, "REFUSED",
    ),
    "a hole": (EcamRegion(0xE000_0000), [LOW], 0xFF, "HOLE"),
    "over RAM": (EcamRegion(0x7000_0000), [LOW], 0xFF, "REFUSED"),
    "above 4 GiB": (EcamRegion(0x40_0000_0000), [reserved(0x40_0000_0000, 256)], 0xFF, "RESERVED"),
    "another segment": (EcamRegion(0xE000_0000, 3), [reserved(0xE000_0000, 32)], 0x1F, "RESERVED"),
    "no memory map": (EcamRegion(0xE000_0000), [], 0xFF, "UNKNOWN"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_as_much_is_taken_as_the_map_reserves(case):
    claim, memory, last, basis = CASES[case]
    (area,) = mmcfg_of([claim], memory)
    assert (area.taken.end_bus, area.basis.name) == (last, basis)
    assert area.claimed == claim
    assert (area.taken.base, area.taken.segment, area.taken.start_bus) == (
        claim.base, claim.segment, claim.start_bus,
    )  # fmt: skip
    assert area.range.start == claim.first
    assert area.range.size == (last - claim.start_bus + 1) * MIB


def test_each_entry_is_taken_by_itself():
    claims = [EcamRegion(0xE000_0000), EcamRegion(0xC000_0000, 1), EcamRegion(0xD000_0000, 2, 0x20, 0x3F)]
    memory = [LOW, reserved(0xE000_0000, 256), reserved(0xC000_0000, 128)]
    taken = [(each.taken.segment, each.taken.end_bus, each.basis) for each in mmcfg_of(claims, memory)]
    assert taken == [(0, 0xFF, Basis.RESERVED), (1, 0x7F, Basis.RESERVED), (2, 0x3F, Basis.HOLE)]


CUT = (table(mcfg_entry(0xF800_0000)), [LOW, reserved(0xF800_0000, 64), entry(1 << 32, 1 << 30, RAM)])


def test_accesses_are_decoded_in_what_is_taken():
    data, memory = CUT
    assert taken_of_tables([b"short", data], memory) == (EcamRegion(0xF800_0000, 0, 0, 0x3F),)
    assert taken_of_tables([data], None) == (EcamRegion(0xF800_0000),)


@pytest.mark.parametrize(
    ("page", "why"),
    [(0xF8000, "MMCFG"), (0xFBFFF, "MMCFG"), (0xFC000, None), (0xFD000, None), (0x100000, "RAM")],
)
def test_the_guards_protect_what_is_taken_and_leave_bars_behind_it(page, why):
    data, memory = CUT
    said = protected_ranges(memory, (), [data]).why_not_reserved(Frames(Gfn(page), 1))
    assert (said.partition(" at ")[0] if said else None) == why


def test_the_guards_protect_what_linux_uses_by_acpi():
    data, memory = CUT
    named = [(Range(Address(0xF800_0000), 256 * MIB - 0x800_0000), "PCI MMCONFIG 0000 [bus 00-7f]")]
    assert protected_ranges(memory, named, [data]).why_not_reserved(Frames(Gfn(0xFD000), 1)) is not None


def codes(claims, memory, named=()):
    return [finding.code for finding in findings_of(mmcfg_of(claims, memory), named)]


@pytest.mark.parametrize(
    ("claims", "memory", "named", "expected"),
    [
        ([EcamRegion(0xE000_0000)], [reserved(0xE000_0000, 256)], (), []),
        ([EcamRegion(0xE000_0000)], [reserved(0xE000_0000, 256)], ["PCI ECAM 0000 [bus 00-ff]"], []),
        ([EcamRegion(0xE000_0000)], [reserved(0xE000_0000, 64)], (), ["mmcfg-cut"]),
        ([EcamRegion(0xE000_0000)], [LOW], (), ["mmcfg-not-reserved"]),
        ([EcamRegion(0x7000_0000)], [LOW], (), ["mmcfg-not-reserved"]),
        ([EcamRegion(0xE000_0000)], [], (), []),
        (
            [EcamRegion(0xE000_0000)], [reserved(0xE000_0000, 64)], ["PCI MMCONFIG 0000 [bus 00-ff]"],
            ["mmcfg-cut", "mmcfg-differs"],
        ),
        (
            [EcamRegion(0xE000_0000)], [reserved(0xE000_0000, 64)], ["PCI ECAM 0000 [bus 00-3f]"],
            ["mmcfg-cut"],
        ),
        (
            [EcamRegion(0xE000_0000)], [reserved(0xE000_0000, 64)], ["PCI ECAM 0001 [bus 00-ff]"],
            ["mmcfg-cut"],
        ),
        (
            [EcamRegion(0xE000_0000), EcamRegion(0xE000_0000, 0, 0x10, 0x1F)],
            [reserved(0xE000_0000, 256)], (), ["mmcfg-overlap"],
        ),
        ([EcamRegion(0xE000_0000)] * 2, [reserved(0xE000_0000, 256)], (), []),  # the same twice
    ],
)  # fmt: skip
def test_what_is_odd_is_told(claims, memory, named, expected):
    assert codes(claims, memory, named) == expected


def test_a_hole_is_told_with_the_releases_that_use_it():
    (finding,) = findings_of(mmcfg_of([EcamRegion(0xE000_0000)], [LOW]))
    assert "from 4.20.4, 4.21.2 and 4.22.0 on uses the area" in finding.text
    assert "if the firmware is of 2016 or newer; else, and an older Xen, only after Linux" in finding.text


def test_where_the_domain_has_ram_nothing_is_trapped():
    memory = flatten_map([entry(0x1000, 0x1000, RAM), entry(0x4000, 0x1000, RAM), entry(0x5000, 0x1000, NVS)])
    parts = [(int(each.start), each.size) for each in without_ram(Range(Address(0), 0x8000), memory)]
    assert parts == [(0, 0x1000), (0x2000, 0x2000), (0x5000, 0x3000)]
    assert list(without_ram(Range(Address(0x1000), 0x1000), memory)) == []
