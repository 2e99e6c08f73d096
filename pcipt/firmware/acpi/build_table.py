"""Make ACPI tables: the 36 bytes that each begins with, and the checksum over the whole.

`acpi.parse_table` reads what is made here.
Source: ACPI 6.5 §5.2.6.
"""

import struct

import attrs

from pcipt.firmware.acpi.table import HEADER_SIZE, Table

_HEADER = struct.Struct("<4sIBB6s8sI4sI")
CHECKSUM_AT = 9
CREATOR = b"PCPT"


@attrs.frozen
class Header:
    """A header without its length and checksum, which follow from the rest."""

    signature: str
    revision: int
    oem_id: bytes = b"Xen\0\0\0"
    oem_table_id: bytes = b"HVM\0\0\0\0\0"
    oem_revision: int = 0
    creator_id: bytes = CREATOR
    creator_revision: int = 1


def build_table(header: Header, body: bytes) -> bytes:
    """Join header and body; length and checksum are right."""
    head = _HEADER.pack(
        header.signature.encode("ascii"),
        HEADER_SIZE + len(body),
        header.revision,
        0,
        header.oem_id,
        header.oem_table_id,
        header.oem_revision,
        header.creator_id,
        header.creator_revision,
    )
    return with_checksum(head + body)


def with_checksum(data: bytes, at: int = CHECKSUM_AT, size: int | None = None) -> bytes:
    """Set the byte at `at` so that the first `size` bytes (all of them) sum to zero."""
    whole = bytearray(data)
    whole[at] = 0
    whole[at] = -sum(whole[:size]) & 0xFF
    return bytes(whole)


def header_from_table(table: Table) -> Header:
    signature, _, revision, _, oem_id, oem_table_id, oem_revision, creator_id, creator_revision = (
        _HEADER.unpack_from(table.data)
    )
    return Header(
        signature.decode("latin-1"),
        revision,
        oem_id,
        oem_table_id,
        oem_revision,
        creator_id,
        creator_revision,
    )
