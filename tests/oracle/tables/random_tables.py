"""Random machines with a DMAR or IVRS table: mostly right, with a fault now and then, all from one seed."""

import random
import struct

from tests.firmware.acceptance.cases import MEMORY, Given
from tests.firmware.reserved_tables import INFO, dmar, drhd, ivhd, ivmd, ivrs, rmrr, special

PLACES = (
    0x7000_0000,
    0x7000_2000,
    0x7080_0000,
    0x7100_0000,
    0x7200_0000,
    0x7300_0000,
    0x6FFF_F000,
    0,
    0xFFFF_F000,
)
SLOTS = (
    "00:00.0",
    "00:02.0",
    "00:02.1",
    "00:14.0",
    "00:19.0",
    "00:1c.0",
    "00:1c.1",
    "01:00.0",
    "02:00.0",
    "02:00.1",
)
PATHS = (
    ((0x19, 0),), ((2, 0),), ((2, 1),), ((0x1C, 0),), ((0x1C, 1),), ((0x1C, 1), (0, 0)), ((0, 0),),
    ((0x1C, 0), (0, 0)), ((0x1F, 7),), ((0x3F, 9),), ((0x14, 0), (1, 0)),
)  # fmt: skip
BRIDGES = {"00:1c.0": (1, 1), "00:1c.1": (2, 3)}
ABOVE_0 = ("0001:00:19.0", "0001:00:02.0", "0001:00:1c.0", "0001:00:1c.1", "0001:01:00.0", "0001:02:00.0")
BRIDGES_ABOVE_0 = {"0001:00:1c.0": (1, 1), "0001:00:1c.1": (2, 3)}


def given_of(seed):
    """Give the machine of a seed, and (secondary, subordinate) of its bridges by address."""
    rng = random.Random(seed)
    functions = tuple(slot for slot in SLOTS if rng.random() < 0.85)
    make = _dmar if rng.random() < 0.5 else _ivrs
    table, io_apics = make(rng)
    if rng.random() < 0.15:
        table = _damaged(rng, table)
    given = Given(table, io_apics, MEMORY, functions)
    return given, {slot: buses for slot, buses in BRIDGES.items() if slot in functions}


def above_0_of(seed):
    """Give a machine with units and reserved regions of segment 1, which MCFG names, as `given_of` does."""
    rng = random.Random(seed)
    there = tuple(slot for slot in ABOVE_0 if rng.random() < 0.7)
    units = [drhd(*_few(rng, 2, _scope), base=0xFED9_1000, flags=0, segment=1)]
    regions = [
        rmrr(at, at + 0xFFF, b"".join(_few(rng, 3, _scope)), segment=1)
        for at in range(PLACES[0], PLACES[0] + 0x4000, 0x1000)
    ]
    given = Given(dmar(drhd(), *units, *regions), (0,), MEMORY, (*SLOTS[:2], *there))
    return given, {slot: BRIDGES_ABOVE_0[slot] for slot in there if slot in BRIDGES_ABOVE_0}


def _damaged(rng, table):
    """Change some bytes behind the header, and mostly put the checksum right again."""
    data = bytearray(table)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(36, len(data))
        data[at] = rng.choice((0, 1, 0xFF, rng.randrange(256), data[at] ^ 1 << rng.randrange(8)))
    if rng.random() < 0.9:
        data[9] = (data[9] - sum(data)) & 0xFF
    return bytes(data)


def _few(rng, most, make):
    return [make(rng) for _ in range(rng.randint(0, most))]


def _region(rng):
    base = rng.choice(PLACES) + rng.choice((0, 0, 0, 0x10, 0x1000))
    return base, rng.choice((0x1000, 0x1000, 0x2000, 1, 0xFFF, 0x80_0000, 0))


def _scope(rng):
    kind = rng.choice((1, 1, 1, 2, 2, 3, 4, 5, 9))
    hops = rng.choice(PATHS)
    size = 6 + 2 * len(hops)
    size = rng.choice((size,) * 30 + (6, 0, size + 1, size + 2))
    path = b"".join(bytes(hop) for hop in hops)
    return bytes([kind, size, 0, 0, rng.choice((0, 0, 1, 2, 8)), rng.choice((0, 0, 0, 0, 1, 2))]) + path


def _dmar(rng):
    entries = [_drhd(rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    entries += _few(rng, 4, _dmar_entry)
    if rng.random() < 0.2:
        rng.shuffle(entries)
    width, flags = rng.choice((38,) * 20 + (0,)), rng.choice((1, 1, 1, 0))
    return dmar(*entries, width=width, flags=flags), tuple(rng.sample((0, 1, 2, 8), rng.randint(0, 3)))


def _drhd(rng):
    base = rng.choice((0xFED9_0000, 0xFED9_1000, 0xFED9_2000) * 8 + (0, (1 << 64) - 1))
    return drhd(
        *_few(rng, 3, _scope), base=base, flags=rng.choice((0, 0, 0, 1)), segment=rng.choice((0,) * 9 + (1,))
    )


def _dmar_entry(rng):
    segment, scopes = rng.choice((0,) * 9 + (1,)), b"".join(_few(rng, 3, _scope))
    kind = rng.choice((1, 1, 1, 1, 2, 3, 4, 5, 6))
    if kind == 1:
        base, size = _region(rng)
        return rmrr(base, (base + size - 1) & (1 << 64) - 1, scopes, segment=segment)
    if kind == 3:
        body = bytes(16)
    else:
        body = struct.pack("<BBH", rng.choice((0, 0, 1)), 0, segment) + (scopes if kind != 4 else bytes(5))
    size = 4 + len(body)
    return struct.pack("<HH", kind, rng.choice((size,) * 15 + (4, 6, size - 1))) + body


def _id(rng):
    return rng.choice(
        (
            0,
            0x08,
            0x10,
            0x11,
            0x12,
            0x17,
            0x18,
            0x20,
            0xA0,
            0xA1,
            0xA7,
            0xE0,
            0x100,
            0x200,
            rng.randrange(0x300),
        )
    )


def _device_entry(rng):
    kind = rng.choice((2,) * 8 + (3,) * 8 + (0x42, 0x43, 0x46, 0x47, 0x48, 0x48) * 3 + (0, 0x40, 1, 4, 0xF0))
    first, last = sorted((_id(rng), _id(rng)))
    if rng.random() < 0.03:
        first, last = last, first
    head, end = (
        struct.pack("<BHB", kind, first, rng.randrange(256)),
        struct.pack("<BHB", rng.choice((4,) * 40 + (2,)), last, 0),
    )
    middle = struct.pack("<BHB", 0, _id(rng), 0)
    if kind in (0x42, 0x46, 0x40):
        return head + middle
    if kind in (0x43, 0x47):
        return head + middle + end
    if kind == 0x48:
        return special(
            _id(rng), variety=rng.choice((1, 1, 1, 2, 2, 2, 2) * 4 + (0, 3)), handle=rng.choice((0, 1))
        )
    return head + end if kind == 3 else head


def _block(rng):
    base, size = _region(rng)
    if rng.random() < 0.03:
        base, size = rng.choice(
            ((0, 0), ((1 << 64) - 0x1000, 0x1000), (1 << 50, 0x1000), ((1 << 64) - 0x1000, 0x2000), (0, 1))
        )
    kind = rng.choice((0x20, 0x21, 0x21, 0x21, 0x22, 0x22, 0x23))
    flags = rng.choice((7, 7, 7, 1, 3, 8, 8, 9, 0) if rng.random() < 0.5 else (7, 8))
    first, last = sorted((_id(rng), _id(rng)))
    if kind == 0x23:
        first, last = rng.choice(((2, 0x40), (2, 0x40), (3, 0x40), (2, 0x44)))
    made = ivmd(kind, flags, first, last, base, size)
    return made if rng.random() < 0.97 else made[:2] + b"\x1c" + made[3:28]


def _ivrs(rng):
    io_apics = rng.choice(((0,), (0,), (0, 1), (1,), ()) if rng.random() < 0.3 else ((0,),))
    units = []
    for number in range(rng.choice((1, 1, 1, 2))):
        entries = _few(rng, 5, _device_entry)
        if number == 0 and rng.random() < 0.95:
            entries.append(special(0xA0, handle=0))
        if rng.random() < 0.5:
            entries.append(struct.pack("<BHBBHB", 3, 8, 0, 4, rng.choice((0x2FF, 0x1FF, 0xFFFF)), 0))
        pads = [bytes(4)] * 4 if rng.random() < 0.9 else []
        kinds = rng.choice(
            ((0x10,), (0x11,), (0x10, 0x11), (0x40,), (0x11, 0x40)) if rng.random() < 0.6 else ((0x10,),)
        )
        segment, device = rng.choice((0,) * 20 + (1,)), rng.choice((2, 2 + number, 0x11) * 6 + (0,))
        units += [ivhd(*entries, *pads, kind=kind, segment=segment, device=device) for kind in kinds]
    blocks = [*units, *_few(rng, 4, _block)]
    if rng.random() < 0.2:
        rng.shuffle(blocks)
    if rng.random() < 0.05:
        blocks.insert(
            rng.randint(0, len(blocks)), struct.pack("<BBHI", 0x51, 0, rng.choice((8, 8, 4, 0, 200)), 0)
        )
    info = rng.choice((INFO, INFO, INFO & ~1, 1 | 40 << 8 | 32 << 15, 0))
    return ivrs(*blocks, units=(), info=info), tuple(io_apics)
