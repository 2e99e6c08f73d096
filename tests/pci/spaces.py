"""Config spaces for tests: made of a few registers, or hostile."""

import random
import struct

from hypothesis import strategies as st

FORMATS = {1: "<B", 2: "<H", 4: "<I"}
ENDPOINT, BRIDGE, CARDBUS = 0, 1, 2
STATUS_HAS_CAPABILITIES = {0x06: (2, 0x10)}


def space(registers=None, *, header=ENDPOINT, size=64, vendor=0x8086, device=0x10D3):
    """Make a config space; `registers` maps an offset to (width, value)."""
    data = bytearray(4096)
    put(data, {0x00: (2, vendor), 0x02: (2, device), 0x0E: (1, header)})
    put(data, registers or {})
    return bytes(data[:size])


def put(data, registers):
    for offset, (width, value) in registers.items():
        struct.pack_into(FORMATS[width], data, offset, value)


def bars(*values, base=0x10):
    """Give the BAR registers, as 32-bit words."""
    return {base + 4 * index: (4, value) for index, value in enumerate(values)}


def standard_list(*capabilities, pointer=0x34):
    """Chain (offset, id, registers relative to the offset) into a standard capability list."""
    registers = dict(STATUS_HAS_CAPABILITIES)
    at = pointer
    for offset, identity, body in capabilities:
        registers[at] = (1, offset)
        registers |= {offset: (1, identity)}
        registers |= {offset + where: register for where, register in body.items()}
        at = offset + 1
    return registers


def extended_list(*capabilities):
    """Chain (offset, id, registers relative to the offset) into an extended list; the first is at 100."""
    registers = {}
    following = [offset for offset, _, _ in capabilities[1:]] + [0]
    for (offset, identity, body), after in zip(capabilities, following, strict=True):
        registers[offset] = (4, identity | 1 << 16 | after << 20)
        registers |= {offset + where: register for where, register in body.items()}
    return registers


@st.composite
def hostile_spaces(draw):
    """Draw up to 4096 random bytes, mostly with a header and capability lists that lead somewhere."""
    source = random.Random(draw(st.integers(0, 2**32)))
    data = bytearray(source.randbytes(4096))
    if draw(st.booleans()):
        data[0x0E] = draw(st.sampled_from([0x00, 0x01, 0x02, 0x80, 0x81, 0x82]))
        data[0x06] |= 0x10
        where = [source.randrange(0x40, 0x100, 4) for _ in range(draw(st.integers(1, 6)))]
        ids = [0x0D, 0x10, 0x11, 0x14, source.randrange(256)]
        data[0x34] = data[0x14] = where[0]
        for offset, after in zip(
            where, [*where[1:], draw(st.sampled_from([0, where[0], 0x20]))], strict=True
        ):
            data[offset : offset + 2] = bytes((source.choice(ids), after))
    if draw(st.booleans()):
        where = [0x100] + [source.randrange(0x104, 0x1000, 4) for _ in range(draw(st.integers(0, 4)))]
        for offset, after in zip(where, [*where[1:], draw(st.sampled_from([0, 0x100, 0x44]))], strict=True):
            struct.pack_into("<I", data, offset, source.choice([0x10, 0x15, 0x0E]) | 1 << 16 | after << 20)
    if draw(st.integers(0, 9)) == 0:
        data[: draw(st.integers(0, 0x40))] = b"\xff" * 0x40
    size = draw(st.one_of(st.sampled_from([64, 256, 4096]), st.integers(0, 4096)))
    return bytes(data[:size])
