from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import decode_machine
from pcipt.remap.bar_index import BarIndex
from tests.machines import function
from tests.remap.devices import S, device, frames, port, with_vfs

AT = 0xE000_0000
NIC = device("01:00.0", [(AT, 0x4000), (AT + 0x4000, 0x100)], parent="00:1c.0", msix=(0, 0x1000))
IDLE = device("01:01.0", [(AT + 0x4100, 0x100)], parent="00:1c.0", command=0)
THERE = decode_machine([port(), NIC, IDLE])


def shown(bars):
    return [(str(bar.sbdf), bar.bar, bar.decoding) for bar in bars]


def test_bars_are_found_by_page_decoding_or_not():
    index = BarIndex(THERE.functions.values())
    assert shown(index.over(frames(AT + 0x4000, 1))) == [
        ("0000:01:00.0", 1, True),
        ("0000:01:01.0", 0, False),
    ]
    assert shown(index.over(frames(AT + 0x5000, 1))) == []


def test_msix_pages_are_found():
    index = BarIndex(THERE.functions.values())
    assert index.tables_over(frames(AT + 0x1000, 1)) == [S("01:00.0")]
    assert index.tables_over(frames(AT, 1)) == []


def test_a_function_read_again_replaces_itself_and_one_dropped_is_gone():
    index = BarIndex(THERE.functions.values())
    moved = decode_machine([port(), device("01:00.0", [(AT + 0x10_0000, 0x1000)], parent="00:1c.0")])
    index.put(moved.functions[S("01:00.0")])
    assert shown(index.over(frames(AT, 4))) == []
    assert shown(index.over(frames(AT + 0x10_0000, 1))) == [("0000:01:00.0", 0, True)]
    index.drop(S("01:00.0"))
    index.drop(S("01:00.0"))
    assert shown(index.over(frames(AT, 1 << 16))) == [("0000:01:01.0", 0, False)]


def test_virtual_functions_are_listed_by_their_physical_one():
    pf = with_vfs(device("01:00.0", parent="00:1c.0"), 0xE800_0000, 0x4000)
    vfs = [function(f"01:01.{number}", parent="00:1c.0", physfn="01:00.0") for number in (0, 1)]
    index = BarIndex(decode_machine([port(), pf, *vfs]).functions.values())
    assert index.virtual(S("01:00.0")) == [S("01:01.0"), S("01:01.1")]
    assert shown(index.over(frames(0xE800_4000, 1))) == [("0000:01:01.1", 0, True)]
    index.drop(S("01:01.0"))
    assert index.virtual(S("01:00.0")) == [S("01:01.1")]
    assert index.virtual(S("01:01.0")) == []


PLACE = st.integers(0, 3).map(lambda page: AT + 0x1000 * page)
CHANGE = st.tuples(st.integers(0, 2), st.one_of(st.none(), PLACE))


@given(st.lists(CHANGE, max_size=12))
def test_kept_up_or_made_anew_it_answers_alike(changes):
    index, there = BarIndex(), {}
    for number, start in changes:
        address = f"01:0{number}.0"
        if start is None:
            there.pop(address, None)
            index.drop(S(address))
        else:
            raw = device(address, [(start, 0x2000)], parent="00:1c.0")
            there[address] = decode_machine([port(), raw]).functions[raw.sbdf]
            index.put(there[address])
    fresh = BarIndex(there.values())
    assert index.over(frames(AT, 8)) == fresh.over(frames(AT, 8))
