"""What vPCI has mapped, by the writes that it trapped and by what is read back."""

import attrs
import pytest

from pcipt.pci import Address, Frames, Gfn, Range, decode_function, decode_machine, parse_sbdf
from pcipt.remap.desired import By, LostBar, place_of
from pcipt.remap.ignored import Intents
from pcipt.remap.life import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.remap.vpci.trapped import (
    MOST,
    Trapped,
    Unread,
    finding_of_reset,
    lost_bars,
    names_lost_bar,
    pages_of_unread,
    plan_returns,
)
from pcipt.remap.writes.initial import shadow_from_raws
from pcipt.remap.writes.shadow import step
from tests.machines import bridge
from tests.remap.writes.shadows import EXPRESS, NIC, nic, write
from tests.xen.devices import device, port

COMMAND, BAR0, BAR2, BAR3, ROM = 0x04, 0x10, 0x18, 0x1C, 0x30
HERE, THERE = 0xFE80_0000, 0xFE90_0000
WIDE = 0x38_0000_0000
PLACE = "00_1c.0-00_00.0"
SPAN0, SPAN2 = Range(Address(HERE), 0x2_0000), Range(Address(WIDE), 0x10_0000)
SPAN_ROM = Range(Address(0xFE84_0000), 0x1_0000)
FLR = (EXPRESS + 8, 2, 0x8000)


def followed(writes, **start):
    """Follow writes of (offset, size, value); return what is noted, and after which the function is read."""
    shadow = shadow_from_raws([bridge("00:1c.0", 2, 4), nic(**start)], obeys=False)
    trapped, intents, read = Trapped(), Intents(), []
    for number, (offset, size, value) in enumerate(writes):
        access = write(NIC, offset, size, value)
        before = attrs.evolve(shadow, counted=trapped.counted)
        intents.follow(before, access)
        shadow = step(before, access)[0]
        if trapped.follow(before, shadow, access, intents.wanted):
            read.append(number)
    return trapped, read, shadow


#  writes; then what vPCI counts, has unmapped, has mapped
FOLLOWED = [
    ([(COMMAND, 2, 1)], {}, {0, 2}, {}),
    ([(COMMAND, 2, 1), (COMMAND, 2, 3)], {}, {0, 2}, {0: SPAN0, 2: SPAN2}),
    ([(COMMAND, 2, 1), (COMMAND, 2, 3), (COMMAND, 2, 1)], {}, {0, 2}, {}),
    ([(COMMAND, 2, 1), (BAR0, 4, THERE), (COMMAND, 2, 3)], {}, {0, 2},
     {0: Range(Address(THERE), 0x2_0000), 2: SPAN2}),
    ([(COMMAND, 2, 3)], {}, set(), {}),
    ([(ROM, 4, 0xFE84_0001)], {}, set(), {6: SPAN_ROM}),
    ([(ROM, 4, 0xFE84_0001), (ROM, 4, 0xFE84_0000)], {}, {6}, {}),
    ([FLR], {0: SPAN0, 2: SPAN2}, set(), {}),
    ([FLR, FLR], {0: SPAN0, 2: SPAN2}, set(), {}),
    ([FLR, (BAR0, 4, HERE), (COMMAND, 2, 3)], {0: SPAN0, 2: SPAN2}, set(), {}),
    ([FLR, (COMMAND, 2, 0)], {}, {0, 2}, {}),
    ([FLR, (COMMAND, 2, 0), (BAR0, 4, HERE), (COMMAND, 2, 3)], {}, {0, 2}, {0: SPAN0}),
    ([(ROM, 4, 0xFE84_0001), FLR, (ROM, 4, 0)], {0: SPAN0, 2: SPAN2}, {6}, {}),
    ([(ROM, 4, 0xFE84_0001), FLR, (ROM, 4, 0xFE84_0001)], {0: SPAN0, 2: SPAN2, 6: SPAN_ROM}, set(),
     {6: SPAN_ROM}),
    ([(COMMAND, 2, 1), FLR], {}, {0, 2}, {}),
    ([(0x3C, 1, 5), (EXPRESS + 8, 2, 0)], {}, set(), {}),
]  # fmt: skip


@pytest.mark.parametrize(("writes", "counted", "unmapped", "mapped"), FOLLOWED)
def test_what_writes_make_vpci_do(writes, counted, unmapped, mapped):
    trapped, _, _ = followed(writes)
    assert trapped.counted.get(PLACE, {}) == counted
    assert trapped.unmapped.get(PLACE, set()) == unmapped
    assert trapped.mapped.get(PLACE, {}) == mapped
    assert trapped.unread == {}


@pytest.mark.parametrize(("writes", "read"), [
    ([(BAR0, 4, HERE)], [0]),  # the address that it has: Linux writes it back
    ([(BAR0, 4, HERE)] * 11, list(range(11))),
    ([FLR, (BAR2, 4, 0xC), (BAR3, 4, 0x38)], [1, 2]),
    ([(COMMAND, 2, 1), (BAR0, 4, HERE)], []),
    ([(0x14, 4, 0xC001), (0x3C, 1, 5), (COMMAND, 2, 3)], []),  # ports are not trapped
])  # fmt: skip
def test_a_bar_that_vpci_takes_for_mapped_is_written_after_a_reset_only(writes, read):
    assert followed(writes)[1] == read


def test_after_a_reset_the_shadow_has_what_hardware_has():
    _, _, shadow = followed([FLR, (BAR0, 4, HERE), (COMMAND, 2, 3)])
    function = shadow.at(parse_sbdf(NIC))
    assert (function.read(BAR0, 4), function.read(COMMAND, 2)) == (0, 3)
    _, _, shadow = followed([FLR, (COMMAND, 2, 0), (BAR0, 4, HERE), (COMMAND, 2, 3)])
    assert shadow.at(parse_sbdf(NIC)).read(BAR0, 4) == HERE


def test_addresses_that_another_function_may_have_had_are_noted():
    trapped, _, _ = followed([(BAR0, 4, 0xFFFF_FFFF), (BAR0, 4, 0), (BAR0, 4, THERE), (BAR0, 4, HERE)])
    assert trapped.unread == {PLACE: Unread(parse_sbdf(NIC), frozenset({(0, THERE)}))}
    lost, _, _ = followed([FLR, (BAR0, 4, HERE), (BAR2, 4, 0xC), (BAR3, 4, 0x39), (BAR2, 4, 0x4000_000C)])
    starts = {(2, 0x39_0000_0000), (2, 0x39_4000_0000)}  # the lower half is written last: both may count
    assert lost.unread == {PLACE: Unread(parse_sbdf(NIC), frozenset(starts))}
    trapped.leave(PLACE, parse_sbdf(NIC))
    assert trapped.unread[PLACE].starts == {(0, THERE)}
    trapped.concluded(PLACE, ())
    assert len(trapped) == 0


def test_a_function_that_nobody_has_read():
    shadow, trapped = shadow_from_raws([bridge("00:1c.0", 2, 4)], obeys=False), Trapped()
    words = [(0x10, HERE), (0x14, 0xC001), (0x18, 0xC), (0x1C, 0x38), (0x20, 0xFFFF_FFF0), (COMMAND, 3)]
    for offset, value in words:
        access = write(NIC, offset, 4, value)
        before, shadow = shadow, step(shadow, access)[0]
        assert not trapped.follow(before, shadow, access, Intents().wanted)
    starts = {(0, HERE), (2, WIDE), (4, 0xFFFF_FFF0)}
    assert trapped.unread == {PLACE: Unread(parse_sbdf(NIC), frozenset(starts))}
    assert trapped.mapped == {}


def read(command=0, bars=(0, 1, 0xC, 0), **more):
    function = decode_function(nic(command=command, bars=bars, **more))
    path = shadow_from_raws([bridge("00:1c.0", 2, 4), nic()]).at(function.sbdf).place
    return attrs.evolve(function, path=path)


def run(bar, first, count, by=By.XEN, state=State.HELD):
    return MappedRun(PLACE, parse_sbdf(NIC), bar, Frames(Gfn(first), count), by, "now", state)


LOST0, LOST2 = LostBar(0, SPAN0), LostBar(2, SPAN2)
RUNS = [run(0, HERE >> 12, 0x20), run(2, WIDE >> 12, 0x100)]
#  what is read, the runs of the ledger, what is noted; which BARs are lost
LOST = [
    (read(), RUNS, Trapped(), [LOST0, LOST2]),
    (read(command=2), RUNS, Trapped(), [LOST0, LOST2]),
    (read(bars=(HERE, 1, 0xC, 0)), RUNS, Trapped(), [LOST2]),  # vPCI has let a write pass
    (read(command=2, bars=(THERE, 1, 0xC, 0x38)), RUNS, Trapped(), []),
    (read(), RUNS, Trapped(unmapped={PLACE: {0}}), [LOST2]),
    (read(), RUNS, Trapped(unmapped={PLACE: {0, 2}}), []),
    (read(), [], Trapped(), []),
    (read(), [], Trapped(counted={PLACE: {0: SPAN0}}), [LOST0]),
    (read(), [], Trapped(mapped={PLACE: {0: SPAN0}}, unmapped={PLACE: {0}}), [LOST0]),
    (read(command=2), [], Trapped(), [LOST0, LOST2]),  # it decodes at 0, and Linux has an address for it
    (read(command=2), [], Trapped(unmapped={PLACE: {0, 2}}), []),
    (read(), [run(0, HERE >> 12, 0x20, by=By.US)], Trapped(), []),
    (read(), [run(0, HERE >> 12, 0x20, state=State.STALE)], Trapped(), []),
    (read(), [run(0, (HERE >> 12) + 2, 4), run(0, (HERE >> 12) + 9, 1)], Trapped(), [LOST0]),
    (read(), [run(0, THERE >> 12, 4)], Trapped(), [LostBar(0, Range(Address(THERE), 0x4000), Address(HERE))]),
    (read(), [run(6, 0xFE840, 0x10)], Trapped(), []),  # the ROM's register has its address
]  # fmt: skip


@pytest.mark.parametrize(("function", "runs", "trapped", "lost"), LOST)
def test_lost_bars(function, runs, trapped, lost):
    assert place_of(function) == PLACE
    assert list(lost_bars(function, nic().resources, runs, trapped)) == lost


def test_linux_has_no_address_for_a_rom_and_for_an_unassigned_bar():
    lines = [attrs.evolve(line, start=0) for line in nic().resources]
    (lost,) = lost_bars(read(), lines, [RUNS[0]], Trapped())
    assert (lost.range.start, lost.linux) == (HERE, HERE)


def test_a_lost_bar_gets_the_address_that_linux_has():
    (action,) = plan_returns(read(), [LostBar(0, SPAN0, Address(THERE))])
    assert (action.bar, action.before, action.address) == (0, 0, THERE)


def test_lost_bars_are_written_back():
    actions = list(plan_returns(read(), [LOST0, LOST2]))
    assert [(each.bar, each.before, each.address, each.size) for each in actions] == [
        (0, 0, HERE, 0x2_0000), (2, 0, WIDE, 0x10_0000),
    ]  # fmt: skip


def test_the_finding_replaces_that_of_the_last_reading():
    function = read(command=2)
    finding = finding_of_reset(function, [LOST0])
    assert (finding.code, "pcipt resync" in finding.text) == ("reset-behind-vpci", True)
    left = [each for each in function.findings if not names_lost_bar(each, [LOST0])]
    assert [each.text[:5] for each in left if each.code == "bar-drift"] == ["BAR 1", "BAR 2"]


# Functions that nobody has read: how far their BARs may reach


def unread(*starts, former=None, window=(0xFE20, 0xFE90), told=()):
    machine = decode_machine([port("00:1c.0", 2, 4, window=window)])
    pages, certain = pages_of_unread(Unread(parse_sbdf(NIC), frozenset(starts)), machine, former, dict(told))
    return [(bar, frames.start, frames.count) for bar, frames in pages], certain


def test_the_function_that_was_last_in_the_place_tells_the_sizes():
    former = decode_function(device(NIC, (0xFE20_0000, 0x2_0000), (0xFE24_0000, 0x4000), msix=(1, 0, 0x1000)))
    starts = ((0, 0xFE40_0000), (1, 0xFE30_0000))
    assert unread(*starts, former=former) == ([(0, 0xFE400, 0x20), (1, 0xFE302, 2)], True)
    assert unread((2, 0xFE30_0000), former=former) == ([(2, 0xFE300, 0x100)], False)  # it had no BAR 2


@pytest.mark.parametrize(("starts", "pages", "certain"), [
    ([(0, 0xFE40_4000)], [(0, 0xFE404, 4)], True),  # its alignment
    ([(0, 0xFE40_0000), (1, 0xFE42_0000)], [(0, 0xFE400, 0x20), (1, 0xFE420, 0x20)], True),  # the next one
    ([(0, 0xFE80_0000)], [(0, 0xFE800, 0x200)], False),  # the end of the window
    ([(0, 0x4000_0000)], [(0, 0x40000, MOST >> 12)], False),
    ([], [], False),
])  # fmt: skip
def test_without_one_alignment_next_bar_and_window_bound_it(starts, pages, certain):
    assert unread(*starts) == (pages, certain)


def test_linux_tells_the_sizes_of_what_nobody_has_read():
    starts = ((0, 0xFE40_0000), (1, 0xFE80_0000))
    assert unread(*starts, told={starts[1]: 0x4000}) == ([(0, 0xFE400, 0x400), (1, 0xFE800, 4)], False)
    told = {starts[0]: 0x2_0000, starts[1]: 0x4000, (2, 0xFE50_0000): 0x1000}
    assert unread(*starts, told=told) == ([(0, 0xFE400, 0x20), (1, 0xFE800, 4)], True)


def test_what_linux_tells_of_another_function_in_the_place_counts():
    former = decode_function(device(NIC, (0xFE20_0000, 0x2_0000)))
    start = (0, 0xFE40_0000)
    assert unread(start, former=former, told={start: 0x2_0000}) == ([(0, 0xFE400, 0x20)], True)
    assert unread(start, former=former, told={start: 0x4_0000}) == ([(0, 0xFE400, 0x40)], True)
