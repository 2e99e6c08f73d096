"""Encode AML, the byte code of ACPI: the terms that a DSDT of devices with fixed resources needs.

Every function returns the bytes of one AML term or of one resource descriptor. A body is the concatenation of
its terms.
Source: ACPI 6.5 §20.2 (grammar), §6.4 (resource descriptors), §19.6.37 (EISA ids).
"""

import struct
from collections.abc import Sequence

_ZERO, _ONE, _NAME, _BYTE, _WORD, _DWORD, _STRING, _QWORD = 0x00, 0x01, 0x08, 0x0A, 0x0B, 0x0C, 0x0D, 0x0E
_SCOPE, _BUFFER = b"\x10", b"\x11"
_DEVICE = b"\x5b\x82"

# Resource types, and the general flags: a producer with positive decode, minimum and maximum fixed.
MEMORY, IO, BUS = 0, 1, 2
_FIXED_PRODUCER = 0x0C
_READ_WRITE, _PREFETCHABLE, _ENTIRE_RANGE = 0x1, 0x6, 0x3
_ADDRESS_TAGS = {2: 0x88, 4: 0x87, 8: 0x8A}
_ADDRESS_FORMS = {2: "<5H", 4: "<5I", 8: "<5Q"}
_END_TAG = b"\x79\x00"  # its checksum is 0: not computed


def package_length(size: int) -> bytes:
    """Return the AML encoding of the length of a package whose content has `size` bytes.

    The number that is encoded is `size` plus the bytes of the encoding itself.
    Raises: ValueError if the number is above 2^28 - 1, the limit of four bytes.
    """
    for extra in range(4):
        total = size + extra + 1
        if extra == 0 and total < 1 << 6:
            return bytes([total])
        if extra and total < 1 << (4 + 8 * extra):
            return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little")
    raise ValueError(f"a package of {size} bytes cannot be encoded")


def integer(value: int) -> bytes:
    """Return the shortest AML encoding of a number.

    Raises: ValueError if the number has more than 64 bits; OverflowError if it is negative.
    """
    if value in (0, 1):
        return bytes([_ONE if value else _ZERO])
    for opcode, size in ((_BYTE, 1), (_WORD, 2), (_DWORD, 4), (_QWORD, 8)):
        if value < 1 << 8 * size:
            return bytes([opcode]) + value.to_bytes(size, "little")
    raise ValueError(f"{value:#x} has more than 64 bits")


def string(text: str) -> bytes:
    """Return the AML encoding of an ASCII string.

    Raises: ValueError if the text contains a zero byte; UnicodeEncodeError (a ValueError) if it is not ASCII.
    """
    data = text.encode("ascii")
    if b"\0" in data:
        raise ValueError("a string cannot hold a zero byte")
    return bytes([_STRING]) + data + b"\0"


def eisa_id(text: str) -> bytes:
    """Return the AML encoding of an EISA id, for example of PNP0A03.

    `text` must be three capital letters and four hexadecimal digits; the letters are not verified. Each
    letter takes five bits. The four bytes are stored with the high byte first.
    Raises: ValueError if the text behind its first three characters is not a hexadecimal number.
    """
    letters = 0
    for letter in text[:3]:
        letters = letters << 5 | ord(letter) - 0x40
    number = (letters << 16 | int(text[3:], 16)).to_bytes(4, "big")
    return bytes([_DWORD]) + number


def segment(name: str) -> bytes:
    """Return an AML name segment: `name`, padded to four characters with underscores.

    Raises: ValueError if `name` has more than four characters, has characters other than A-Z, 0-9 and
            underscore, or begins with a digit.
    """
    padded = name.ljust(4, "_")
    legal = all(
        c.isascii() and (c.isupper() or c == "_" or (c.isdigit() and at)) for at, c in enumerate(padded)
    )
    if len(padded) != 4 or not legal:
        raise ValueError(f"{name!r} is no ACPI name")
    return padded.encode("ascii")


def name(label: str, value: bytes) -> bytes:
    """Return an AML `Name` term, which defines `label` with the value `value` (an encoded AML term).

    Raises: ValueError if `label` is not a name segment (see `segment`).
    """
    return bytes([_NAME]) + segment(label) + value


def scope(label: str, *terms: bytes) -> bytes:
    """Return an AML `Scope` term that contains `terms` in this order.

    At the top of a table `label` is a name below the root.
    Raises: ValueError if `label` is not a name segment (see `segment`), or if the term is too long (see
            `package_length`).
    """
    return _package(_SCOPE, segment(label), *terms)


def device(label: str, *terms: bytes) -> bytes:
    """Return an AML `Device` term that contains `terms` in this order.

    Raises: ValueError if `label` is not a name segment (see `segment`), or if the term is too long (see
            `package_length`).
    """
    return _package(_DEVICE, segment(label), *terms)


def resources(*descriptors: bytes) -> bytes:
    """Return the AML buffer of a resource template: `descriptors` in this order, then the end tag.

    Raises: ValueError if the buffer is too long (see `package_length`).
    """
    data = b"".join(descriptors) + _END_TAG
    return _package(_BUFFER, integer(len(data)), data)


def bus_window(first: int, last: int) -> bytes:
    """Return the descriptor of the bus numbers `first` to `last` (inclusive) of a root bridge.

    Raises: ValueError if the range is empty, or a bus number or the number of buses has more than 16 bits.
    """
    return _address((2,), BUS, 0, first, last)


def io_window(first: int, last: int) -> bytes:
    """Return the descriptor of the I/O ports `first` to `last` (inclusive) of a root bridge.

    Its numbers have 16 bits; 32 bits for a window of all 65536 ports, whose number needs 17.
    Raises: ValueError if the range is empty, or a port or the number of ports has more than 32 bits.
    """
    return _address((2, 4), IO, _ENTIRE_RANGE, first, last)


def memory_window(first: int, last: int, *, prefetchable: bool) -> bytes:
    """Return the descriptor of the byte addresses `first` to `last` (inclusive) of a root bridge.

    Its numbers have 32 bits if the addresses and the number of bytes fit, else 64 bits.
    Raises: ValueError if the range is empty, or an address or the number of bytes has more than 64 bits.
    """
    flags = _READ_WRITE | (_PREFETCHABLE if prefetchable else 0)
    return _address((4, 8), MEMORY, flags, first, last)


def _address(sizes: Sequence[int], kind: int, flags: int, first: int, last: int) -> bytes:
    """Return an address space descriptor of the type `kind` (MEMORY, IO or BUS).

    The size of its numbers, in bytes, is the first of `sizes` (ascending; of 2, 4 and 8) that is large enough
    for `last` and for the length. `first` and `last` are inclusive. `flags` are the flags that are specific
    to the type.
    Raises: ValueError if the range is empty, or if no size is large enough.
    """
    size = next((each for each in sizes if max(last, last - first + 1) < 1 << 8 * each), None)
    if size is None or not 0 <= first <= last:
        raise ValueError(f"no descriptor of at most {8 * sizes[-1]} bits has the window {first:#x}-{last:#x}")
    numbers = struct.pack(_ADDRESS_FORMS[size], 0, first, last, 0, last - first + 1)
    body = bytes([kind, _FIXED_PRODUCER, flags]) + numbers
    return bytes([_ADDRESS_TAGS[size]]) + len(body).to_bytes(2, "little") + body


def _package(opcode: bytes, *parts: bytes) -> bytes:
    """Return an AML package: the opcode, the encoded length, the parts in this order.

    Raises: ValueError if the package is too long (see `package_length`).
    """
    body = b"".join(parts)
    return opcode + package_length(len(body)) + body
