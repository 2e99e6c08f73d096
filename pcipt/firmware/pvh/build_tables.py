"""Build the ACPI tables of a PVH domain and place them in memory, as Xen's dom0 builder and libxl do.

For the hardware domain MADT, XSDT and RSDP are built. All other tables are the machine's own (native),
unchanged. DSDT and FACS stay at the addresses that the machine's FADT has for them. sysfs does not show the
addresses of the other native tables, so these are placed behind the built tables. For a guest all tables are
built.
Source: xen/arch/x86/hvm/dom0_build.c; tools/libacpi/build.c, tools/libs/light/libxl_x86_acpi.c.
"""

from collections.abc import Iterable, Mapping

from pcipt import values as attrs
from pcipt.errors import UnsupportedError
from pcipt.firmware.acpi.build_table import Header, header_from_table
from pcipt.firmware.acpi.dsdt import MAX_PROCESSORS, Windows, build_dsdt
from pcipt.firmware.acpi.fadt import (
    FIX_RTC,
    NO_CMOS_RTC,
    NO_VGA,
    PLATFORM_CLOCK,
    POWER_BUTTON,
    PROC_C1,
    SLEEP_BUTTON,
    TMR_VAL_EXT,
    WBINVD,
    Field,
    build_fadt,
    io_port,
    make_fadt,
    parse_fadt,
)
from pcipt.firmware.acpi.madt import (
    LOCAL_APIC_ADDRESS,
    InterruptOverride,
    IoApic,
    Madt,
    build_madt,
    local_apics,
    parse_madt,
)
from pcipt.firmware.acpi.root_tables import Rsdp, build_root_table, build_rsdp
from pcipt.firmware.acpi.table import parse_table
from pcipt.firmware.acpi.table_set import FACS_SIZE, PlacedTable, TableSet
from pcipt.firmware.pvh.rules import SECRET, why_not_given
from pcipt.pci import Address
from pcipt.xen.releases import Version

GUEST_TABLES = Address(0xFC00_0000)
IO_APIC_ADDRESS = Address(0xFEC0_0000)
SCI = 9
_ACTIVE_LOW_LEVEL = 0xF
_MADT_REVISION = 4  # Xen limits it to this revision

GUEST_BOOT_ARCH = NO_VGA | NO_CMOS_RTC
GUEST_FLAGS = WBINVD | PROC_C1 | POWER_BUTTON | SLEEP_BUTTON | FIX_RTC | TMR_VAL_EXT | PLATFORM_CLOCK
# The event and control blocks must have ports, although a PVH guest has no registers there: kernels refuse a
# FADT without them that is not hardware-reduced. There is no PM timer.
_PM1A_EVT, _PM1A_CNT, _GPE0 = 0xB000, 0xB004, 0xAFE0


@attrs.frozen
class Guest:
    """The properties of a guest that decide its tables.

    `windows` are those of its PCI root bridge; None means that no functions are passed through.
    """

    vcpus: int
    local_apic: bool = True
    io_apic: bool = False
    windows: Windows | None = None


class _Memory:
    """Allocates addresses in ascending order, beginning at `base`."""

    def __init__(self, base: int) -> None:
        self._next = base

    def take(self, size: int, align: int = 16) -> Address:
        """Return the next free address, aligned to `align`, and mark `size` bytes there as used."""
        at = -(-self._next // align) * align
        self._next = at + size
        return Address(at)

    def put(self, name: str, data: bytes, *, align: int = 16, native: bool = False) -> PlacedTable:
        """Return the table, placed at the next free address that is a multiple of `align`.

        `native` becomes `PlacedTable.native`.
        """
        return PlacedTable(name, data, self.take(len(data), align), native)


def build_guest_tables(guest: Guest, base: Address = GUEST_TABLES) -> TableSet:
    """Return a guest's tables, placed from `base` on.

    Shape:  the RSDP, and XSDT, RSDT, two FADTs (revisions 5 and 1), MADT, DSDT, FACS, in this order. There is
            no MADT if the guest has no local APIC. Tables do not overlap.
    Raises: UnsupportedError if the number of vCPUs is not between 1 and MAX_PROCESSORS (4096); OverflowError
            or struct.error if a table that is named by a 32-bit address would be at or above 4 GiB.
    """
    _check_vcpus(guest.vcpus)
    memory = _Memory(base)
    facs = memory.put("FACS", build_facs(), align=64)
    dsdt = memory.put("DSDT", build_dsdt(Header("DSDT", 2), guest.vcpus, guest.windows))
    fadt = memory.put("FACP", build_fadt(make_fadt(Header("FACP", 5), _guest_fields(facs, dsdt, wide=True))))
    old = memory.put(
        "FACP-rev1", build_fadt(make_fadt(Header("FACP", 1), _guest_fields(facs, dsdt, wide=False)))
    )
    madt = [memory.put("APIC", build_madt(_guest_madt(guest)))] if guest.local_apic else []
    rest = [table.address for table in madt if table.address is not None]
    xsdt = memory.put("XSDT", build_root_table(Header("XSDT", 1), [_at(fadt), *rest]))
    rsdt = memory.put("RSDT", build_root_table(Header("RSDT", 1), [_at(old), *rest]))
    rsdp = memory.put("RSDP", build_rsdp(Rsdp(2, Header("RSDT", 1).oem_id, _at(rsdt), _at(xsdt))))
    return TableSet(rsdp, (xsdt, rsdt, fadt, old, *madt, dsdt, facs))


def build_hardware_tables(
    native: Iterable[bytes], vcpus: int, base: Address, xen: Version | None = None
) -> TableSet:
    """Return the hardware domain's tables, built from the machine's own tables `native`.

    Shape:  the RSDP, and XSDT, MADT, the copied native tables in the order of `native`, DSDT, FACS. A native
            table is copied if `is_passed_on` allows it for the version `xen`. DSDT and FACS keep the
            addresses that the last FADT has for them: Xen and Linux take the last one that the root table
            names. All other tables are placed from `base` on. DSDT or
            FACS is left out if `native` lacks it or if its address in the FADT is 0. Native tables shorter
            than a header (36 bytes) are ignored. Of several MADTs, DSDTs or FACSs the first is used.
    Raises: UnsupportedError if `native` has no FADT, or if the number of vCPUs is not between 1 and
            MAX_PROCESSORS (4096).
    Source: xen/drivers/acpi/tables/tbutils.c, acpi_tb_parse_root_table; linux drivers/acpi/acpica/tbutils.c,
            the same function (each FADT replaces the one before).
    """
    _check_vcpus(vcpus)
    given = [table for table in native if len(table) >= 36]
    by_name = {table[:4].decode("latin-1"): table for table in reversed(given)}
    if "FACP" not in by_name:
        why = "the machine's FADT (FACP) cannot be read, and no tables can be made without it"
        raise UnsupportedError("tables", why)
    parsed = parse_table([table for table in given if table[:4] == b"FACP"][-1])
    assert parsed is not None
    fadt = parse_fadt(parsed)
    memory = _Memory(base)
    madt = memory.put("APIC", build_madt(_hardware_madt(by_name.get("APIC"), vcpus, fadt.header)))
    allowed = [table for table in given if is_passed_on(table[:4].decode("latin-1"), xen)]
    count = 1 + len(allowed)
    xsdt_at = memory.take(36 + 8 * count)
    rsdp_at = memory.take(36)
    copies = [memory.put(table[:4].decode("latin-1"), table, native=True) for table in allowed]
    header = attrs.evolve(fadt.header, signature="XSDT", revision=1)
    xsdt = PlacedTable("XSDT", build_root_table(header, [_at(madt), *map(_at, copies)]), xsdt_at)
    rsdp = PlacedTable("RSDP", build_rsdp(Rsdp(2, header.oem_id, Address(0), xsdt_at)), rsdp_at)
    fixed = [
        PlacedTable(name, by_name[name], Address(address), native=True)
        for name, address in (("DSDT", fadt.dsdt), ("FACS", fadt.facs))
        if name in by_name and address
    ]
    return TableSet(rsdp, (xsdt, madt, *copies, *fixed))


def is_passed_on(signature: str, xen: Version | None) -> bool:
    """Return True if the machine's table with this signature may be copied for the hardware domain.

    True if this version of Xen lists such a table in the domain's XSDT (None: not known), and it does not
    hold a licence key (MSDM, SLIC).
    """
    return signature not in SECRET and not why_not_given(signature, xen)


def _hardware_madt(native: bytes | None, vcpus: int, like: Header) -> Madt:
    """Return the hardware domain's MADT: the machine's IO-APICs and overrides, and one x2APIC per vCPU.

    `native` is the machine's MADT. If it is None or shorter than a header, the result has neither IO-APICs
    nor overrides, and its header comes from `like`.
    """
    table = parse_table(native) if native is not None else None
    if table is None:
        header = attrs.evolve(like, signature="APIC", revision=_MADT_REVISION)
        return Madt(header, LOCAL_APIC_ADDRESS, 0, local_apics(vcpus, x2apic=True))
    machine = parse_madt(table)
    header = header_from_table(table)
    header = attrs.evolve(header, revision=min(header.revision, _MADT_REVISION))
    found = (*machine.io_apics, *local_apics(vcpus, x2apic=True), *machine.overrides)
    return Madt(header, LOCAL_APIC_ADDRESS, 0, found)


def _guest_madt(guest: Guest) -> Madt:
    """Return a guest's MADT: one local APIC per vCPU.

    If `guest.io_apic` is True, the MADT also has an IO-APIC and the override of the SCI. The flag PCAT_COMPAT
    is not set, because there is no PIC.
    """
    interrupts: tuple[IoApic | InterruptOverride, ...] = ()
    if guest.io_apic:
        interrupts = (IoApic(1, IO_APIC_ADDRESS, 0), InterruptOverride(SCI, SCI, _ACTIVE_LOW_LEVEL))
    apics = local_apics(guest.vcpus, x2apic=False)
    return Madt(Header("APIC", 2), LOCAL_APIC_ADDRESS, 0, (*interrupts, *apics))


def _guest_fields(facs: PlacedTable, dsdt: PlacedTable, *, wide: bool) -> Mapping[Field, int]:
    """Return the FADT fields of a guest.

    If `wide` is True, they include the 64-bit fields, which revision 5 has.
    """
    fields = {
        Field.FACS: _at(facs),
        Field.DSDT: _at(dsdt),
        Field.SCI_INT: SCI,
        Field.PM1A_EVT: _PM1A_EVT,
        Field.PM1A_CNT: _PM1A_CNT,
        Field.GPE0: _GPE0,
        Field.PM1_EVT_LEN: 4,
        Field.PM1_CNT_LEN: 2,
        Field.GPE0_LEN: 4,
        Field.C2_LATENCY: 0xFFF,  # above 100 (C2) and 1000 (C3) the state is not supported
        Field.C3_LATENCY: 0xFFF,
        Field.IAPC_BOOT_ARCH: GUEST_BOOT_ARCH,
        Field.FLAGS: GUEST_FLAGS,
    }
    if wide:
        fields |= {
            Field.X_DSDT: _at(dsdt),
            Field.X_PM1A_EVT: io_port(_PM1A_EVT, 32),
            Field.X_PM1A_CNT: io_port(_PM1A_CNT, 16),
            Field.X_GPE0: io_port(_GPE0, 32),
        }
    return fields


def build_facs() -> bytes:
    """Return the bytes of a FACS of version 2: signature, length and version; all other fields are 0.

    A FACS has no checksum.
    """
    return b"FACS" + FACS_SIZE.to_bytes(4, "little") + bytes(24) + b"\x02" + bytes(31)


def _check_vcpus(vcpus: int) -> None:
    """Raise UnsupportedError if the number of vCPUs is not between 1 and MAX_PROCESSORS (4096)."""
    if not 1 <= vcpus <= MAX_PROCESSORS:
        raise UnsupportedError("tables", f"{vcpus} vCPUs are not between 1 and {MAX_PROCESSORS}")


def _at(table: PlacedTable) -> Address:
    """Return the address of a table, which must not be None."""
    assert table.address is not None
    return table.address


def needed_room(native: Iterable[bytes], vcpus: int) -> int:
    """Return an upper bound of the number of bytes that the tables of `build_hardware_tables` occupy.

    `native` and `vcpus` must be the arguments of that call.
    """
    sizes = [len(table) + 16 for table in native]
    return sum(sizes) + 8 * len(sizes) + 16 * vcpus + 512
