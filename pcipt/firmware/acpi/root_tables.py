"""Parse and build the tables that point to all other tables: RSDP, RSDT and XSDT.

Source: ACPI 6.5 §5.2.5.3 (RSDP), §5.2.7 (RSDT), §5.2.8 (XSDT).
"""

import struct
from collections.abc import Sequence

from pcipt import values as attrs
from pcipt.errors import MalformedError
from pcipt.firmware.acpi.build_table import Header, build_table, with_checksum
from pcipt.firmware.acpi.table import HEADER_SIZE, Table
from pcipt.pci import Address

RSDP_SIGNATURE = b"RSD PTR "
RSDP_SIZE = 36
_V1 = struct.Struct("<8sB6sBI")
_V2 = struct.Struct("<IQB3s")

ENTRY_SIZES = {"RSDT": 4, "XSDT": 8}
MAX_ENTRIES = 256


@attrs.frozen
class Rsdp:
    """The fields of an RSDP.

    Address 0 in `rsdt` or `xsdt` means that there is no such table. An RSDP of revision 0 has no XSDT.
    """

    revision: int
    oem_id: bytes
    rsdt: Address
    xsdt: Address


def build_rsdp(rsdp: Rsdp) -> bytes:
    """Return the bytes of an RSDP with right checksums: 20 bytes for revision 0, else 36 bytes.

    Revision 0 has no field for the XSDT: `rsdp.xsdt` is then dropped.
    Raises: struct.error if a number does not fit into its field (`rsdt` has 32 bits).
    """
    first = with_checksum(_V1.pack(RSDP_SIGNATURE, 0, rsdp.oem_id, rsdp.revision, rsdp.rsdt), 8)
    if rsdp.revision == 0:
        return first
    return with_checksum(first + _V2.pack(RSDP_SIZE, rsdp.xsdt, 0, bytes(3)), 32)


def parse_rsdp(data: bytes, source: str = "RSDP") -> Rsdp:
    """Return the fields of the RSDP at the beginning of `data`.

    Checksums and the length field are not verified. `source` names the input in the error. Bytes behind the
    RSDP are ignored.
    Raises: MalformedError if `data` does not begin with the signature "RSD PTR ", or has fewer bytes than the
            revision requires (20 for revision 0, else 36).
    """
    if data[:8] != RSDP_SIGNATURE:
        raise MalformedError(source, 0, 'the signature is not "RSD PTR "')
    if len(data) < _V1.size:
        raise MalformedError(source, 0, f"{_V1.size} bytes are needed, there are {len(data)}")
    _, _, oem_id, revision, rsdt = _V1.unpack_from(data)
    if revision == 0:
        return Rsdp(0, oem_id, Address(rsdt), Address(0))
    if len(data) < RSDP_SIZE:
        raise MalformedError(source, 20, f"revision {revision} has {RSDP_SIZE} bytes, there are {len(data)}")
    return Rsdp(revision, oem_id, Address(rsdt), Address(_V2.unpack_from(data, _V1.size)[1]))


def build_root_table(header: Header, addresses: Sequence[Address]) -> bytes:
    """Return the bytes of an RSDT or XSDT that lists `addresses` in this order.

    The signature in `header` decides which of the two it is.
    Raises: KeyError if the signature is neither RSDT nor XSDT; OverflowError if an address does not fit into
            an entry (4 bytes in an RSDT, 8 in an XSDT).
    """
    size = ENTRY_SIZES[header.signature]
    return build_table(header, b"".join(address.to_bytes(size, "little") for address in addresses))


def parse_root_table(table: Table) -> tuple[Address, ...]:
    """Return the addresses that an RSDT or XSDT lists, in its order, at most the first 256.

    Addresses of 0 are returned too. Bytes at the end that are too few for an entry are ignored.
    Raises: KeyError if the table's signature is neither RSDT nor XSDT.
    """
    size = ENTRY_SIZES[table.signature]
    body = table.data[HEADER_SIZE : HEADER_SIZE + size * MAX_ENTRIES]
    count = len(body) // size
    return tuple(Address(int.from_bytes(body[n * size : (n + 1) * size], "little")) for n in range(count))
