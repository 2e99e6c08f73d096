"""Positions of BARs that make vPCI fail, read from registers."""

import attrs
import pytest

from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.pci import decode_machine
from pcipt.remap.guard.protected import protected_ranges
from pcipt.remap.vpci.hazards import finding_of_refusal, hazards, rom_over_bars, why_refused, wraps
from tests.remap.devices import S, frames
from tests.xen.devices import device
from tests.xen.versions import version_of

AT, TOP = 0xC000_0000, 0x1_0000_0000_0000_0000
GUARDED = protected_ranges(
    [entry(0x10_0000, 0x4000_0000, MemoryType.RAM), entry(AT, 0x1000, MemoryType.RESERVED)]
)


def function(*bars, **more):
    return decode_machine([device("00:05.0", *bars, **more)]).functions[S("00:05.0")]


@pytest.mark.parametrize(
    ("bar", "expected"),
    [
        ((TOP - 0x4000, 0x4000, "64"), True),
        ((TOP - 0x8000, 0x4000, "64"), False),
        ((0xFFFF_C000, 0x4000), False),  # 32 bits do not wrap
        ((TOP - 0x4000, 0, "64"), False),  # size unknown
    ],
)
def test_the_end_of_the_address_space(bar, expected):
    assert wraps(function(bar).bars[0]) is expected


@pytest.mark.parametrize(
    ("rom", "command", "expected"),
    [
        ((AT | 1, 0x1000), 2, [0]),
        ((AT + 0x3800 | 1, 0x800), 2, [0]),  # the page, not the bytes
        ((AT + 0x4000 | 1, 0x1000), 2, []),
        ((AT, 0x1000), 2, []),  # not enabled
        ((AT | 1, 0x1000), 0, []),
        (None, 2, []),
    ],
)
def test_a_rom_over_an_own_bar(rom, command, expected):
    assert rom_over_bars(function((AT, 0x3100 if expected else 0x4000), rom=rom, command=command)) == expected


REFUSALS = [
    # BARs, MSI-X, version; what is said, whether it is for good
    (((0x20_0000, 0x4000),), (0, 0, 0x800), (4, 17, 7), "lies over RAM", False),
    (((0x20_0000, 0x4000),), (0, 0, 0x800), (4, 21, 0), "lies over RAM", False),
    (((0x20_0000, 0x4000),), (0, 0, 0x800), (4, 21, 1), "lies over RAM", True),
    (((0, 0x4000),), (0, 0, 0x800), (4, 22, 0), "has no address", True),
    (((0xFEE0_0000, 0x1000),), None, (4, 18, 0), "may not access", False),
    (((AT, 0x1000), (0xFFFE_0000_0000_0000, 0x4000, "64")), None, (4, 22, 0), "above 48 bits", False),
]


@pytest.mark.parametrize(("bars", "msix", "version", "words", "lasting"), REFUSALS)
def test_where_vpci_refuses_decode(bars, msix, version, words, lasting):
    found = why_refused(function(*bars, msix=msix, command=0), GUARDED, version_of(*version))
    assert words in found.why
    assert found.is_lasting(version_of(*version)) is lasting
    told = finding_of_refusal(found, version_of(*version))
    assert told.code == "decode-refused"
    assert ("ignores all" in told.text) is lasting


@pytest.mark.parametrize(
    ("bars", "msix", "version"),
    [
        (((AT, 0x4000),), (0, 0, 0x800), (4, 22, 0)),  # reserved memory is mapped 1:1 and can be cut out
        (((0x20_0000, 0x4000),), None, (4, 22, 0)),  # it is not mapped, and decode goes on
        (((0xFEE0_0000, 0x1000),), None, (4, 17, 7)),  # 4.17 asks for no permission
        (((AT, 0x4000),), (2, 0, 0x800), (4, 22, 0)),  # a BAR that is not there
    ],
)
def test_where_it_does_not(bars, msix, version):
    assert why_refused(function(*bars, msix=msix, command=0), GUARDED, version_of(*version)) is None


def test_an_old_xen_that_fails_gives_the_function_up():
    found = why_refused(function((0xFEE0_0000, 0x1000)), GUARDED, version_of(4, 18, 6))
    assert "does not handle the function any more" in finding_of_refusal(found, version_of(4, 18, 6)).text


def test_what_is_told_depends_on_the_release():
    both = function((AT, 0x4000), (TOP - 0x4000, 0x4000, "64"), rom=(AT | 1, 0x1000))
    assert [finding.code for finding in hazards(both, version_of(4, 18, 6))] == ["bar-at-the-end"]
    assert [finding.code for finding in hazards(both, version_of(4, 19, 0))] == [
        "bar-at-the-end",
        "rom-over-bar",
    ]
    assert list(hazards(attrs.evolve(both, bars=()), version_of(4, 19, 0))) == []


def test_ram_and_what_dom0_may_not_access_are_told_apart():
    assert "RAM" in GUARDED.why_ram(frames(0x20_0000, 1))
    assert GUARDED.why_ram(frames(AT, 1)) is None
    assert GUARDED.why_denied(frames(AT, 1)) is None
    assert GUARDED.why_denied(frames(0x20_0000, 1)) is None
    assert "APIC" in GUARDED.why_denied(frames(0xFEE0_0000, 1))
    assert GUARDED.why_denied(frames(0x1000, 1)) is None  # the first MiB
