"""Parse and build the FADT (signature FACP), which describes the machine's fixed hardware.

A FADT is represented as a mapping from field to number. It has the fields that end within the length of the
table. In a FADT that pcipt builds, the revision decides the length. A generic address (12 bytes) is
represented as one little-endian number; `io_port` builds it.
Source: ACPI 6.5 §5.2.9, table 5.9; ACPI 1.0b §5.2.5 for revision 1.
"""

import enum
import types
from collections.abc import Mapping

from pcipt import values as attrs
from pcipt.firmware.acpi.build_table import Header, build_table, header_from_table
from pcipt.firmware.acpi.table import HEADER_SIZE, Table
from pcipt.pci import Finding

SIGNATURE = "FACP"
LENGTHS = {1: 116, 3: 244, 4: 244, 5: 268, 6: 276}


class Field(enum.Enum):
    """The fields of a FADT; each value is (byte offset, size in bytes)."""

    FACS = (36, 4)
    DSDT = (40, 4)
    MODEL = (44, 1)
    PROFILE = (45, 1)
    SCI_INT = (46, 2)
    SMI_CMD = (48, 4)
    ACPI_ENABLE = (52, 1)
    ACPI_DISABLE = (53, 1)
    S4BIOS_REQ = (54, 1)
    PSTATE_CNT = (55, 1)
    PM1A_EVT = (56, 4)
    PM1B_EVT = (60, 4)
    PM1A_CNT = (64, 4)
    PM1B_CNT = (68, 4)
    PM2_CNT = (72, 4)
    PM_TMR = (76, 4)
    GPE0 = (80, 4)
    GPE1 = (84, 4)
    PM1_EVT_LEN = (88, 1)
    PM1_CNT_LEN = (89, 1)
    PM2_CNT_LEN = (90, 1)
    PM_TMR_LEN = (91, 1)
    GPE0_LEN = (92, 1)
    GPE1_LEN = (93, 1)
    GPE1_BASE = (94, 1)
    CST_CNT = (95, 1)
    C2_LATENCY = (96, 2)
    C3_LATENCY = (98, 2)
    FLUSH_SIZE = (100, 2)
    FLUSH_STRIDE = (102, 2)
    DUTY_OFFSET = (104, 1)
    DUTY_WIDTH = (105, 1)
    DAY_ALARM = (106, 1)
    MONTH_ALARM = (107, 1)
    CENTURY = (108, 1)
    IAPC_BOOT_ARCH = (109, 2)
    RESERVED = (111, 1)
    FLAGS = (112, 4)
    RESET_REG = (116, 12)
    RESET_VALUE = (128, 1)
    ARM_BOOT_ARCH = (129, 2)
    MINOR_REVISION = (131, 1)
    X_FACS = (132, 8)
    X_DSDT = (140, 8)
    X_PM1A_EVT = (148, 12)
    X_PM1B_EVT = (160, 12)
    X_PM1A_CNT = (172, 12)
    X_PM1B_CNT = (184, 12)
    X_PM2_CNT = (196, 12)
    X_PM_TMR = (208, 12)
    X_GPE0 = (220, 12)
    X_GPE1 = (232, 12)
    SLEEP_CONTROL = (244, 12)
    SLEEP_STATUS = (256, 12)
    HYPERVISOR = (268, 8)

    @property
    def offset(self) -> int:
        """The byte offset of the field in the table."""
        return self.value[0]

    @property
    def end(self) -> int:
        """The byte offset behind the field (exclusive end)."""
        return self.value[0] + self.value[1]


# IAPC_BOOT_ARCH
LEGACY_DEVICES, HAS_8042, NO_VGA, NO_MSI, NO_ASPM, NO_CMOS_RTC = (1 << bit for bit in range(6))
# FLAGS
WBINVD, PROC_C1, POWER_BUTTON, SLEEP_BUTTON = 1 << 0, 1 << 2, 1 << 4, 1 << 5
FIX_RTC, TMR_VAL_EXT, PLATFORM_CLOCK = 1 << 6, 1 << 8, 1 << 15
HW_REDUCED = 1 << 20

_SYSTEM_IO = 1
_ACCESS = {8: 1, 16: 2, 32: 3}


@attrs.frozen
class Fadt:
    """A FADT as values: `values` maps each field that is not 0 to its number.

    `length` is the size in bytes of the part that `values` describes, header included. `tail` holds the
    table's bytes behind that part. `findings` is filled by `parse_fadt` only.
    """

    header: Header
    length: int
    values: Mapping[Field, int]
    tail: bytes = b""
    findings: tuple[Finding, ...] = attrs.field(default=(), eq=False)

    def __getitem__(self, field: Field) -> int:
        """Return the value of a field; 0 if the field is 0 or the table is too short to have it."""
        return self.values.get(field, 0)

    @property
    def dsdt(self) -> int:
        """The byte address of the DSDT: the 64-bit field if it is not 0, else the 32-bit field.

        0 if both are 0. ACPICA and Xen choose in the same way.
        """
        return self[Field.X_DSDT] or self[Field.DSDT]

    @property
    def facs(self) -> int:
        """The byte address of the FACS: the 32-bit field if it is not 0, else the 64-bit field.

        0 if both are 0: there is no FACS.
        """
        return self[Field.FACS] or self[Field.X_FACS]


def make_fadt(header: Header, values: Mapping[Field, int]) -> Fadt:
    """Return a FADT with the given fields and with the length that the header's revision requires.

    Fields whose value is 0 are dropped, as in `parse_fadt`.
    Raises: ValueError if a field that is not 0 does not exist in that revision, or if the revision is not 1,
            3, 4, 5 or 6.
    """
    length = LENGTHS.get(header.revision)
    if length is None:
        known = ", ".join(map(str, LENGTHS))
        raise ValueError(f"no FADT of revision {header.revision} can be built, only of {known}")
    kept = {field: value for field, value in values.items() if value}
    beyond = [field.name for field in kept if field.end > length]
    if beyond:
        raise ValueError(f"revision {header.revision} has no {', '.join(beyond)}")
    return Fadt(header, length, types.MappingProxyType(kept))


def build_fadt(fadt: Fadt) -> bytes:
    """Return the bytes of a FADT, with the right length and checksum. `tail` follows the fields.

    Raises: OverflowError if a value does not fit into its field; the errors of `build_table` for the header.
    """
    body = bytearray(fadt.length - HEADER_SIZE)
    for field, value in fadt.values.items():
        offset, size = field.value
        body[offset - HEADER_SIZE : offset - HEADER_SIZE + size] = value.to_bytes(size, "little")
    return build_table(fadt.header, bytes(body) + fadt.tail)


def parse_fadt(table: Table) -> Fadt:
    """Return the decoded FADT, of any revision and any length. Its signature is not verified.

    A field that is not wholly inside the table is not decoded. The bytes behind the last whole field become
    `tail`. A table shorter than 116 bytes, the length of revision 1, gets a finding; it is decoded in the
    same way.
    """
    known = max(field.end for field in Field)
    data = table.data[:known]
    values = {
        field: value
        for field in Field
        if field.end <= len(data) and (value := int.from_bytes(data[field.offset : field.end], "little"))
    }
    findings = list(table.findings)
    if len(table.data) < LENGTHS[1]:
        findings.append(Finding("acpi-length", f"at 0x4: {len(table.data)} bytes are no FADT, it has 116"))
    end = max((field.end for field in Field if field.end <= len(data)), default=HEADER_SIZE)
    return Fadt(
        header_from_table(table), end, types.MappingProxyType(values), table.data[end:], tuple(findings)
    )


def io_port(port: int, bits: int) -> int:
    """Return the generic address (12 bytes, as one number) of an I/O register of `bits` bits at `port`.

    Its access size is undefined (0) if `bits` is not 8, 16 or 32.
    Raises: ValueError if `bits` is above 255.
    """
    head = bytes([_SYSTEM_IO, bits, 0, _ACCESS.get(bits, 0)])
    return int.from_bytes(head + port.to_bytes(8, "little"), "little")


def port_of(generic: int) -> int:
    """Return the 64-bit address that a generic address contains: in I/O space, a port number.

    The address space is not verified.
    """
    return generic >> 32
