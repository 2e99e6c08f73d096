"""Parse the header of an ACPI table, and walk the type-length entries that several tables contain.

A table is hostile input: a wrong length or a wrong checksum becomes a finding with its byte offset. No
function here raises an error because of a table's content.
Source: ACPI 6.5 §5.2.6.
"""

import struct
from collections.abc import Iterator

from pcipt import values as attrs
from pcipt.pci import Finding

HEADER_SIZE = 36
_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from


@attrs.frozen
class Table:
    """One ACPI table with its header parsed.

    `signature` has a "?" for each byte that is not a visible ASCII character. `data` holds the bytes of the
    table, up to the length in the header. If that length is impossible, `data` holds all bytes that
    `parse_table` got. `findings` has one for an impossible length (`acpi-length`) and one for a wrong
    checksum (`acpi-checksum`).
    """

    signature: str
    revision: int
    data: bytes
    findings: tuple[Finding, ...] = ()

    def u8(self, offset: int) -> int:
        """Return the byte at `offset`.

        Raises: IndexError if `offset` is not inside `data`.
        """
        return self.data[offset]

    def u16(self, offset: int) -> int:
        """Return the 16-bit little-endian number at byte `offset`.

        Raises: struct.error if its two bytes are not inside `data`.
        """
        value: int = _U16(self.data, offset)[0]
        return value

    def u32(self, offset: int) -> int:
        """Return the 32-bit little-endian number at byte `offset`.

        Raises: struct.error if its four bytes are not inside `data`.
        """
        value: int = _U32(self.data, offset)[0]
        return value

    def u64(self, offset: int) -> int:
        """Return the 64-bit little-endian number at byte `offset`.

        Raises: struct.error if its eight bytes are not inside `data`.
        """
        value: int = _U64(self.data, offset)[0]
        return value


def parse_table(data: bytes) -> Table | None:
    """Return the table with its header parsed; None if `data` is shorter than a header (36 bytes).

    Any signature is accepted. A length that is below 36 or above the length of `data`, and a wrong checksum,
    become findings of the table. Bytes behind the header's length are dropped without a finding. Xen renames
    DMAR to RMAD or XMAR in place; the checksum stays right, because the new name has the same letters.
    """
    if len(data) < HEADER_SIZE:
        return None
    findings = []
    length = _U32(data, 4)[0]
    if length > len(data) or length < HEADER_SIZE:
        findings.append(_at("acpi-length", 4, f"the header says {length} bytes, there are {len(data)}"))
        length = len(data)
    if sum(data[:length]) & 0xFF:
        findings.append(_at("acpi-checksum", 9, "the bytes do not sum to zero"))
    signature = "".join(chr(c) if 0x20 < c < 0x7F else "?" for c in data[:4])
    return Table(signature, data[8], data[:length], tuple(findings))


def entries(
    data: bytes, start: int, end: int, findings: list[Finding], *, header: int = 4
) -> Iterator[tuple[int, int, int]]:
    """Yield the type-length entries between the byte offsets `start` and `end`, in this order.

    An entry begins with a 16-bit type and a 16-bit length if `header` is 4, with an 8-bit type and an 8-bit
    length if `header` is 2. Yield nothing if `start` is not below `end`.
    Shape:  (type, offset, length); offset and length in bytes, the length includes type and length. Each
            entry ends at or before `end`. The walk stops at the first entry that is shorter than `header` or
            that runs past `end`. This entry is not yielded, and a finding is appended to `findings`.
    """
    at = start
    while at < end:
        if at + header > end:
            findings.append(_at("acpi-entry", at, "trailing bytes too few for an entry"))
            return
        kind, length = (_U16(data, at)[0], _U16(data, at + 2)[0]) if header == 4 else (data[at], data[at + 1])
        if length < header or at + length > end:
            findings.append(_at("acpi-entry", at, f"an entry of type {kind:#x} claims {length} bytes"))
            return
        yield kind, at, length
        at += length


def _at(code: str, offset: int, what: str) -> Finding:
    """Return a finding whose text is "at 0x…: ", with the byte offset, followed by `what`."""
    return Finding(code, f"at {offset:#x}: {what}")
