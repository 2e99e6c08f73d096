"""The way to the tables: RSDP, and the RSDT or XSDT that it points to.

Source: ACPI 6.5 §5.2.5.3 (RSDP), §5.2.7 (RSDT), §5.2.8 (XSDT).
"""

import struct
from collections.abc import Sequence

import attrs

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
    """`rsdt` and `xsdt` 0 are absent tables; revision 0 has no XSDT."""

    revision: int
    oem_id: bytes
    rsdt: Address
    xsdt: Address


def build_rsdp(rsdp: Rsdp) -> bytes:
    first = with_checksum(_V1.pack(RSDP_SIGNATURE, 0, rsdp.oem_id, rsdp.revision, rsdp.rsdt), 8)
    if rsdp.revision == 0:
        return first
    return with_checksum(first + _V2.pack(RSDP_SIZE, rsdp.xsdt, 0, bytes(3)), 32)


def parse_rsdp(data: bytes, source: str = "RSDP") -> Rsdp:
    """Decode an RSDP; sums are not looked at here.

    Raises: MalformedError where the signature is not there or the bytes end too early.
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
    """Make an RSDT or XSDT, by the header's signature.

    Raises: OverflowError where an address does not fit.
    """
    size = ENTRY_SIZES[header.signature]
    return build_table(header, b"".join(address.to_bytes(size, "little") for address in addresses))


def parse_root_table(table: Table) -> tuple[Address, ...]:
    """List the addresses in an RSDT or XSDT, at most 256; trailing bytes too few for one are left out."""
    size = ENTRY_SIZES[table.signature]
    body = table.data[HEADER_SIZE : HEADER_SIZE + size * MAX_ENTRIES]
    count = len(body) // size
    return tuple(Address(int.from_bytes(body[n * size : (n + 1) * size], "little")) for n in range(count))
