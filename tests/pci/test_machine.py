import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pcipt.pci import (
    BarKind,
    Finding,
    Machine,
    PciPath,
    RawFunction,
    Resource,
    Sbdf,
    decode_function,
    decode_machine,
)
from tests.pci.spaces import BRIDGE, extended_list, hostile_spaces, space


def numbered_bridge(sbdf, first, last, **linux):
    """Make a bridge whose registers pass on buses `first` to `last`."""
    data = space({0x18: (4, sbdf.bus | first << 8 | last << 16)}, header=BRIDGE)
    return RawFunction(sbdf, data, **linux)


def descend(machine, below=None):
    for function in machine.children(below):
        yield function
        yield from descend(machine, function.sbdf)


def test_an_empty_machine():
    machine = decode_machine([])
    assert (dict(machine.functions), machine.children(None), machine.findings) == ({}, [], [])


def test_functions_are_in_address_order():
    crowd = [
        Sbdf(0x10000, 0, 0, 0),
        Sbdf(0, 1, 0, 1),
        Sbdf(0, 1, 0, 0),
        Sbdf(0, 0, 0x1F, 7),
        Sbdf(1, 0, 0, 0),
    ]
    machine = decode_machine(RawFunction(sbdf, space()) for sbdf in crowd)
    assert list(machine.functions) == sorted(crowd)


def test_children_are_those_right_below():
    port = Sbdf(0, 0, 0x1C, 0)
    machine = decode_machine(
        [
            numbered_bridge(port, 1, 2),
            numbered_bridge(Sbdf(0, 1, 0, 0), 2, 2),
            RawFunction(Sbdf(0, 1, 0, 1), space()),
            RawFunction(Sbdf(0, 2, 0, 0), space()),
        ]
    )
    for _ in range(2):  # the second time from memory
        assert [f.sbdf for f in machine.children(None)] == [port]
        assert [f.sbdf for f in machine.children(port)] == [Sbdf(0, 1, 0, 0), Sbdf(0, 1, 0, 1)]
        assert machine.children(Sbdf(0, 2, 0, 0)) == []
    machine.children(None).clear()
    assert machine.children(None) != []


def test_findings_name_their_functions():
    odd = Finding("file-missing", "why")
    machine = decode_machine(
        [RawFunction(Sbdf(0, 0, 1, 0), space()), RawFunction(Sbdf(0, 0, 0, 0), space(), findings=(odd,))]
    )
    assert machine.findings == [(Sbdf(0, 0, 0, 0), odd)]


def test_of_two_functions_with_one_address_the_first_is_taken():
    twins = [RawFunction(Sbdf(0, 0, 0, 0), space(device=device)) for device in (1, 2, 3)]
    machine = decode_machine(twins)
    (function,) = machine.functions.values()
    assert function.ids.device == 1
    assert [finding.code for finding in function.findings] == ["address-repeated"]


def test_machines_are_equal_by_their_functions():
    raw = RawFunction(Sbdf(0, 0, 0, 0), space())
    function = attrs.evolve(decode_function(raw), path=PciPath(0, ((0, 0, 0),)))
    machine = decode_machine([raw])
    machine.children(None)
    assert machine == decode_machine([raw]) == Machine({raw.sbdf: function})


STRUCTURE = {
    0x08: (2, 0x0009),
    0x0E: (2, 8),
    0x10: (2, 2),
    0x14: (2, 0x0180),
    0x16: (2, 2),
    0x24: (4, 0xE000_0004),
}
OWNER = Sbdf(0, 2, 0, 0)
#  the owner's registers, the virtual function's address and owner, its line -> address of its BAR
VIRTUAL = [
    (STRUCTURE, Sbdf(0, 3, 0x10, 0), OWNER, None, 0xE000_0000),
    (STRUCTURE, Sbdf(0, 3, 0x10, 2), OWNER, None, 0xE000_1000),
    (STRUCTURE, Sbdf(0, 3, 0x10, 2), OWNER, 0xE000_1000, 0xE000_1000),
    (STRUCTURE, Sbdf(0, 3, 0x10, 4), OWNER, 0xE800_0000, 0xE800_0000),  # the owner has two only
    (STRUCTURE, Sbdf(0, 1, 0x10, 2), OWNER, 0xE800_0000, 0xE800_0000),
    (STRUCTURE, Sbdf(0, 3, 0x10, 2), Sbdf(0, 9, 0, 0), 0xE800_0000, 0xE800_0000),  # the owner is gone
    (STRUCTURE, Sbdf(0, 3, 0x10, 2), Sbdf(0, 3, 0x10, 2), 0xE800_0000, 0xE800_0000),  # its own owner
    (None, Sbdf(0, 3, 0x10, 2), OWNER, 0xE800_0000, 0xE800_0000),
]


@pytest.mark.parametrize(("structure", "address", "physfn", "line", "expected"), VIRTUAL)
@pytest.mark.parametrize("early", [False, True])
def test_virtual_functions_take_bars_from_their_owner(structure, address, physfn, line, expected, early):
    registers = extended_list((0x100, 0x0010, structure)) if structure else {}
    lines = (*[Resource(0, 0, 0)] * 7, Resource(0xE000_0000, 0x8000, 0x14_0204))
    owner = RawFunction(OWNER, space(registers, size=4096), lines)
    own = (Resource(line, 0x1000, 0x14_0204),) if line else ()
    virtual = RawFunction(address, b"\xff" * 4 + bytes(60), own, physfn=physfn)
    machine = decode_machine([virtual, owner] if early else [owner, virtual])
    assert list(machine.functions) == sorted([OWNER, address])
    (bar,) = machine.functions[address].bars
    assert (bar.kind, bar.address, bar.size) == (BarKind.MEM64, expected, 0x1000)


@st.composite
def trees(draw):
    """Draw a machine as nesting: a bridge is a list of what is below it, None is an endpoint."""
    below = st.recursive(st.none(), lambda children: st.lists(children, max_size=4), max_leaves=14)
    return draw(st.lists(below, min_size=1, max_size=5))


def number(tree, gaps):
    """Number buses depth first, with `gaps` left free behind bridges; give raws and the right paths."""
    raws, paths = {}, {}
    spare = iter(gaps)

    def walk(children, bus, hops, parent, following):
        for index, below in enumerate(children):
            sbdf = Sbdf(0, bus, index, 0)
            way = (*hops, (bus if parent is None else 0, index, 0))
            paths[sbdf] = PciPath(0, way)
            linux = {"parent": parent} if parent is not None else {"root_bus": bus}
            if below is None:
                raws[sbdf] = RawFunction(sbdf, space(), **linux)
                continue
            secondary = following
            following = walk(below, secondary, way, sbdf, secondary + 1) + next(spare, 0)
            raws[sbdf] = numbered_bridge(sbdf, secondary, following - 1, secondary=secondary, **linux)
        return following

    walk(tree, 0, (), None, 1)
    return raws, paths


GAPS = st.lists(st.integers(0, 3), max_size=20)


@given(trees(), GAPS)
def test_numbers_alone_tell_what_linux_tells(tree, gaps):
    raws, paths = number(tree, gaps)
    told = decode_machine(raws.values())
    alone = decode_machine(
        attrs.evolve(raw, parent=None, root_bus=None, secondary=None) for raw in raws.values()
    )
    assert {sbdf: function.path for sbdf, function in told.functions.items()} == paths
    assert told == alone
    assert told.findings == []


@given(trees(), GAPS, GAPS)
def test_paths_survive_renumbering(tree, gaps, others):
    one, another = (decode_machine(number(tree, spare)[0].values()) for spare in (gaps, others))
    assert [f.path for f in descend(one)] == [f.path for f in descend(another)]


@given(trees(), GAPS, st.data())
def test_what_was_below_a_vanished_bridge_is_kept(tree, gaps, data):
    raws, _ = number(tree, gaps)
    gone = data.draw(st.sampled_from(sorted(raws)))
    below = {sbdf for sbdf, raw in raws.items() if raw.parent == gone}
    del raws[gone]
    machine = decode_machine(raws.values())
    assert list(machine.functions) == sorted(raws)
    for sbdf, function in machine.functions.items():
        codes = [finding.code for finding in function.findings]
        assert (function.path is None) == bool(codes)
        assert ("bridge-vanished" in codes) == (sbdf in below)


ADDRESSES = st.builds(Sbdf, st.integers(0, 1), st.integers(0, 4), st.integers(0, 1), st.integers(0, 1))
SMALL = st.integers(0, 5)
WILD = st.builds(
    lambda sbdf, config, numbers, **linux: RawFunction(
        sbdf, config if numbers is None else numbered_bridge(sbdf, *numbers).config, **linux
    ),
    ADDRESSES,
    st.none() | hostile_spaces(),
    st.none() | st.tuples(SMALL, SMALL),
    physfn=st.none() | ADDRESSES,
    parent=st.none() | ADDRESSES,
    root_bus=st.none() | SMALL,
    secondary=st.none() | SMALL,
)


@given(st.lists(WILD, max_size=14))
def test_whatever_bridges_say_every_function_is_kept_once(raws):
    machine = decode_machine(raws)
    functions = machine.functions
    assert list(functions) == sorted({raw.sbdf for raw in raws})
    assert sorted(f.sbdf for f in descend(machine)) == list(functions)
    paths = [f.path for f in functions.values() if f.path is not None]
    assert len(set(paths)) == len(paths)
    for sbdf, function in functions.items():
        assert function.sbdf == sbdf
        assert function.parent is None or function.parent in functions
        if function.path is None:
            assert {"no-path", "bridge-vanished"} & {finding.code for finding in function.findings}
        else:
            assert function.path.segment == sbdf.segment
            assert function.path.hops[-1][1:] == (sbdf.device, sbdf.function)
            above = functions[function.parent].path if function.parent is not None else None
            assert function.path.hops[:-1] == (above.hops if above is not None else ())


@example([(Sbdf(0, 0, 1, 0), 1, 3), (Sbdf(0, 1, 0, 0), 2, 3), (Sbdf(0, 2, 0, 0), 3, 3)])  # a right nesting
@given(st.lists(st.tuples(ADDRESSES, SMALL, SMALL), max_size=12))
def test_random_bridges_alone(rows):
    raws = {sbdf: numbered_bridge(sbdf, *numbers) for sbdf, *numbers in rows}
    machine = decode_machine(raws.values())
    assert sorted(f.sbdf for f in descend(machine)) == sorted(raws)
    consistent = not machine.findings
    for function in machine.functions.values():
        assert (function.path is not None) or not consistent
        if consistent and function.parent is not None:
            above = machine.functions[function.parent].bridge
            assert above is not None
            assert above.secondary <= function.sbdf.bus <= above.subordinate
