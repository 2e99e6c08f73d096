"""Build ACPI tables: the header of 36 bytes, and the checksum over the whole table.

`acpi.table.parse_table` parses these tables again.
Source: ACPI 6.5 §5.2.6.
"""

import struct

from pcipt import values as attrs
from pcipt.firmware.acpi.table import HEADER_SIZE, Table

_HEADER = struct.Struct("<4sIBB6s8sI4sI")
CHECKSUM_AT = 9
CREATOR = b"PCPT"


@attrs.frozen
class Header:
    """The header of a table, without its length and checksum, which `build_table` computes."""

    signature: str
    revision: int
    oem_id: bytes = b"Xen\0\0\0"
    oem_table_id: bytes = b"HVM\0\0\0\0\0"
    oem_revision: int = 0
    creator_id: bytes = CREATOR
    creator_revision: int = 1


def build_table(header: Header, body: bytes) -> bytes:
    """Return the bytes of a table: the header, with the right length and checksum, followed by `body`.

    Raises: UnicodeEncodeError if the signature is not ASCII; struct.error if a number does not fit into its
            field.
    """
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
    """Return a copy of `data` whose byte at offset `at` is set so that the first `size` bytes sum to zero.

    The sum is modulo 256. `size` None means all bytes. `at` must be below `size`.
    """
    whole = bytearray(data)
    whole[at] = 0
    whole[at] = -sum(whole[:size]) & 0xFF
    return bytes(whole)


def header_from_table(table: Table) -> Header:
    """Return the header of a parsed table in the form that `build_table` takes.

    Every byte of the signature becomes one character (Latin-1), whether or not it is ASCII.
    """
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
