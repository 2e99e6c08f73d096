"""A small encoder of AML, as much as a DSDT of devices with fixed resources needs.

Every function gives the bytes of one term or descriptor; joining them is making a body.
Source: ACPI 6.5 §20.2 (grammar), §6.4 (resource descriptors), §19.6.37 (EISA ids).
"""

import struct

_ZERO, _ONE, _NAME, _BYTE, _WORD, _DWORD, _STRING, _QWORD = 0x00, 0x01, 0x08, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E
_SCOPE, _BUFFER = b"\x10", b"\x11"
_DEVICE = b"\x5b\x82"

# resource types and the general flags: a producer that decodes positively, minimum and maximum are fixed
MEMORY, IO, BUS = 0, 1, 2
_FIXED_PRODUCER = 0x0C
_READ_WRITE, _PREFETCHABLE, _ENTIRE_RANGE = 0x1, 0x6, 0x3
_ADDRESS_TAGS = {2: 0x88, 4: 0x87, 8: 0x8A}
_ADDRESS_FORMS = {2: "<5H", 4: "<5I", 8: "<5Q"}
_END_TAG = b"\x79\x00"  # its checksum is 0: not computed


def package_length(size: int) -> bytes:
    """Encode the length of a package whose content has `size` bytes; the length counts itself.

    Raises: ValueError above 2^28 - 1, the most that four bytes hold.
    """
    for extra in range(4):
        total = size + extra + 1
        if extra == 0 and total < 1 << 6:
            return bytes([total])
        if extra and total < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little")
    raise ValueError(f"a package of {size} bytes cannot be encoded")


def integer(value: int) -> bytes:
    """Encode a number in the shortest form."""
    if value in (0, 1):
        return bytes([_ONE if value else _ZERO])
    for opcode, size in ((_BYTE, 1), (_WORD, 2), (_DWORD, 4), (_QWORD, 8)):
        if value < 1 << 8 * size:
            return bytes([opcode]) + value.to_bytes(size, "little")
    raise ValueError(f"{value:#x} has more than 64 bits")


def string(text: str) -> bytes:
    data = text.encode("ascii")
    if b"\0" in data:
        raise ValueError("a string cannot hold a zero byte")
    return bytes([_STRING]) + data + b"\0"


def eisa_id(text: str) -> bytes:
    """Encode an id such as PNP0A03: three letters of five bits each, four hex digits, high byte first."""
    letters = 0
    for letter in text[:3]:
        letters = letters << 5 | ord(letter) - 0x40
    number = (letters << 16 | int(text[3:], 16)).to_bytes(4, "big")
    return bytes([_DWORD]) + number


def segment(name: str) -> bytes:
    """Encode one name of at most four characters, filled up with underscores.

    Raises: ValueError where it is none.
    """
    padded = name.ljust(4, "_")
    legal = all(
        c.isascii() and (c.isupper() or c == "_" or (c.isdigit() and at)) for at, c in enumerate(padded)
    )
    if len(padded) != 4 or not legal:
        raise ValueError(f"{name!r} is no ACPI name")
    return padded.encode("ascii")


def name(label: str, value: bytes) -> bytes:
    return bytes([_NAME]) + segment(label) + value


def scope(label: str, *terms: bytes) -> bytes:
    """Open a scope below the present one, which is the root at the top of a table."""
    return _package(_SCOPE, segment(label), *terms)


def device(label: str, *terms: bytes) -> bytes:
    return _package(_DEVICE, segment(label), *terms)


def resources(*descriptors: bytes) -> bytes:
    """Make the buffer of a resource template, end tag included."""
    data = b"".join(descriptors) + _END_TAG
    return _package(_BUFFER, integer(len(data)), data)


def bus_window(first: int, last: int) -> bytes:
    return _address(2, BUS, 0, first, last)


def io_window(first: int, last: int) -> bytes:
    return _address(2, IO, _ENTIRE_RANGE, first, last)


def memory_window(first: int, last: int, *, prefetchable: bool) -> bytes:
    flags = _READ_WRITE | (_PREFETCHABLE if prefetchable else 0)
    return _address(4 if last < 1 << 32 else 8, MEMORY, flags, first, last)


def _address(size: int, kind: int, flags: int, first: int, last: int) -> bytes:
    numbers = struct.pack(_ADDRESS_FORMS[size], 0, first, last, 0, last - first + 1)
    body = bytes([kind, _FIXED_PRODUCER, flags]) + numbers
    return bytes([_ADDRESS_TAGS[size]]) + len(body).to_bytes(2, "little") + body


def _package(opcode: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return opcode + package_length(len(body)) + body
