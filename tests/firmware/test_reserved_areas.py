import struct

import pytest

from pcipt.firmware.reserved_areas import reserved_areas
from pcipt.firmware.table_header import Header, build_table
from tests.machines import bridge, function, machine

MACHINE = machine(
    function("00:02.0"), function("00:1d.0"), bridge("00:1c.0", 2, 4), function("02:00.0", parent="00:1c.0")
)


def scope(bus, *hops, kind=1):
    path = b"".join(bytes(hop) for hop in hops)
    return bytes([kind, 6 + len(path), 0, 0, 0, bus]) + path


def rmrr(base, limit, *scopes):
    tail = b"".join(scopes)
    return struct.pack("<HHHHQQ", 1, 24 + len(tail), 0, 0, base, limit) + tail


def dmar(*entries, name="DMAR"):
    return build_table(Header(name, 1), bytes(12) + b"".join(entries))


def ivmd(kind, flags, first, last, start, size):
    return struct.pack("<BBHHHQQQ", kind, flags, 32, first, last, 0, start, size)


def ivrs(*blocks):
    return build_table(Header("IVRS", 2), bytes(12) + b"".join(blocks))


def areas(*tables):
    found, findings = reserved_areas(tables, MACHINE)
    return [
        (a.kind, a.range.start, a.range.size, [str(h) for h in a.holders], a.named) for a in found
    ], findings


def test_an_rmrr_and_who_holds_it():
    usb, graphics, missing = scope(0, (0x1D, 0)), scope(0, (2, 0)), scope(0, (0x1A, 0))
    behind = scope(0, (0x1C, 0), (0, 0))
    table = dmar(
        rmrr(0x7000_0000, 0x7000_FFFF, usb, missing), rmrr(0x8000_0000, 0x8FFF_FFFF, graphics, behind)
    )
    assert areas(table) == (
        [
            ("RMRR", 0x7000_0000, 0x1_0000, ["0000:00:1d.0"], 2),
            ("RMRR", 0x8000_0000, 0x1000_0000, ["0000:00:02.0", "0000:02:00.0"], 2),
        ],
        (),
    )


@pytest.mark.parametrize("name", ["DMAR", "RMAD", "XMAR"])
def test_an_area_that_nobody_holds(name):
    table = dmar(rmrr(0x7000_0000, 0x7000_0FFF, scope(0, (0x1A, 0))), name=name)
    assert areas(table)[0] == [("RMRR", 0x7000_0000, 0x1000, [], 1)]
    assert not reserved_areas([table], MACHINE)[0][0].held


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (ivmd(0x21, 0x01, 0x10, 0, 0x5000_0000, 0x1000), [["0000:00:02.0"]]),  # unity, one device
        (
            ivmd(0x22, 0x08, 0x10, 0xFF, 0x5000_0000, 0x1000),
            [["0000:00:02.0", "0000:00:1c.0", "0000:00:1d.0"]],
        ),
        (ivmd(0x20, 0x01, 0, 0, 0x5000_0000, 0x1000), [[str(sbdf) for sbdf in MACHINE.functions]]),  # all
        (ivmd(0x21, 0x06, 0x10, 0, 0x5000_0000, 0x1000), []),  # neither unity nor exclusion
        (ivmd(0x21, 0x01, 0x10, 0, 0x5000_0000, 0), []),  # empty
        (ivmd(0x21, 0x01, 0x10, 0, (1 << 64) - 1, 2), []),  # wraps
    ],
)
def test_an_ivmd_and_who_holds_it(block, expected):
    assert [holders for *_, holders, _ in areas(ivrs(block))[0]] == expected


def test_oddities_are_passed_over():
    empty = rmrr(0x8000_0000, 0x7FFF_FFFF, scope(0, (2, 0)))
    assert areas(dmar(empty), b"short", build_table(Header("SSDT", 1), b"")) == ([], ())
    assert areas(dmar(b"\x01\0\0\0"))[1]  # an entry of length 0 is told
