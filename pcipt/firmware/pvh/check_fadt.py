"""Check the FADT of a PVH domain.

The hardware domain has the machine's own FADT, a guest has one without legacy devices.

Source: ACPI 6.5 §5.2.9 (§5.2.9.3: boot flags); xen/arch/x86/hvm/dom0_build.c; tools/libacpi/build.c.
"""

from collections.abc import Iterator

from pcipt.firmware.acpi.fadt import (
    HAS_8042,
    HW_REDUCED,
    LEGACY_DEVICES,
    LENGTHS,
    NO_CMOS_RTC,
    NO_VGA,
    Fadt,
    Field,
    parse_fadt,
)
from pcipt.firmware.acpi.table_set import Domain, PlacedTable, TableSet
from pcipt.firmware.pvh.check_rows import Row, doubtful, good, judged, wrong
from pcipt.firmware.pvh.facts import Facts

_WITH_BOOT_FLAGS = 2  # in revision 1 these bytes are reserved
_ARCH, _FLAGS = Field.IAPC_BOOT_ARCH.offset, Field.FLAGS.offset


def check_fadt(tables: TableSet, table: PlacedTable, domain: Domain, facts: Facts) -> Iterator[Row]:
    """Yield the rows (check results) of the rules for the FADT `table`.

    A table without a whole ACPI header yields nothing. A table shorter than 116 bytes yields one ERROR row.
    """
    label, parsed = tables.label(table), table.parsed
    if parsed is None:
        return
    fadt = parse_fadt(parsed)
    revision, needed = fadt.header.revision, LENGTHS[1]
    size = fadt.length + len(fadt.tail)  # also of bytes that are no whole field, or behind all fields
    if size < needed:
        yield wrong("fadt-length", label, 4, f"{size} bytes are no FADT, it has at least {needed}")
        return
    least = max(length for known, length in LENGTHS.items() if known <= max(revision, 1))
    yield judged(size >= least, "fadt-length", label, 4, f"{size} bytes, revision {revision}",
                 f"{size} bytes, revision {revision} has {least}", warn=True)  # fmt: skip
    yield from _pointers(tables, label, fadt, domain)
    reduced = bool(fadt[Field.FLAGS] & HW_REDUCED)
    if domain is Domain.GUEST:
        yield judged(not reduced, "hw-reduced", label, _FLAGS, "HW_REDUCED is not set",
                     "HW_REDUCED is set, but a guest may have devices that this model does not "
                     "allow")  # fmt: skip
        yield from _guest(label, fadt)
    else:
        yield judged(not reduced, "hw-reduced", label, _FLAGS, "HW_REDUCED is not set",
                     "HW_REDUCED is set: this is right only if the machine has "
                     "hardware-reduced ACPI", warn=True)  # fmt: skip
        yield from _hardware(label, fadt, facts)


def _pointers(tables: TableSet, label: str, fadt: Fadt, domain: Domain) -> Iterator[Row]:
    """Yield the rows about the FADT's pointers to DSDT and FACS.

    ERROR: the pointer is 0 (a FACS may be absent if HW_REDUCED is set), the table at its address has another
    signature, or no table is at its address. WARN: the 32-bit and 64-bit fields differ. The last ERROR has
    two exceptions: no table of the set has a known address, or the set is the hardware domain's and has no
    DSDT (or FACS) at all. The row is then OK and says that nothing was checked.
    """
    for wanted, address, fields in (
        ("DSDT", fadt.dsdt, (Field.X_DSDT, Field.DSDT)),
        ("FACS", fadt.facs, (Field.FACS, Field.X_FACS)),
    ):
        offset = next((field.offset for field in fields if fadt[field]), fields[-1].offset)
        both = [fadt[field] for field in fields if fadt[field]]
        if not address:
            optional = wanted == "FACS" and fadt[Field.FLAGS] & HW_REDUCED
            yield (
                good("pointer", label, offset, "no FACS, as hardware-reduced ACPI permits")
                if optional
                else wrong("pointer", label, offset, f"no {wanted}")
            )
            continue
        if len(both) == 2 and both[0] != both[1]:
            yield doubtful("pointer", label, offset, f"two {wanted}: {both[0]:#x} and {both[1]:#x}")
        target = tables.at(address)
        if target is not None:
            right = target.signature == wanted
            yield judged(right, "pointer", label, offset, f"{address:#x} is {wanted}",
                         f"{address:#x} is {target.signature}, not {wanted}")  # fmt: skip
        elif any(each.address is not None for each in tables.tables) and not (
            domain is Domain.HARDWARE and not tables.named(wanted)
        ):
            yield wrong("pointer", label, offset, f"no table is at {address:#x}")
        else:
            yield good(
                "pointer", label, offset, f"{wanted} at {address:#x}, which is not here to be looked at"
            )


def _guest(label: str, fadt: Fadt) -> Iterator[Row]:
    """Yield the rows of the rules that only a guest's FADT must follow: boot flags, no PM timer, SCI 9.

    A PM timer is WARN. An SCI other than 9 is WARN. Below revision 2 the boot flags are not checked, and a PM
    timer is OK.
    """
    timer = fadt[Field.PM_TMR] or fadt[Field.X_PM_TMR] >> 32
    at = Field.PM_TMR.offset
    if fadt.header.revision >= _WITH_BOOT_FLAGS:
        yield from _guest_boot_flags(label, fadt[Field.IAPC_BOOT_ARCH])
        yield judged(not timer, "pm-timer", label, at, "no PM timer",
                     f"a PM timer at port {timer:#x}; a guest has none", warn=True)  # fmt: skip
    elif timer:
        why = f"a PM timer at port {timer:#x}: libxl forgets it in revision 1, which an XSDT supersedes"
        yield good("pm-timer", label, at, why)
    yield judged(fadt[Field.SCI_INT] == 9, "sci", label, Field.SCI_INT.offset, "SCI is 9",
                 f"SCI is {fadt[Field.SCI_INT]}, libxl makes it 9", warn=True)  # fmt: skip


def _guest_boot_flags(label: str, arch: int) -> Iterator[Row]:
    """Yield the rows about the boot flags (IAPC_BOOT_ARCH) `arch` of a guest.

    ERROR: NO_VGA or NO_CMOS_RTC is not set. WARN: ISA devices or a keyboard controller are promised.
    """
    yield judged(bool(arch & NO_VGA), "no-vga", label, _ARCH, "NO_VGA is set",
                 "NO_VGA is not set: a kernel looks for a VGA that does not exist")  # fmt: skip
    yield judged(bool(arch & NO_CMOS_RTC), "no-cmos-rtc", label, _ARCH, "NO_CMOS_RTC is set",
                 "NO_CMOS_RTC is not set: a kernel looks for a clock that does not exist")  # fmt: skip
    legacy = arch & (LEGACY_DEVICES | HAS_8042)
    yield judged(not legacy, "legacy", label, _ARCH, "no ISA devices, no keyboard controller",
                 "the FADT promises ISA devices or a keyboard controller; a guest "
                 "has none", warn=True)  # fmt: skip


def _hardware(label: str, fadt: Fadt, facts: Facts) -> Iterator[Row]:
    """Yield the rows about the boot flags of the hardware domain.

    WARN: NO_VGA is set although the machine has a VGA-compatible function. Every other row is OK.
    """
    arch = fadt[Field.IAPC_BOOT_ARCH]
    absent = bool(arch & NO_VGA)
    if absent and facts.vga:
        yield doubtful("no-vga", label, _ARCH, "NO_VGA is set, but the machine has a VGA-compatible function")
    else:
        seen = {True: "the machine has one", False: "the machine has none", None: "the machine was not read"}
        yield good("no-vga", label, _ARCH, f"NO_VGA is {'' if absent else 'not '}set; {seen[facts.vga]}")
    clock = "not there" if arch & NO_CMOS_RTC else "there"
    yield good("no-cmos-rtc", label, _ARCH, f"the CMOS clock is {clock}, says the machine's firmware")
