"""BAR writes that vPCI ignores: remembered, compared with what is read back, repeated or told."""

import attrs
import pytest

from pcipt.pci import Address, decode_function
from pcipt.remap.ignored import IgnoredWrite, Intents, finding_of, plan_rewrites
from pcipt.remap.writes.initial import shadow_from_raws
from pcipt.remap.writes.shadow import step
from tests.machines import bridge
from tests.remap.writes.shadows import NIC, nic, write

HERE, THERE = 0xFE80_0000, 0xFE90_0000
PLACE = "00_1c.0-00_00.0"
BAR0, BAR1, BAR2, BAR3, COMMAND = 0x10, 0x14, 0x18, 0x1C, 0x04
WIDE_HERE, WIDE_THERE = 0x38_0000_0000, 0x39_4000_0000


def ignored(writes, *, actual=None, command=3, wide=None, obeys=False, **start):
    """Follow writes of (offset, size, value) from the machine as it was, and compare with what is read."""
    shadow = shadow_from_raws([bridge("00:1c.0", 2, 4), nic(**start)], obeys=obeys)
    intents = Intents()
    for offset, size, value in writes:
        access = write(NIC, offset, size, value)
        intents.follow(shadow, access)
        shadow = step(shadow, access)[0]
    low, high = actual or HERE, wide or WIDE_HERE
    bars = (low, 0xC001, high & 0xFFFF_FFFF | 0xC, high >> 32)
    function = decode_function(nic(command=command, bars=bars))
    return intents, intents.ignored(attrs.evolve(function, path=shadow.at(function.sbdf).place))


def found(writes, **more):
    return [(write.bar, write.intended, write.actual) for write in ignored(writes, **more)[1]]


# Each row: writes, what is otherwise so, and what is found of it as BAR, intended and actual address.
CASES = [
    ([(BAR0, 4, THERE)], {}, [(0, THERE, HERE)]),
    ([(BAR0, 4, THERE)], {"actual": THERE}, []),  # hardware obeyed: the function is not trapped
    ([(BAR0, 4, THERE)], {"obeys": True}, [(0, THERE, HERE)]),  # however the shadow took it
    ([(BAR0, 4, THERE)], {"actual": 0xFEA0_0000}, []),  # moved elsewhere since
    ([(BAR0, 4, THERE), (BAR0, 4, HERE)], {}, []),  # written back
    ([(BAR0, 4, 0xFFFF_FFFF)], {}, []),  # sizing never counts
    ([(BAR0, 4, 0xFFFF_FFFF), (BAR0, 4, HERE)], {}, []),
    ([(BAR0, 4, 0xFFFF_FFFF), (BAR0, 4, THERE)], {}, [(0, THERE, HERE)]),  # sized, then moved
    ([(BAR0, 4, THERE), (BAR0, 4, 0xFFFF_FFFF), (BAR0, 4, HERE)], {}, []),  # sized again: it reads as it is
    ([(BAR0 + 2, 2, 0xFE90)], {}, [(0, THERE, HERE)]),  # half a register
    ([(BAR0 + 2, 1, 0x90)], {}, [(0, THERE, HERE)]),
    ([(BAR0, 4, HERE)], {}, []),  # nothing new
    ([(COMMAND, 2, 1), (BAR0, 4, THERE)], {}, []),  # decoding is off: vPCI passes it on
    ([(BAR0, 4, THERE), (COMMAND, 2, 1), (BAR0, 4, THERE)], {}, []),  # the cure
    ([(BAR0, 4, THERE)], {"command": 1}, []),  # it decodes nothing now
    ([(BAR1, 4, 0xD001)], {}, []),  # ports are never trapped
    ([(BAR2, 4, 0x4000_000C), (BAR3, 4, 0x39)], {}, [(2, WIDE_THERE, WIDE_HERE)]),  # both halves
    ([(BAR3, 4, 0x39), (BAR2, 4, 0x4000_000C)], {}, [(2, WIDE_THERE, WIDE_HERE)]),
    ([(BAR2, 4, 0x4000_000C), (BAR3, 4, 0x39)], {"wide": WIDE_THERE}, []),
    ([(BAR0, 4, THERE), (BAR2, 4, 0x4000_000C)], {},
     [(0, THERE, HERE), (2, 0x38_4000_0000, WIDE_HERE)]),  # two at once
    ([(0x3C, 1, 5)], {}, []),  # no BAR at all
    ([(BAR0, None, THERE)], {}, []),  # of unknown width: read again, nothing is remembered
]  # fmt: skip


@pytest.mark.parametrize(("writes", "more", "expected"), CASES)
def test_ignored(writes, more, expected):
    assert found(writes, **more) == expected


def test_a_contradiction_lasts_until_hardware_differs():
    intents, first = ignored([(BAR0, 4, THERE)])
    assert len(intents) == len(first) == 1
    function = attrs.evolve(decode_function(nic()), path=None)
    place = attrs.evolve(
        function, path=shadow_from_raws([bridge("00:1c.0", 2, 4), nic()]).at(function.sbdf).place
    )
    assert intents.ignored(place) == first
    intents.drop(PLACE)
    assert intents.ignored(place) == []


# Each row: writes at the address that the function has left, and what is found of them after its return.
ASTRAY = [
    ([(BAR0, 4, THERE)], [(0, THERE, HERE)]),
    ([(BAR0 + 2, 2, 0xFE90)], [(0, THERE, HERE)]),
    ([(BAR0, 4, 0xFFFF_FFFF), (BAR0, 4, THERE)], [(0, THERE, HERE)]),
    ([(BAR0, 4, THERE), (BAR0, 4, HERE)], []),
    ([(BAR0, 4, HERE)], []),
    ([(BAR0, 4, 0xFFFF_FFFF)], []),
    ([(BAR0, 4, 0)], []),
    ([(BAR1, 4, 0xD001)], []),  # ports
    ([(BAR2, 4, 0x4000_000C), (BAR3, 4, 0x39)], [(2, WIDE_THERE, WIDE_HERE)]),
    ([(BAR3, 4, 0x39)], [(2, 0x39_0000_0000, WIDE_HERE)]),
    ([(0x3C, 1, 5), (COMMAND, 2, 0)], []),
    ([(BAR0, None, THERE)], []),
]


@pytest.mark.parametrize("command", [2, 0])
@pytest.mark.parametrize(("writes", "expected"), ASTRAY)
def test_writes_that_hardware_missed_are_found_when_the_function_is_back(writes, expected, command):
    intents, function = Intents(), decode_function(nic(command=command))
    shadow = shadow_from_raws([bridge("00:1c.0", 2, 4)])
    intents.moved([function.sbdf], [])
    for offset, size, value in writes:
        intents.follow(shadow, write(NIC, offset, size, value))
    intents.moved([], [function.sbdf])
    assert intents.ignored(function) == []
    intents.returned(function)
    found = intents.ignored(function)
    assert [(each.bar, each.intended, each.actual) for each in found] == expected
    assert all(each.missed for each in found)
    assert intents.missed(function) == {bar for bar, _, _ in expected}
    assert not intents.astray


def test_a_write_that_hardware_missed_is_over_when_hardware_has_another_address():
    intents, function = Intents(), decode_function(nic())
    intents.moved([function.sbdf], [])
    intents.follow(shadow_from_raws([bridge("00:1c.0", 2, 4)]), write(NIC, BAR0, 4, THERE))
    intents.returned(function)
    (found,) = intents.ignored(function)
    assert "write the present address back" not in finding_of(found).text  # vPCI may drop that
    assert "renumbered" in plan_rewrites([found])[0].reason
    moved = decode_function(nic(bars=(THERE, 0xC001, 0xC, 0x38)))
    assert intents.missed(moved) == frozenset()
    assert intents.ignored(moved) == []
    assert len(intents) == 0


def test_a_write_to_nobody_is_nobodys():
    intents = Intents()
    intents.follow(shadow_from_raws([nic(parent=None)]), write("07:00.0", BAR0, 4, THERE))
    assert len(intents) == 0


WRITE = IgnoredWrite(PLACE, decode_function(nic()).sbdf, 0, Address(THERE), Address(HERE), 0x2_0000)


def test_it_is_repeated():
    (action,) = plan_rewrites([WRITE])
    assert (action.bar, action.before, action.address, action.size) == (0, HERE, THERE, 0x2_0000)
    assert "ignored" in action.reason


def test_the_finding_tells_both_addresses_and_the_cure():
    finding = finding_of(WRITE)
    assert finding.code == "bar-write-ignored"
    for words in ("0xfe800000", "0xfe900000", "unbind", "write the present address back"):
        assert words in finding.text
