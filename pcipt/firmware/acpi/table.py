"""The header every ACPI table begins with, and the walk over type-length entries that several tables share.

A table is hostile input: a wrong length or checksum is a finding with its offset, never an exception.
Source: ACPI 6.5 §5.2.6.
"""

import struct
from collections.abc import Iterator

import attrs

from pcipt.pci import Finding

HEADER_SIZE = 36
_U16 = struct.Struct("<H").unpack_from
_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from


@attrs.frozen
class Table:
    """A table: its signature, its bytes as long as header and file agree, and what was wrong."""

    signature: str
    revision: int
    data: bytes
    findings: tuple[Finding, ...] = ()

    def u8(self, offset: int) -> int:
        return self.data[offset]

    def u16(self, offset: int) -> int:
        value: int = _U16(self.data, offset)[0]
        return value

    def u32(self, offset: int) -> int:
        value: int = _U32(self.data, offset)[0]
        return value

    def u64(self, offset: int) -> int:
        value: int = _U64(self.data, offset)[0]
        return value


def parse_table(data: bytes) -> Table | None:
    """Read the header; None where there is not even one.

    Xen renames DMAR to RMAD or XMAR in place, leaving the checksum right (its letters are the same).
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
    """Walk entries of `{u16 type, u16 length}` (header 4) or `{u8 type, u8 length}` (header 2).

    Shape:  (type, offset, length) with the whole entry inside `end`; the walk stops at the first length that
            is too short to be one or runs past the end, and says so in `findings`.
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
    return Finding(code, f"at {offset:#x}: {what}")
