import attrs
import pytest

from pcipt.pci import Bar, BarKind, ConfigSpace, Range, Resource, Sbdf, SrIov
from pcipt.pci.function_bars import function_bars, virtual_bars
from pcipt.pci.structures import Allocation
from tests.pci.spaces import BRIDGE, ENDPOINT, bars, space

NONE = Resource(0, 0, 0)
NETWORK = 0x02_0000
BOTH, NEITHER, IO_ONLY, MEMORY_ONLY = 3, 0, 1, 2


def decode(registers, resources=(), *, command=BOTH, class_code=NETWORK, allocations=(), header=ENDPOINT):
    config = ConfigSpace(space({0x04: (2, command), **registers}, header=header))
    found, findings = function_bars(config, resources, class_code, allocations)
    return list(found), [finding.code for finding in findings]


def line(start, size=0x1000, flags=0x200):
    return Resource(start, size, flags)


#  registers, lines, command -> address of the only BAR, codes
DRIFT = [
    (bars(0xFEB0_0000), [line(0xFEB0_0000)], BOTH, 0xFEB0_0000, []),
    (bars(0xFEB0_0000), [line(0xFEB1_0000)], BOTH, 0xFEB0_0000, ["bar-drift"]),
    (bars(0xFEB0_0000), [line(0xFEB1_0000)], NEITHER, 0xFEB0_0000, ["bar-drift"]),
    (bars(0xFEB0_0000), [line(0xFEB1_0000)], IO_ONLY, 0xFEB0_0000, ["bar-drift"]),
    (bars(0xFEB0_0000), [line(0xFEB1_0000, size=0)], BOTH, 0xFEB0_0000, []),  # Linux believes nothing
    (bars(0xC001), [line(0xD000, 0x20, 0x101)], IO_ONLY, 0xC000, ["bar-drift"]),
    (bars(0xC001), [line(0xD000, 0x20, 0x101)], MEMORY_ONLY, 0xC000, ["bar-drift"]),
    (bars(0xE000_0004, 1), [line(0xE000_0000)], BOTH, 0x1_E000_0000, ["bar-drift"]),  # an upper half was lost
    (bars(0xE000_0004, 1), [line(0x1_E000_0000)], BOTH, 0x1_E000_0000, []),
    ({}, [line(0xFEB0_0000)], BOTH, 0, ["bar-drift"]),  # a reset function
    ({}, [line(0xFEB0_0000)], NEITHER, 0, ["bar-drift"]),  # one that Linux has not enabled again
    ({}, [line(0xFEB0_0000, flags=0x230)], BOTH, 0xFEB0_0000, []),  # Linux says that no register is behind it
    (
        bars(0xFEC0_0000),
        [line(0xFEB0_0000, flags=0x230)],
        BOTH,
        0xFEC0_0000,
        ["bar-drift"],
    ),  # but there is one
    ({0x30: (4, 0xFEC0_0001)}, [NONE] * 6 + [line(0xFED0_0000)], BOTH, 0xFEC0_0000, ["bar-drift"]),
    ({0x30: (4, 0xFEC0_0000)}, [NONE] * 6 + [line(0xFED0_0000)], BOTH, 0xFEC0_0000, []),
    ({}, [NONE] * 6 + [line(0xC_0000, 0x2_0000, 0x212)], BOTH, 0, []),  # a shadowed ROM is a copy in RAM
]


@pytest.mark.parametrize(("registers", "resources", "command", "address", "codes"), DRIFT)
def test_a_register_and_linux_may_disagree(registers, resources, command, address, codes):
    found, said = decode(registers, resources, command=command)
    assert ([bar.address for bar in found], said) == ([address], codes)


@pytest.mark.parametrize(
    ("registers", "header", "codes"),
    [
        (bars(0, 0, 0, 0, 0, 0xE000_0004), ENDPOINT, ["bar-broken"]),
        (bars(0, 0, 0, 0, 0xE000_0004, 1), ENDPOINT, []),
        (bars(0, 0xE000_0004), BRIDGE, ["bar-broken"]),  # a bridge has two BARs
        (bars(0xE000_0004, 1), BRIDGE, []),
        (bars(0, 0, 0, 0, 0, 0xE000_0000), ENDPOINT, []),
    ],
)
def test_the_last_bar_cannot_have_64_bits(registers, header, codes):
    found, said = decode(registers, header=header)
    assert (len(found), said) == (1, codes)


@pytest.mark.parametrize(("bei", "header"), [(5, ENDPOINT), (1, BRIDGE)])
@pytest.mark.parametrize("register", [0, 0x4, 0xC])
def test_an_allocation_in_place_of_the_last_bar_may_be_above_4_gib(bei, header, register):
    """An entry needs no pair of registers, whatever type its register of address 0 has."""
    found, said = decode({0x10 + 4 * bei: (4, register)}, allocations=[entry(bei, 2**40)], header=header)
    assert (found, said) == ([fixed(bei, BarKind.MEM64, 2**40)], ["enhanced-allocation"])


def test_a_last_bar_of_64_bits_that_no_allocation_replaces_is_broken():
    _, said = decode(bars(0, 0, 0, 0, 0, 0xE000_0004), allocations=[entry(5, 2**40)])
    assert said == ["bar-broken", "enhanced-allocation"]


LEGACY = [line(0x1F0, 8, 0x110), line(0x3F6, 1, 0x110), line(0x170, 8, 0x110), line(0x376, 1, 0x110)]
NATIVE = bars(0xC001, 0xC101, 0xC201, 0xC301)

#  programming interface, registers, lines -> addresses of BARs 0-3, which of them decode, codes
IDE = [
    (0x80, {}, LEGACY, [0x1F0, 0x3F6, 0x170, 0x376], [True] * 4, []),  # compatibility mode
    (0x80, NATIVE, LEGACY, [0x1F0, 0x3F6, 0x170, 0x376], [True] * 4, []),  # its registers are ignored
    (0x8A, NATIVE, LEGACY, [0x1F0, 0x3F6, 0x170, 0x376], [True] * 4, []),  # it could be switched
    (0x85, NATIVE, [], [0xC000, 0xC100, 0xC200, 0xC300], [True] * 4, []),  # native mode
    (
        0x81,
        NATIVE,
        [NONE, NONE, *LEGACY[2:]],
        [0xC000, 0xC100, 0x170, 0x376],
        [True] * 4,
        [],
    ),  # one channel each
    (0x84, NATIVE, LEGACY[:2], [0x1F0, 0x3F6, 0xC200, 0xC300], [True] * 4, []),
    (0x80, NATIVE, [], [0xC000, 0xC100, 0xC200, 0xC300], [False] * 4, []),  # a dump has no lines
    (0x85, NATIVE, LEGACY, [0xC000, 0xC100, 0xC200, 0xC300], [True] * 4, ["bar-drift"] * 4),
]


@pytest.mark.parametrize(("interface", "registers", "resources", "addresses", "decoding", "codes"), IDE)
def test_an_ide_controller_may_ignore_its_registers(
    interface, registers, resources, addresses, decoding, codes
):
    found, said = decode(registers, resources, class_code=0x01_0100 | interface)
    assert [(bar.address, bar.decoding, bar.kind) for bar in found] == [
        (address, decodes, BarKind.IO) for address, decodes in zip(addresses, decoding, strict=True)
    ]
    assert said == codes


def test_the_bus_master_bar_of_an_ide_controller_is_always_real():
    found, said = decode(bars(0, 0, 0, 0, 0xF001), [*LEGACY, line(0xF100, 16, 0x101)], class_code=0x01_0180)
    assert (found[-1].index, found[-1].address, said) == (4, 0xF000, ["bar-drift"])


@pytest.mark.parametrize("class_code", [None, 0x01_0180 - 0x100, 0x01_0601, 0x02_0100])
def test_no_other_class_ignores_its_registers(class_code):
    found, _ = decode(bars(0xC001), LEGACY[:1], class_code=class_code)
    assert [bar.address for bar in found] == [0xC000]


@pytest.mark.parametrize("command", range(4))
def test_compatibility_ports_need_io_decode(command):
    found, _ = decode({}, LEGACY, command=command, class_code=0x01_0180)
    assert {bar.decoding for bar in found} == {bool(command & 1)}


def entry(bei, start=0xFD00_0000, size=0x1000, *, properties=0, enabled=True):
    return Allocation(bei, properties, Range(start, size) if size else None, enabled)


def fixed(index, kind, start=0xFD00_0000, *, prefetchable=False):
    return Bar(index, kind, start, 0x1000, prefetchable, True)


#  registers, lines, entries -> BARs
ALLOCATED = [
    ({}, [], [entry(0)], [fixed(0, BarKind.MEM32)]),
    ({}, [line(0xFD00_0000)], [entry(0)], [fixed(0, BarKind.MEM32)]),
    ({}, [], [entry(5, properties=1)], [fixed(5, BarKind.MEM32, prefetchable=True)]),
    ({}, [], [entry(0, 2**40)], [fixed(0, BarKind.MEM64, 2**40)]),
    (
        {},
        [],
        [entry(0, 2**32 - 0x800)],
        [fixed(0, BarKind.MEM64, 2**32 - 0x800)],
    ),  # only its end needs 64 bits
    ({}, [], [entry(1, 0xC000, properties=2)], [fixed(1, BarKind.IO, 0xC000)]),
    ({}, [], [entry(8)], [fixed(6, BarKind.ROM)]),
    ({}, [], [entry(6)], []),  # what is behind a bridge
    ({}, [], [entry(7)], []),  # in place of nothing
    ({}, [], [entry(9, properties=4)], []),  # a VF BAR
    ({}, [], [entry(15)], []),
    ({}, [], [entry(0, enabled=False)], []),
    ({}, [], [entry(0, properties=0xFF)], []),  # unavailable
    ({}, [], [entry(0, properties=0xFD)], []),  # reserved
    ({}, [], [entry(0, size=0)], []),  # contradicts itself
    # beside a register that is not zero the register counts
    (bars(0xFE00_0000), [], [entry(0)], [Bar(0, BarKind.MEM32, 0xFE00_0000, None, False, True)]),
    ({}, [], [entry(2), entry(0)], [fixed(0, BarKind.MEM32), fixed(2, BarKind.MEM32)]),
]


@pytest.mark.parametrize(("registers", "resources", "entries", "expected"), ALLOCATED)
def test_enhanced_allocation_stands_in_place_of_registers(registers, resources, entries, expected):
    assert decode(registers, resources, allocations=entries) == (expected, ["enhanced-allocation"])


def test_linux_may_know_an_allocation_that_was_not_read():
    """With the header alone the capability is out of sight, but Linux marks such a line."""
    assert decode({}, [line(0xFD00_0000, flags=0x230)]) == ([fixed(0, BarKind.MEM32)], [])


@pytest.mark.parametrize("command", range(4))
@pytest.mark.parametrize(("properties", "bit"), [(0, 2), (1, 2), (2, 1)])
def test_an_allocation_decodes_as_its_kind_does(properties, bit, command):
    found, _ = decode({}, allocations=[entry(0, properties=properties)], command=command)
    assert [bar.decoding for bar in found] == [bool(command & bit)]


def test_the_finding_names_the_ranges():
    config = ConfigSpace(space())
    _, (said,) = function_bars(config, (), None, [entry(0), entry(1, size=0), entry(2, 0x1000)])
    assert "(0xfd000000-0xfd000fff, 0x1000-0x1fff)" in said.text
    _, (said,) = function_bars(config, (), None, [entry(1, size=0)])
    assert "(none)" in said.text


@pytest.mark.parametrize("size", [0, 4, 5])
def test_without_a_command_register_there_is_no_bar(size):
    assert function_bars(ConfigSpace(space(bars(0xFEB0_0000), size=size)), [line(0x1000)], None) == ((), [])


PF, VF = Sbdf(0, 2, 0, 0), Sbdf(0, 2, 0x10, 2)


def physical(*, number=4, size=0x4000, decoding=True, lost=False):
    own = Bar(0, BarKind.MEM64, 0 if lost else 0xE000_0000, size, False, decoding, unassigned=lost)
    return PF, SrIov(8, 8, number, 0x80, 2, 0x10ED, True, True, False, (own,))


LINUX = Bar(0, BarKind.MEM32, 0xE000_4000, 0x4000, False, None)
COMPUTED = Bar(0, BarKind.MEM64, 0xE000_4000, 0x4000, False, True)
LOST = Bar(0, BarKind.MEM64, 0, 0x4000, False, True, unassigned=True)

#  lines, physical function -> BARs of the second virtual function, codes
VIRTUAL = [
    ([line(0xE000_4000, 0x4000)], physical(), [COMPUTED], []),
    ([], physical(), [COMPUTED], []),
    ([line(0xE800_4000, 0x4000)], physical(), [COMPUTED], ["bar-drift"]),  # the VF BAR was moved
    ([line(0xE800_4000, 0x4000)], physical(decoding=False), [attrs.evolve(COMPUTED, decoding=False)], []),
    ([NONE], physical(lost=True), [LOST], ["bar-unassigned"]),  # the VF BAR has no address
    ([line(0xE000_4000, 0x4000)], None, [LINUX], []),  # its owner cannot be read
    ([line(0xE000_4000, 0x4000)], physical(number=1), [LINUX], []),  # its owner does not know it
    ([line(0xE000_4000, 0x4000)], physical(size=None), [LINUX], []),
    ([NONE] * 6 + [line(0xC_0000)], None, [], []),  # a virtual function has no ROM
    ([], None, [], []),
]  # fmt: skip


@pytest.mark.parametrize(("resources", "physfn", "expected", "codes"), VIRTUAL)
def test_a_virtual_function_has_the_bars_its_owner_gives_it(resources, physfn, expected, codes):
    found, findings = virtual_bars(VF, resources, physfn)
    assert (list(found), [finding.code for finding in findings]) == (expected, codes)
