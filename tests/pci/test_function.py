import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import (
    Bar,
    BarKind,
    Finding,
    HeaderType,
    Ids,
    PciPath,
    RawFunction,
    Resource,
    Sbdf,
    decode_function,
)
from pcipt.pci.capabilities import find_capability
from pcipt.pci.topology import Position
from tests.pci.spaces import (
    BRIDGE,
    CARDBUS,
    ENDPOINT,
    bars,
    extended_list,
    hostile_spaces,
    space,
    standard_list,
)

HERE = Sbdf(0, 2, 0, 0)
LINUX = Ids(0x8086, 0x10D3, 0x02_0000, 3, 0x15D9, 1)
LINES = (Resource(0xFEB0_0000, 0x1000, 0x200),)
CLASS = {0x08: (4, 0x0200_0003)}


def decode(config=None, **more):
    return decode_function(RawFunction(HERE, config, **more))


def codes(function):
    return [finding.code for finding in function.findings]


CAPABILITIES = standard_list(
    (0x40, 0x0D, {0x04: (4, 0x0007_15D9)}),
    (0x50, 0x10, {0x02: (2, 0x0142), 0x28: (2, 0x0020)}),
    (0x90, 0x11, {0x02: (2, 0x0003), 0x04: (4, 0x2003), 0x08: (4, 0x3003)}),
    (0xA0, 0x14, {0x02: (1, 1), 0x04: (4, 0x8000_0002), 0x08: (4, 0xFD00_0000), 0x0C: (4, 0xFFC)}),
    (0xC0, 0x11, {0x02: (2, 0x07FF)}),
)
EXTENDED = extended_list(
    (
        0x100, 0x0010,
        {0x08: (2, 9), 0x0E: (2, 8), 0x10: (2, 2), 0x14: (2, 0x80), 0x16: (2, 2), 0x24: (4, 0xE000_0000)},
    ),
    (0x200, 0x0015, {0x04: (4, 0x10), 0x08: (4, 0x20)}),
)  # fmt: skip


def test_every_structure_is_found_through_the_lists():
    function = decode(space(CAPABILITIES | EXTENDED | CLASS | {0x04: (2, 2)}, size=4096))
    assert function.express is not None
    assert (function.express.port_name, function.express.ari_forwarding) == ("root-port", True)
    assert function.msix is not None
    assert (function.msix.vectors, function.msix.table.bar) == (4, 3)  # the first of two
    assert [str(entry.range) for entry in function.allocations] == ["0xfd000000-0xfd000fff"]
    assert function.sriov is not None
    assert (function.sriov.num_vfs, function.sriov.bars[0].address) == (2, 0xE000_0000)
    assert [bar.size for bar in function.rebar] == [1 << 20]
    assert [bar.address for bar in function.bars] == [0xFD00_0000]
    assert (function.answers, function.command, function.decodes_memory) == (True, 2, True)
    assert codes(function) == ["enhanced-allocation"]
    assert find_capability(function.capabilities, 0x10) is not None
    assert find_capability(function.capabilities, 0x10, extended=True) is not None
    assert find_capability(function.capabilities, 0x05) is None


def test_without_lists_there_are_no_structures():
    function = decode(space(CLASS, size=4096))
    assert (function.express, function.msix, function.sriov) == (None, None, None)
    assert (function.rebar, function.allocations, function.capabilities, function.findings) == (
        (),
        (),
        (),
        (),
    )
    assert function.decodes_memory is False


def test_a_bridge_has_its_subsystem_in_a_capability_and_its_entries_behind_bus_numbers():
    registers = CAPABILITIES | {
        0xA4: (4, 0x0302),
        0xA8: (4, 0x8000_0002),
        0xAC: (4, 0xFC00_0000),
        0xB0: (4, 0xFFC),
    }
    function = decode(space(registers | {0x18: (4, 0x04_03_02)}, header=BRIDGE, size=256))
    assert (function.ids.subsystem_vendor, function.ids.subsystem_device) == (0x15D9, 7)
    assert [str(entry.range) for entry in function.allocations] == ["0xfc000000-0xfc000fff"]
    assert function.is_bridge
    assert function.bridge is not None
    assert (function.bridge.secondary, function.bridge.subordinate) == (3, 4)


def test_what_linux_tells_is_kept():
    physfn, parent = Sbdf(0, 2, 0, 1), Sbdf(0, 0, 0x1C, 0)
    odd = Finding("file-missing", "why")
    raw = RawFunction(
        HERE, space(), ids=LINUX, driver="e1000e", numa_node=1, physfn=physfn, parent=parent, findings=(odd,)
    )
    for function in (
        decode_function(raw),
        decode_function(attrs.evolve(raw, config=None)),
        decode_function(attrs.evolve(raw, config=b"\xff" * 64)),
    ):
        assert (function.sbdf, function.driver, function.numa_node) == (HERE, "e1000e", 1)
        assert (function.physfn, function.parent, function.path) == (physfn, parent, None)
        assert function.ids == LINUX
        assert function.findings[0] == odd


def test_a_position_overrules_the_parent():
    path = PciPath(0, ((0, 0x1C, 0), (0, 0, 0)))
    position = Position(None, path, (Finding("no-path", "why"),))
    for config in (None, space()):
        function = decode_function(RawFunction(HERE, config, parent=Sbdf(0, 0, 1, 0)), position)
        assert (function.parent, function.path) == (None, path)
        assert "no-path" in codes(function)


#  what was read -> whether it answers, header, bars (Linux has one line), codes
UNREAD = [
    (None, None, [0xFEB0_0000], ["no-config"]),
    (b"", None, [0xFEB0_0000], ["no-config"]),
    (b"\xff" * 4, None, [0xFEB0_0000], ["config-short"]),  # gone, or virtual
    (b"\xff" * 63, None, [0xFEB0_0000], ["config-short"]),
    (b"\xff" * 64, False, [], ["no-answer"]),
    (b"\xff" * 4096, False, [], ["no-answer"]),
]


@pytest.mark.parametrize(("config", "answers", "addresses", "expected"), UNREAD)
def test_registers_that_tell_nothing(config, answers, addresses, expected):
    function = decode(config, resources=LINES, ids=LINUX)
    assert function.answers is answers
    assert (function.header, function.command, function.decodes_memory) == (HeaderType.UNKNOWN, None, None)
    assert [bar.address for bar in function.bars] == addresses
    assert codes(function) == expected
    assert not function.is_bridge


BROKEN_MSIX = {0x02: (2, 0x0003), 0x04: (4, 0x2006), 0x08: (4, 0x3000)}

#  what is odd about a function -> the codes of its findings
ODD = [
    (RawFunction(HERE, space()), []),
    (RawFunction(HERE, space(size=63)), ["config-short"]),
    (RawFunction(HERE, space(size=1)), ["config-short"]),
    (RawFunction(HERE, space(header=3)), ["header-unknown"]),
    (RawFunction(HERE, space(header=0x80)), []),  # many functions
    (RawFunction(Sbdf(0x10000, 0, 0, 0), space()), ["segment-not-in-xen"]),
    (RawFunction(Sbdf(0x10000, 0, 0, 0), None), ["segment-not-in-xen", "no-config"]),
    (RawFunction(HERE, space(), ids=attrs.evolve(LINUX, device=0x1533)), ["id-drift"]),
    (RawFunction(HERE, space(), physfn=Sbdf(0, 2, 0, 1), ids=attrs.evolve(LINUX, device=0x10ED)), []),
    (RawFunction(HERE, space({0x18: (4, 0x05_05_02)}, header=BRIDGE), secondary=2), ["bus-drift"]),
    (RawFunction(HERE, space({0x18: (4, 0x05_05_03)}, header=BRIDGE), secondary=5), ["bus-primary"]),
    (RawFunction(HERE, space({0x18: (4, 0x05_05_FF)}, header=BRIDGE)), ["bus-primary"]),
    (RawFunction(HERE, space({0x18: (4, 0x05_05_01)}, header=CARDBUS)), ["bus-primary"]),
    (RawFunction(HERE, space({0x18: (4, 0x05_05_00)}, header=BRIDGE)), []),  # hard-wired to 0
    (RawFunction(HERE, space({0x18: (4, 0x02_02_01)}, header=BRIDGE)), []),  # impossible anyway
    (RawFunction(HERE, space({0x18: (4, 0x05_05_02)}, header=BRIDGE), secondary=5), []),
    (RawFunction(HERE, space({0x18: (4, 0x05_05_02)}, header=BRIDGE)), []),  # a dump: Linux was not asked
    (RawFunction(HERE, space(), secondary=5), []),  # no bridge any more
    (RawFunction(HERE, space({0x04: (2, 2), **bars(0xFEC0_0000)}), LINES), ["bar-drift"]),
    (RawFunction(HERE, space(standard_list((0x40, 0xFF, {})), size=256)), ["capability-pointer"]),
    (RawFunction(HERE, space(standard_list((0x40, 0x11, BROKEN_MSIX)), size=256)), ["msix-broken"]),
]  # fmt: skip


@pytest.mark.parametrize(("raw", "expected"), ODD)
def test_what_is_odd_becomes_a_finding(raw, expected):
    assert codes(decode_function(raw)) == expected


def test_an_unknown_header_type_is_named_without_the_bit_of_other_functions():
    (finding,) = decode(space(header=0x83)).findings
    assert "header type 0x3 " in finding.text


@pytest.mark.parametrize(("header", "count"), [(ENDPOINT, 6), (BRIDGE, 2), (CARDBUS, 1)])
def test_msix_in_a_bar_that_cannot_be_is_not_used(header, count):
    for table, pba in itertools.product(range(8), repeat=2):
        body = {0x02: (2, 0), 0x04: (4, table), 0x08: (4, pba)}
        registers = standard_list((0x40, 0x11, body), pointer=0x14 if header == CARDBUS else 0x34)
        function = decode(space(registers, header=header, size=256))
        sound = table < count and pba < count
        assert (function.msix is not None) is sound
        assert ("msix-broken" in codes(function)) is not sound


def test_a_virtual_function_has_bars_through_its_owner():
    owner = decode_function(
        RawFunction(
            HERE, space(EXTENDED | CLASS, size=4096), (*[Resource(0, 0, 0)] * 7, Resource(0, 0x8000, 0x200))
        )
    )
    raw = RawFunction(Sbdf(0, 2, 0x10, 2), b"\xff" * 4 + bytes(60), LINES, physfn=HERE)
    assert decode_function(raw, None, owner).bars == (
        Bar(0, BarKind.MEM32, 0xE000_1000, 0x1000, False, True),
    )
    without = attrs.evolve(owner, sriov=None)
    for physfn in (None, without):
        assert [bar.address for bar in decode_function(raw, None, physfn).bars] == [0xFEB0_0000]


def unsized(bars):
    return [attrs.evolve(bar, size=None) for bar in bars]


@given(hostile_spaces(), st.integers(0, 4096))
def test_fewer_bytes_tell_less_but_nothing_else(data, size):
    """Whatever is known of a part of the config space is what is known of all of it."""
    whole, part = decode(data), decode(data[:size])
    assert part.answers in (None, whole.answers)
    assert part.header in (HeaderType.UNKNOWN, whole.header)
    for name in ("command", "msix", "decodes_memory"):
        assert getattr(part, name) in (None, getattr(whole, name))
    for name in ("vendor", "device", "class_code", "revision", "subsystem_vendor", "subsystem_device"):
        assert getattr(part.ids, name) in (None, getattr(whole.ids, name))
    for name in ("capabilities", "rebar", "allocations"):
        known = getattr(part, name)
        assert known == getattr(whole, name)[: len(known)]
    assert set(part.bars) <= set(whole.bars) | set(unsized(whole.bars))  # a Resizable BAR's register tells
    if part.bridge is not None:
        assert whole.bridge is not None
        assert attrs.evolve(part.bridge, windows=()) == attrs.evolve(whole.bridge, windows=())
        assert set(part.bridge.windows) <= set(whole.bridge.windows)
    if part.express is not None:
        assert whole.express is not None
        assert attrs.evolve(part.express, ari_forwarding=None) == attrs.evolve(
            whole.express, ari_forwarding=None
        )
        assert part.express.ari_forwarding in (None, whole.express.ari_forwarding)
    if part.sriov is not None:
        assert whole.sriov is not None
        later = {"bars": (), "page_size": None, "resizable": ()}
        assert attrs.evolve(part.sriov, **later) == attrs.evolve(whole.sriov, **later)
        assert part.sriov.page_size in (None, whole.sriov.page_size)
        assert part.sriov.resizable == whole.sriov.resizable[: len(part.sriov.resizable)]
        for bar, same, without in zip(part.sriov.bars, whole.sriov.bars, unsized(whole.sriov.bars)):  # noqa: B905
            assert bar in (same, without)


@given(
    hostile_spaces(),
    st.lists(
        st.builds(Resource, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)),
        max_size=20,
    ),
    st.booleans(),
)
def test_no_bytes_and_no_lines_do_harm(data, lines, virtual):
    function = decode(data, resources=tuple(lines), physfn=Sbdf(0, 2, 0, 1) if virtual else None)
    assert [bar.index for bar in function.bars] == sorted({bar.index for bar in function.bars})
    for bar in function.bars:
        assert 0 <= bar.index <= 6
        assert 0 <= bar.address < 1 << 64
        assert bar.size is None or bar.size > 0
    if function.msix is not None:
        assert max(function.msix.table.bar, function.msix.pba.bar) <= 5
    for entry in function.allocations:
        assert entry.range is None or entry.range.last < 1 << 64
    for window in function.bridge.windows if function.bridge is not None else ():
        assert window.base <= window.limit


@pytest.mark.parametrize("size", range(0, 4097, 97))
def test_zeros_of_any_length_are_a_function_without_anything(size):
    function = decode(bytes(size))
    assert (function.bars, function.capabilities, function.bridge) == ((), (), None)
    assert function.answers is (True if size else None)
