import struct

import attrs
import pytest

from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.firmware.passthrough import memory as rules
from pcipt.firmware.passthrough.verdict import FixedRange
from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.regions import Regions
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import Range, RawFunction, Resource, parse_sbdf
from tests.firmware.passthrough_cases import evidence_of, said_by, text_of
from tests.firmware.reserved_tables import dmar, ivmd, ivrs, rmrr, scope
from tests.machines import bridge, function

MEMORY, IO = 0x200, 0x100
NONE = (0, 0, 0)


def device(address, *bars, command=3, parent="00:1c.0"):
    """Make a function with BARs of (address, size, flags)."""
    registers = [start | (1 if flags == IO else 0) for start, _, flags in bars]
    lines = [*bars, *[NONE] * (7 - len(bars))]
    return function(address, parent=parent, command=command, bars=registers, resources=lines)


def port(*, memory=None, prefetchable=None, io=None, class_code=None):
    raw = bridge("00:1c.0", 3, 3)
    data = bytearray(raw.config)
    if memory is not None:
        struct.pack_into("<HH", data, 0x20, memory[0] >> 16, memory[1] >> 16)
    if prefetchable is not None:
        struct.pack_into(
            "<HH", data, 0x24, prefetchable[0] >> 16 & 0xFFFF | 1, prefetchable[1] >> 16 & 0xFFF0
        )
        struct.pack_into("<II", data, 0x28, prefetchable[0] >> 32, prefetchable[1] >> 32)
    if io is not None:
        data[0x1C:0x1E] = bytes(port >> 8 for port in io)
    if class_code is not None:
        struct.pack_into("<I", data, 8, class_code << 8)
    return attrs.evolve(raw, config=bytes(data))


BAR = (0xFEB0_0000, 0x2_0000, MEMORY)
WINDOWS = [
    # the windows above, the BAR, whether it is passed on
    ({"memory": (0xFEB0_0000, 0xFEBF_FFFF)}, BAR, True),
    ({"memory": (0xFEB0_0000, 0xFEB0_0000)}, BAR, True),  # a window ends with its MiB
    ({"memory": (0xFEA0_0000, 0xFEA0_0000)}, BAR, False),
    ({}, BAR, False),  # all windows closed
    ({"prefetchable": (0xFEB0_0000, 0xFEBF_FFFF)}, BAR, True),
    ({"io": (0x1000, 0x1000)}, BAR, False),
    ({"io": (0x1000, 0x1000)}, (0x1000, 0x20, IO), True),
    ({"io": (0x1000, 0x1000)}, (0x2000, 0x20, IO), False),
    ({"memory": (0xFEB0_0000, 0xFEB0_0000)}, (0xFEBF_0000, 0x2_0000, MEMORY), False),  # half of it
    ({"class_code": 0x060401}, BAR, True),  # subtractive decode passes all on
    ({}, (0, 0x1000, MEMORY), True),  # not placed yet
]


@pytest.mark.parametrize(("windows", "bar", "passed"), WINDOWS)
def test_windows_of_the_bridge_above(windows, bar, passed):
    evidence = evidence_of(port(**windows), device("03:00.0", bar))
    expected = {} if passed else {"bar-outside-window": "refuse"}
    assert said_by(rules.windows, "03:00.0", evidence) == (expected, [])


@pytest.mark.parametrize(
    ("outer", "inner", "named"),
    [
        (0xFEB0_0000, 0xFEB0_0000, None),
        (0xFEA0_0000, 0xFEB0_0000, "0000:00:1c.0"),  # the port above the switch passes nothing on
        (0xFEA0_0000, 0xFEA0_0000, "0000:01:00.0"),  # both: the nearest is named, once
    ],
)
def test_every_bridge_above_must_pass_it_on(outer, inner, named):
    root = attrs.evolve(bridge("00:1c.0", 1, 3), config=_numbered(port(memory=(outer, outer)), 1, 3))
    switch = attrs.evolve(
        bridge("01:00.0", 3, 3), parent=root.sbdf, root_bus=None, config=port(memory=(inner, inner)).config
    )
    evidence = evidence_of(root, switch, device("03:00.0", BAR, parent="01:00.0"))
    expected = {} if named is None else {"bar-outside-window": "refuse"}
    assert said_by(rules.windows, "03:00.0", evidence) == (expected, [])
    text = text_of(rules.windows, "03:00.0", evidence)
    assert text.count("the bridge") == len(expected)
    assert named is None or named in text


def _numbered(raw, secondary, subordinate):
    data = bytearray(raw.config)
    data[0x19:0x1B] = secondary, subordinate
    return bytes(data)


def test_a_bar_that_does_not_decode_is_outside_as_soon_as_it_does():
    evidence = evidence_of(port(), device("03:00.0", BAR, command=0))
    assert said_by(rules.windows, "03:00.0", evidence) == ({"bar-outside-window": "warn"}, [])


def test_a_bridge_that_cannot_be_read_is_unknown():
    silent = RawFunction(parse_sbdf("00:1c.0"), root_bus=0)
    evidence = evidence_of(silent, device("03:00.0", BAR))
    assert said_by(rules.windows, "03:00.0", evidence) == ({}, ["windows of the bridge above"])


def test_nothing_is_asked_at_the_root():
    assert said_by(rules.windows, "00:03.0", evidence_of(device("00:03.0", BAR, parent=None))) == ({}, [])


PORTS = (0x1000, 0x20, IO)
UNSURE = ["which BARs decode"]


@pytest.mark.parametrize(
    ("bar", "parent", "of_windows", "of_places"),
    [
        (BAR, "00:1c.0", UNSURE, UNSURE),
        (PORTS, "00:1c.0", UNSURE, []),
        (BAR, None, [], UNSURE),  # no bridge above has a window
        ((0, 0x1000, MEMORY), "00:1c.0", [], []),  # it has no address
    ],
)
def test_bars_of_which_nobody_knows_whether_they_decode(bar, parent, of_windows, of_places):
    address = "03:00.0" if parent else "00:03.0"
    silent = RawFunction(
        parse_sbdf(address), parent=parse_sbdf(parent) if parent else None, resources=(Resource(*bar),)
    )
    evidence = evidence_of(port(), silent, memory=RAM, fixed=FIXED)
    assert said_by(rules.windows, address, evidence) == ({}, of_windows)
    assert said_by(rules.places, address, evidence) == ({}, of_places)


def test_bars_of_a_virtual_function_whose_physical_one_cannot_be_read():
    physical = RawFunction(parse_sbdf("03:00.0"), parent=parse_sbdf("00:1c.0"))
    virtual = attrs.evolve(device("03:00.1", BAR), physfn=physical.sbdf)
    evidence = evidence_of(port(), physical, virtual, memory=RAM, fixed=FIXED)
    for rule in (rules.windows, rules.places):
        assert said_by(rule, "03:00.1", evidence) == ({}, UNSURE)


RAM = (entry(0x10_0000, 0x6000_0000, MemoryType.RAM),)
FIXED = (
    FixedRange(Range(0xFEC0_0000, 0x1000), "IO-APIC 2"),
    FixedRange(Range(0xB000_0000, 1 << 28), "MMCFG"),
)
PLACES = [
    (BAR, {}),
    ((0xFEC0_0000, 0x1000, MEMORY), {"bar-over-fixed": "refuse"}),
    ((0xB000_0000, 0x1000, MEMORY), {"bar-over-fixed": "refuse"}),
    ((0xFEE0_0000, 0x1000, MEMORY), {"bar-over-fixed": "refuse"}),  # interrupt messages, always there
    ((0xFED0_0000, 0x20_0000, MEMORY), {"bar-over-fixed": "refuse"}),
    ((0x2000_0000, 0x1000, MEMORY), {"bar-over-ram": "refuse"}),
    ((0x2000, 0x20, IO), {}),  # ports are no addresses of memory
]


@pytest.mark.parametrize(("bar", "expected"), PLACES)
def test_places_where_no_bar_may_be(bar, expected):
    evidence = evidence_of(device("00:03.0", bar, parent=None), memory=RAM, fixed=FIXED)
    assert said_by(rules.places, "00:03.0", evidence) == (expected, [])


@pytest.mark.parametrize(("bar", "expected"), PLACES)
def test_a_place_is_told_before_the_bar_decodes(bar, expected):
    evidence = evidence_of(device("00:03.0", bar, parent=None, command=0), memory=RAM, fixed=FIXED)
    assert said_by(rules.places, "00:03.0", evidence) == (dict.fromkeys(expected, "warn"), [])


def test_what_is_not_known_of_the_machine_is_told():
    evidence = evidence_of(device("00:03.0", BAR, parent=None))
    assert said_by(rules.places, "00:03.0", evidence) == ({}, ["memory map", "IO-APICs and MMCFG"])


SMALL = (0xFEB0_0000, 0x100, MEMORY)
NEXT = (0xFEB0_0800, 0x100, MEMORY)
AWAY = (0xFEB0_1000, 0x100, MEMORY)


def test_a_page_of_two_devices():
    evidence = evidence_of(
        device("00:03.0", SMALL, parent=None), device("00:04.0", NEXT, parent=None),
        device("00:05.0", AWAY, parent=None),
    )  # fmt: skip
    assert said_by(rules.pages, "00:03.0", evidence) == ({"page-shared": "warn"}, [])
    assert "0xfeb00000-0xfeb00fff" in text_of(rules.pages, "00:04.0", evidence)
    assert said_by(rules.pages, "00:05.0", evidence) == ({}, [])
    together = evidence.leaving([parse_sbdf("00:03.0"), parse_sbdf("00:04.0")])
    assert said_by(rules.pages, "00:03.0", together) == ({}, [])


ADDED, TAKEN = 0x3800_0000_0000, 0x9_0000_0000


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        # what each of two host bridges adds to 0xe0000000 on its bus
        (0, 0, True),
        (ADDED, ADDED, True),
        (0, ADDED, False),
        (ADDED, ADDED + TAKEN, False),
        (-0x4000_0000, -0x6000_0000, False),
    ],
)
@pytest.mark.parametrize("segment", ["0000", "0001"])
def test_pages_are_those_of_the_processor(segment, first, second, shared):
    """Two root buses may use the same addresses, where their host bridges translate."""
    raws = []
    for domain, bus, added in (("0000", "00", first), (segment, "80", second)):
        for device, register in enumerate((0xE000_0000, 0xE010_0000)):
            line = (register + added, 0x800, 0x200)
            raws.append(function(f"{domain}:{bus}:0{device}.0", command=2, bars=[register], resources=[line]))
    evidence = evidence_of(*raws)
    shifts = {each.shift.memory for each in evidence.machine.functions.values()}
    assert shifts == {first, second}
    expected = {"page-shared": "warn"} if shared else {}
    assert said_by(rules.pages, "00:00.0", evidence) == (expected, [])
    assert bool(evidence.index.pages) is shared
    if shared:
        page = 0xE000_0000 + first
        assert f"{page:#x}-{page + 0xFFF:#x}" in text_of(rules.pages, "00:00.0", evidence)


def test_sizes_that_nobody_knows():
    raw = function("00:03.0", command=2, bars=[0xFEB0_0000])  # a dump has no sizes
    assert said_by(rules.pages, "00:03.0", evidence_of(raw)) == ({}, ["sizes of BARs"])
    evidence = evidence_of(raw, device("00:04.0", NEXT, parent=None))
    assert said_by(rules.pages, "00:03.0", evidence) == ({"page-shared": "warn"}, ["sizes of BARs"])


HERE, THERE, GONE = scope(0, (3, 0)), scope(0, (4, 0)), scope(0, (5, 0))
SPAN = (0x7000_0000, 0x7000_0FFF)
RESERVED = [
    # the table, what is said
    (dmar(), {}),
    (dmar(rmrr(*SPAN, THERE)), {}),  # another's
    (dmar(rmrr(*SPAN, HERE)), {"reserved-region": "ok"}),
    (dmar(rmrr(*SPAN, HERE, THERE)), {"reserved-shared": "warn"}),
    (dmar(rmrr(*SPAN, HERE, GONE)), {"reserved-shared": "warn"}),
    (ivrs(ivmd(0x22, 1, 0x18, 0x20, SPAN[0], 0x1000)), {"reserved-region": "ok"}),  # AMD refuses nothing
    (dmar(rmrr(0x2000_0000, 0x2000_0FFF, HERE)), {"reserved-region": "ok", "region-over-ram": "warn"}),
]


@pytest.mark.parametrize(("table", "expected"), RESERVED)
def test_reserved_regions(table, expected):
    evidence = evidence_of(function("00:03.0"), function("00:04.0"))
    regions = with_findings(regions_from_tables([table], evidence.machine), RAM)
    assert said_by(rules.reserved, "00:03.0", attrs.evolve(evidence, regions=regions)) == (expected, [])


def test_who_keeps_a_shared_region_mapped():
    evidence = evidence_of(function("00:03.0"), function("00:04.0"))
    regions = with_findings(regions_from_tables([dmar(rmrr(*SPAN, HERE, THERE, GONE))], evidence.machine))
    evidence = attrs.evolve(evidence, regions=regions)
    text = text_of(rules.reserved, "00:03.0", evidence)
    assert "with 0000:00:04.0, 0000:00:05.0" in text
    assert text.endswith("dom0 keeps it mapped for 0000:00:04.0")
    together = evidence.leaving([parse_sbdf("00:03.0"), parse_sbdf("00:04.0")])
    assert "dom0 keeps" not in text_of(rules.reserved, "00:03.0", together)


def test_another_entry_over_the_same_pages_is_shared_too():
    """Not alone, whatever the entry itself says; and an empty region leaves nothing behind."""
    evidence = evidence_of(function("00:03.0"), function("00:04.0"))
    blocks = ivrs(ivmd(0x21, 1, 0x18, 0, SPAN[0], 0x1000), ivmd(0x21, 1, 0x20, 0, SPAN[0], 0x1000))
    for table in (blocks, dmar(rmrr(*SPAN, HERE), rmrr(*SPAN, THERE))):
        regions = with_findings(regions_from_tables([table], evidence.machine))
        text = text_of(rules.reserved, "00:03.0", attrs.evolve(evidence, regions=regions))
        assert "with 0000:00:04.0; dom0 keeps it mapped for 0000:00:04.0" in text
        assert "alone" not in text
    empty = with_findings(regions_from_tables([dmar(rmrr(SPAN[1] + 1, SPAN[0], HERE))], evidence.machine))
    evidence = attrs.evolve(evidence, regions=empty)
    assert said_by(rules.reserved, "00:03.0", evidence) == ({"region-empty": "warn"}, [])


def test_reserved_regions_that_nobody_knows():
    evidence = evidence_of(function("00:03.0"))
    assert said_by(rules.reserved, "00:03.0", evidence) == ({}, ["reserved regions"])
    none = attrs.evolve(evidence, regions=Regions())
    assert said_by(rules.reserved, "00:03.0", none) == ({}, [])
