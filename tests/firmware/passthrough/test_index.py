from hypothesis import given
from hypothesis import strategies as st

from pcipt.firmware.passthrough.index import index_machine
from pcipt.pci import frames_from_range, parse_sbdf
from tests.machines import bridge, function, machine

PLACES = st.lists(
    st.tuples(
        st.integers(1, 40).map(lambda at: 0xFE00_0000 + at * 0x400), st.sampled_from([0x400, 0x1000, 0x4000])
    ),
    max_size=6,
)


@given(PLACES)
def test_shared_pages_are_those_that_comparing_all_with_all_finds(places):
    raws = [
        function(f"00:{number:02x}.0", command=2, bars=[start], resources=[(start, size, 0x200)])
        for number, (start, size) in enumerate(places)
    ]
    found = index_machine(machine(*raws)).pages
    spans = {
        raw.sbdf: frames_from_range(bar.range)
        for raw in raws
        for bar in machine(raw).functions[raw.sbdf].bars
    }
    for one, span in spans.items():
        expected = {other for other, theirs in spans.items() if other != one and span.overlaps(theirs)}
        assert set(found.get(one, ())) == expected
        for other in expected:
            common = found[one][other]
            assert common.overlaps(span)
            assert common.overlaps(spans[other])


def test_a_function_shares_no_page_with_itself():
    bars = [(0xFE00_0000, 0x100, 0x200), (0xFE00_0100, 0x100, 0x200)]
    raw = function("00:01.0", command=2, bars=[start for start, *_ in bars], resources=bars)
    assert index_machine(machine(raw)).pages == {}


def test_what_is_below_and_beside():
    index = index_machine(
        machine(
            bridge("00:1c.0", 2, 4), bridge("02:00.0", 3, 4, parent="00:1c.0"),
            function("03:00.0", parent="02:00.0"), function("03:00.1", parent="02:00.0"),
            function("03:10.0", parent="02:00.0", physfn="03:00.0"),
        )
    )  # fmt: skip
    deep = tuple(map(parse_sbdf, ("03:00.0", "03:00.1", "03:10.0")))
    assert index.below == {parse_sbdf("00:1c.0"): deep, parse_sbdf("02:00.0"): deep}
    assert index.devices[0, 3, 0] == deep[:2]
    assert index.virtual == {deep[0]: deep[2:]}


def test_a_rom_that_is_off_is_nowhere():
    rom = [(0, 0, 0)] * 6 + [(0xFE00_0000, 0x1000, 0x200)]
    off = function("00:01.0", command=2, resources=rom)
    on = function("00:02.0", command=2, bars=[0xFE00_0000], resources=[(0xFE00_0000, 0x1000, 0x200)])
    assert index_machine(machine(off, on)).pages == {}
