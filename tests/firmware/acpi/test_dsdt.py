import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.errors import UnsupportedError
from pcipt.firmware.acpi.build_table import Header
from pcipt.firmware.acpi.dsdt import Windows, build_dsdt, join_ranges, windows_for
from pcipt.pci import Address, Range
from tests.machines import function, machine
from tests.pvh import disassemble

MEM, MEM64, PREFETCH, IO = 0x200, 0x10_0204, 0x2000, 0x100


def functions(*raws):
    return machine(*raws).functions.values()


def nic(**more):
    return function(
        "00:03.0",
        bars=(0xFEB0_0000, 0xC001, 0x8000_000C, 0x0000_0080),
        resources=(
            (0xFEB0_0000, 0x2_0000, MEM),
            (0xC000, 0x20, IO),
            (0x80_8000_0000, 0x10_0000, MEM64 | PREFETCH),
            (0, 0, 0),
        ),
        **more,
    )


def span(start, size):
    return Range(Address(start), size)


def test_windows_are_what_the_bars_cover():
    assert windows_for(functions(nic())) == Windows(
        io=(span(0xC000, 0x20),),
        memory=(span(0xFEB0_0000, 0x2_0000),),
        prefetchable=(span(0x80_8000_0000, 0x10_0000),),
    )


def test_windows_of_neighbours_are_joined_and_gaps_are_left():
    other = function(
        "00:04.0",
        bars=(0xFEB2_0000, 0xFEB5_0000),
        resources=((0xFEB2_0000, 0x1_0000, MEM), (0xFEB5_0000, 0x1000, MEM)),
    )
    found = windows_for(functions(nic(), other))
    assert found.memory == (span(0xFEB0_0000, 0x3_0000), span(0xFEB5_0000, 0x1000))


@pytest.mark.parametrize(
    ("rom", "memory"),
    [
        (0, (span(0xFEB0_0000, 0x1000),)),  # no address: nothing to describe
        (0xFEB8_0000, (span(0xFEB0_0000, 0x1000), span(0xFEB8_0000, 0x1_0000))),  # also while disabled
    ],
)
def test_a_rom_counts_where_it_has_an_address(rom, memory):
    lines = ((0xFEB0_0000, 0x1000, MEM), *5 * ((0, 0, 0),), (rom, 0x1_0000, MEM))
    raw = function("00:05.0", bars=(0xFEB0_0000, *7 * (0,), rom), resources=lines)
    assert windows_for(functions(raw)).memory == memory


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (function("00:05.0", bars=(0xFEB0_0000,)), "size"),  # from a dump
        (function("00:05.0", resources=((0, 0x1000, MEM),)), "no address"),  # not assigned yet
        (function("00:05.0", bars=(0x1_C001,), resources=((0x1_C000, 0x20, IO),)), "above ffff"),
    ],
)
def test_a_window_that_cannot_be_told_is_refused(raw, why):
    with pytest.raises(UnsupportedError, match=why) as caught:
        windows_for(functions(raw))
    assert caught.value.feature == "0000:00:05.0 BAR 0"


@settings(deadline=None)
@given(st.lists(st.builds(span, st.integers(0, 50), st.integers(1, 9)), max_size=8))
def test_joined_ranges_cover_the_same_bytes_and_are_apart(ranges):
    joined = join_ranges(ranges)
    covered = {at for each in ranges for at in range(each.start, each.last + 1)}
    assert {at for each in joined for at in range(each.start, each.last + 1)} == covered
    assert all(before.last + 1 < after.start for before, after in itertools.pairwise(joined))


def windows_in(text):
    """Read the windows out of iasl's text: (kind, prefetchable, first, last)."""
    found = []
    for kind, flags, rest in re.findall(r"(\w+) \(Resource(.*?),\n(.*?)\)", text, re.DOTALL):
        numbers = [int(number, 16) for number in re.findall(r"0x([0-9A-F]+), +//", rest)]
        assert numbers[2] - numbers[1] + 1 == numbers[4]
        found.append((kind, "Prefetchable" in flags, numbers[1], numbers[2]))
    return found


def test_iasl_finds_exactly_these_windows(tmp_path):
    text = disassemble(build_dsdt(Header("DSDT", 2), 2, windows_for(functions(nic()))), tmp_path)
    assert windows_in(text) == [
        ("WordBusNumber", False, 0, 0),
        ("WordIO", False, 0xC000, 0xC01F),
        ("DWordMemory", False, 0xFEB0_0000, 0xFEB1_FFFF),
        ("QWordMemory", True, 0x80_8000_0000, 0x80_800F_FFFF),
    ]
    assert re.findall(r"Device \((\w+)\)", text) == ["C000", "C001", "PCI0"]


def test_a_guest_without_functions_has_no_root_bridge(tmp_path):
    text = disassemble(build_dsdt(Header("DSDT", 2), 1), tmp_path)
    assert re.findall(r"Device \((\w+)\)", text) == ["C000"]
    assert "_CRS" not in text


@pytest.mark.parametrize("vcpus", [1, 2, 17, 128, 4096])
def test_every_processor_has_its_own_name_and_uid(vcpus, tmp_path):
    text = disassemble(build_dsdt(Header("DSDT", 2), vcpus), tmp_path)
    uids = re.findall(r"Name \(_UID, (\w+)\)", text)
    values = [{"Zero": 0, "One": 1}.get(uid) if uid in ("Zero", "One") else int(uid, 16) for uid in uids]
    assert values == list(range(vcpus))
    assert len(set(re.findall(r"Device \((\w+)\)", text))) == vcpus
