"""BARs, VF BARs and windows beside Linux's lines: assigned or not, the same or not."""

import pytest

from pcipt.pci import Address, Bar, BarKind, Range, Resource, Window, WindowKind
from pcipt.pci.space.beliefs import (
    NO_SHIFT,
    Shift,
    compared,
    compared_vf_bars,
    compared_windows,
    finding_of,
    is_being_sized,
)
from pcipt.pci.sriov import SrIov

NOTHING = Resource(0, 0, 0)
UNSET = Resource.UNSET


def bar(address, size=0x1000, kind=BarKind.MEM32, decoding=False, index=0):
    return Bar(index, kind, Address(address), size, False, decoding)


def line(start, size=0x1000, flags=0x200):
    return Resource(start, size, flags)


#  BAR, Linux's line -> unassigned, code, words of the finding
BELIEFS = [
    (bar(0xFE00_0000), line(0xFE00_0000), False, None, []),
    (bar(0xFE00_0000, decoding=True), line(0xFE00_0000), False, None, []),
    (bar(0xFE00_0000), NOTHING, False, None, []),  # Linux believes nothing
    (bar(0, decoding=False), line(0, flags=0x200 | UNSET), True, "bar-unassigned", ["4K", "does not enable"]),
    (bar(0, decoding=True), line(0, flags=0x200 | UNSET), True, "bar-unassigned", ["decodes at address 0"]),
    (bar(0, decoding=True), line(0), True, "bar-unassigned", ["decodes at address 0"]),  # older kernels
    (bar(0, None), NOTHING, True, "bar-unassigned", ["BAR 0 (memory)"]),
    # firmware's address, which Linux did not take over
    (bar(0xFE00_0000), line(0, flags=0x200 | UNSET), True, "bar-unassigned", ["0xfe000000 and does not"]),
    (bar(0xFE00_0000, decoding=True), line(0, flags=0x200 | UNSET), True, "bar-unassigned", ["and decodes"]),
    (bar(0, 128, BarKind.IO), line(0, 128, 0x101 | UNSET), True, "bar-unassigned", ["128 I/O ports"]),
    (bar(0, None, BarKind.IO), NOTHING, True, "io-bar-unassigned", ["I/O ports"]),
    # reset behind Linux's back, and written behind it
    (bar(0), line(0xFE00_0000), False, "bar-drift", ["was cleared", "does not decode", "0xfe000000"]),
    (bar(0, decoding=True), line(0xFE00_0000), False, "bar-drift", ["decodes at 0x0", "0xfe000000"]),
    (bar(0xFD00_0000), line(0xFE00_0000), False, "bar-drift", ["holds 0xfd000000", "does not decode"]),
    (bar(0xFD00_0000, decoding=True), line(0xFE00_0000), False, "bar-drift", ["decodes at 0xfd000000"]),
    (bar(0xC000, 32, BarKind.IO), line(0xD000, 32, 0x101), False, "bar-drift", ["0xc000", "0xd000"]),
    # Linux does not write the ROM's register before it enables it
    (bar(0, kind=BarKind.ROM, index=6), line(0xFE00_0000), False, None, []),
    (bar(0, kind=BarKind.ROM, index=6), line(0, flags=0x200 | UNSET), True, None, []),
    (bar(0, kind=BarKind.ROM, index=6, decoding=True), line(0xFE00_0000), False, "bar-drift", ["ROM"]),
]  # fmt: skip


@pytest.mark.parametrize(("held", "believed", "unassigned", "code", "words"), BELIEFS)
def test_a_bar_is_compared_with_linux(held, believed, unassigned, code, words):
    found = compared(held, believed)
    finding = finding_of(found, believed)
    assert (found.unassigned, finding.code if finding is not None else None) == (unassigned, code)
    assert [word for word in words if word not in finding.text] == []


def test_what_linux_keeps_elsewhere_is_remembered():
    assert compared(bar(0), line(0xFE00_0000)).claimed == Range(0xFE00_0000, 0x1000)
    assert compared(bar(0xFE00_0000), line(0xFE00_0000)).claimed is None


def test_a_vf_bar_without_an_address_is_a_note_of_its_own():
    found = compared(bar(0, 0x4000, BarKind.MEM64), NOTHING)
    finding = finding_of(found, NOTHING, virtual=True)
    assert (finding.code, finding.is_note) == ("vf-bar-unassigned", True)
    assert "VF BAR 0 (16K 64-bit memory)" in finding.text


@pytest.mark.parametrize(
    ("address", "flags", "on", "decoding", "said"),
    [
        (0, 0x200, False, False, "and no virtual functions can be switched on"),
        (0xFE00_0000, 0x200 | UNSET, False, False, "and no virtual functions can be switched on"),
        (0, 0x200, True, True, "the virtual functions are switched on and decode it from address 0x0 on"),
        (0xFE00_0000, 0x200 | UNSET, True, True, "are switched on and decode it from address 0xfe000000 on"),
        (0, 0x200, True, False, "the virtual functions are switched on and do not decode it"),
    ],
)
def test_a_vf_bar_without_an_address_is_told_as_the_virtual_functions_are(address, flags, on, decoding, said):
    lines = (*[NOTHING] * 7, line(0, 0x10_0000, flags))
    held = SrIov(8, 8, 4, 0x80, 2, 0x10ED, on, decoding, False, (bar(address, 0x4000, decoding=decoding),))
    _, (finding,) = compared_vf_bars(held, lines)
    assert finding.code == "vf-bar-unassigned"
    assert said in finding.text
    assert ("can be switched on" in finding.text) is not on


@pytest.mark.parametrize(
    ("register", "believed", "codes"),
    [
        (0xC000_0000, 0x6_0000_0000, []),
        (0xC000_0000, 0x6_0010_0000, ["bar-drift"]),
        (0, 0x6_0000_0000, ["bar-drift"]),
    ],
)
def test_what_the_host_bridge_adds_is_no_difference(register, believed, codes):
    held = compared(
        bar(register, kind=BarKind.MEM64, decoding=True), line(believed), Shift(memory=0x5_4000_0000)
    )
    finding = finding_of(held, line(believed))
    assert ([finding.code] if finding is not None else []) == codes


M64, IO = BarKind.MEM64, BarKind.IO
#  kind, size, register, Linux's address -> is it being sized
SIZED = [
    (BarKind.MEM32, 0x1000, 0xFFFF_F000, 0xFE00_0000, True),
    (BarKind.MEM32, 0x1000, 0xFFFF_E000, 0xFE00_0000, False),
    (BarKind.MEM32, 0x1000, 0, 0xFE00_0000, False),
    (M64, 0x10_0000, 0xFFFF_FFFF_FFF0_0000, 0x38_0010_0000, True),
    (M64, 0x10_0000, 0x38_FFF0_0000, 0x38_0010_0000, True),  # the lower half first
    (M64, 0x10_0000, 0xFFFF_FFFF_0010_0000, 0x38_0010_0000, True),  # then the upper one
    (M64, 0x10_0000, 0, 0x38_0010_0000, False),
    (M64, 4 << 32, 0xFFFF_FFFC_0000_0000, 0xF8_0000_0000, True),  # its lower half reads 0 meanwhile
    (M64, 4 << 32, 0, 0xF8_0000_0000, False),
    (IO, 0x20, 0xFFFF_FFE0, 0xD000, True),
    (IO, 0x20, 0xFFE0, 0xD000, True),  # 16 bits of ports
    (IO, 0x20, 0, 0xD000, False),
]


@pytest.mark.parametrize(("kind", "size", "register", "believed", "sized"), SIZED)
def test_a_bar_that_is_being_sized_has_no_finding(kind, size, register, believed, sized):
    flags = 0x101 if kind is IO else 0x200
    held = compared(bar(register, size, kind), line(believed, size, flags))
    assert is_being_sized(held) is sized
    assert (finding_of(held, line(believed, size, flags)) is None) is sized
    # with decoding on the same value is an address
    awake = compared(bar(register, size, kind, decoding=True), line(believed, size, flags))
    assert finding_of(awake, line(believed, size, flags)).code == "bar-drift"


MEMORY = Window(WindowKind.MEMORY, 0xD040_0000, 0xD04F_FFFF)


def lines(memory, io=NOTHING, prefetchable=NOTHING, *, before=13):
    return (*[NOTHING] * before, io, memory, prefetchable, NOTHING)


#  windows, lines, what is added -> words of findings
WINDOWS = [
    ((MEMORY,), lines(line(0xD040_0000, 0x10_0000)), NO_SHIFT, []),
    ((MEMORY,), lines(line(0xD040_0000, 0x10_0000), before=7), NO_SHIFT, []),  # without CONFIG_PCI_IOV
    ((), lines(line(0xD040_0000, 0x10_0000)), NO_SHIFT, ["the memory window is closed"]),  # reset
    ((), lines(line(0xD040_0000, 0x10_0000), before=7), NO_SHIFT, ["the memory window is closed"]),
    ((MEMORY,), lines(line(0xD040_0000, 0x20_0000)), NO_SHIFT, ["passes on 0xd0400000-0xd04fffff"]),
    ((MEMORY,), lines(NOTHING), NO_SHIFT, []),
    ((MEMORY,), lines(line(0, 0x10_0000, 0x200 | UNSET)), NO_SHIFT, []),
    ((MEMORY,), lines(line(0x1_D040_0000, 0x10_0000)), Shift(memory=1 << 32), []),
    ((MEMORY,), lines(line(0xD040_0000, 0x20_0000, 0x200 | Resource.DISABLED)), NO_SHIFT, []),
    ((), lines(NOTHING, line(0x2400, 0x400, 0x101)), NO_SHIFT, []),  # in steps of 1 KiB
    ((), lines(NOTHING, line(0x2000, 0x1000, 0x101)), NO_SHIFT, ["the I/O window is closed"]),
    ((MEMORY,), lines(line(0xD040_0000, 0x10_0000), before=5), NO_SHIFT, []),  # lines of an unknown order
]


@pytest.mark.parametrize(("windows", "resources", "shift", "words"), WINDOWS)
def test_windows_are_compared_with_linux(windows, resources, shift, words):
    found = compared_windows(windows, resources, shift)
    assert [finding.code for finding in found] == ["window-drift"] * len(words)
    for finding, word in zip(found, words, strict=True):
        assert word in finding.text
