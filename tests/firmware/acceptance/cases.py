"""For each rule of acceptance one machine to which it applies and one, as alike as possible, to which not."""

import struct

import attrs

from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.memory_map import MemoryType, entry
from pcipt.pci import decode_machine
from tests.firmware.reserved_tables import (
    INFO,
    SOUTHBRIDGE,
    alias,
    dmar,
    drhd,
    fadt,
    ivhd,
    ivmd,
    ivrs,
    madt,
    rmrr,
    scope,
    select,
    span,
    special,
)
from tests.machines import iommu, smbus

MCFG = build_table(Header("MCFG", 1), bytes(8) + struct.pack("<QHBB4x", 0x7000_0000, 1, 0, 15))

#  RAM, then reserved, ACPI's memory, a hole, persistent memory, a hole, RAM
MEMORY = (
    entry(0, 0x7000_0000, MemoryType.RAM),
    entry(0x7000_0000, 0x100_0000, MemoryType.RESERVED),
    entry(0x7100_0000, 0x100_0000, MemoryType.ACPI),
    entry(0x7300_0000, 0x100_0000, MemoryType.PMEM),
    entry(0x8000_0000, 0x1_0000, MemoryType.RAM),
)
TAKEN, ACPI, HOLE, PMEM = 0x7000_0000, 0x7100_0000, 0x7200_0000, 0x7300_0000
NIC, USB, ABSENT = scope(0, (0x19, 0)), scope(0, (0x14, 0)), scope(0, (0x1F, 7))
THERE = ("00:00.0", "00:14.0", "00:19.0", "00:02.0", "00:02.1")


@attrs.frozen
class Given:
    """What is given: the tables, the memory map, and the addresses of the functions that are there."""

    table: bytes
    io_apics: tuple[int, ...] | None = (0,)
    memory: tuple = MEMORY
    functions: tuple[str, ...] = THERE
    fadt: bytes | None = None
    raws: tuple | None = None

    @property
    def tables(self):
        others = [madt(*self.io_apics)] if self.io_apics is not None else []
        return [self.table, *others, MCFG, *([self.fadt] if self.fadt is not None else [])]

    @property
    def machine(self):
        """The machine with its registers; None: they are not looked at."""
        return decode_machine(self.raws) if self.raws is not None else None


def vtd(*entries, **more):
    """A DMAR whose first entry is a unit for all functions, with the IO-APIC 0."""
    given = {name: more.pop(name) for name in list(more) if name in ("io_apics", "functions", "fadt")}
    return Given(dmar(drhd(scope(0xF0, (0x1F, 0), kind=3)), *entries, **more), **given)


def amd(*blocks, units=None, info=INFO, **more):
    return Given(ivrs(*blocks, units=units, info=info), **more)


def raw(kind, size, *more):
    """An entry of DMAR with a false length."""
    return struct.pack("<HH", kind, size) + b"".join(more)


def broken(given, at, value):
    """Change one byte of the table; its checksum is wrong then."""
    table = bytearray(given.table)
    table[at] ^= value
    return attrs.evolve(given, table=bytes(table))


def unit(*entries, **more):
    return ivhd(*entries, SOUTHBRIDGE, **more)


SATC = raw(5, 16, bytes(4), NIC)
SHORT_SCOPE = bytes([1, 6, 0, 0, 0, 0])
REGION = (TAKEN, TAKEN + 0xFFF)
ALL, ONE, RANGE, UNIT = 0x20, 0x21, 0x22, 0x23
UNITY, EXCLUDED = 1 | 2 | 4, 8
SOME = unit(span(0x10, 0x1F), select(0x20), select(0xA0))  # ids above 0xa7 are beyond


def block(kind=ONE, first=0x10, last=0, start=TAKEN, size=0x1000, flags=UNITY):
    return ivmd(kind, flags, first, last, start, size)


BOTH = (iommu(), iommu("0001:00:00.2"))


#  rule: (it holds, it does not)
CASES = {
    "fadt-no-msi": (vtd(fadt=fadt(8)), vtd(fadt=fadt(8, revision=2))),
    "dmar-width": (vtd(width=0), vtd(width=1)),
    "dmar-entry-length": (vtd(raw(1, 20, bytes(20))), vtd(rmrr(*REGION, NIC))),
    "dmar-satc-length": (vtd(raw(5, 6, bytes(2))), vtd(SATC)),
    "dmar-unit-base": (vtd(drhd(NIC, base=0, flags=0)), vtd(drhd(NIC, base=0x1000, flags=0))),
    "dmar-two-include-all": (vtd(drhd(base=0x1000)), vtd(drhd(base=0x1000, segment=1))),
    "dmar-scope-length": (vtd(rmrr(*REGION, SHORT_SCOPE, NIC)), vtd(rmrr(*REGION, NIC, NIC))),
    "dmar-satc-scope-length": (vtd(raw(5, 14, bytes(4), SHORT_SCOPE)), vtd(SATC)),
    "dmar-two-all-ports": (vtd(*[raw(2, 8, bytes([1, 0, 0, 0]))] * 2), vtd(*[raw(2, 8, bytes(4))] * 2)),
    "dmar-regions-overlap": (
        vtd(rmrr(*REGION, NIC), rmrr(TAKEN + 0xFFF, TAKEN + 0x2000, USB)),
        vtd(rmrr(*REGION, ABSENT), rmrr(TAKEN + 0xFFF, TAKEN + 0x2000, USB)),
    ),
    "dmar-region-over-ram": (vtd(rmrr(0x6000_0000, 0x6000_0FFF, NIC)), vtd(rmrr(HOLE, HOLE + 0xFFF, NIC))),
    "dmar-region-endless": (
        vtd(rmrr(1 << 48, (1 << 60) - 1, NIC)),
        vtd(rmrr(1 << 48, (1 << 48) + 0xFFFF, NIC)),
    ),
    "dmar-region-reversed": (
        vtd(rmrr(TAKEN + 0x1000, TAKEN, NIC)),
        vtd(rmrr(TAKEN + 0x1000, TAKEN, ABSENT)),
    ),
    "dmar-no-unit": (Given(dmar(rmrr(*REGION, NIC)), ()), vtd(rmrr(*REGION, NIC))),
    "dmar-no-interrupt-remapping": (vtd(flags=2), vtd(flags=3)),
    "dmar-io-apic": (vtd(io_apics=(0, 2)), vtd(io_apics=())),
    "ivrs-checksum": (broken(amd(), 10, 1), amd()),
    "ivrs-block-zero": (amd(struct.pack("<BBHI", 0x51, 0, 0, 0)), amd(struct.pack("<BBHI", 0x51, 0, 8, 0))),
    "ivrs-block-length": (amd(struct.pack("<BBHI", 0x51, 0, 9, 0)), amd(struct.pack("<BBHI", 0x51, 0, 4, 0))),
    "ivrs-no-unit": (
        amd(units=[unit(select(8), kind=0x11)], info=INFO & ~1),
        amd(units=[unit(select(8), kind=0x11)]),
    ),
    "ivrs-unit-length": (
        amd(units=[ivhd(SOUTHBRIDGE, pad=False)]),
        amd(units=[ivhd(SOUTHBRIDGE, select(8), select(9))]),
    ),
    "ivrs-unit-header": (
        amd(units=[unit(select(8), select(9), base=0)]),
        amd(units=[unit(select(8), select(9))]),
    ),
    "ivrs-entry-unknown": (
        amd(units=[unit(struct.pack("<BHB", 1, 0, 0), select(9))]),
        amd(units=[unit(struct.pack("<BHB", 0, 0, 0), select(9))]),
    ),
    "ivrs-entry-length": (
        amd(units=[ivhd(SOUTHBRIDGE, select(8), struct.pack("<BHB", 0x40, 0, 0))]),
        amd(units=[ivhd(SOUTHBRIDGE, select(8), bytes([0x40, *bytes(7)]))]),
    ),
    "ivrs-range-open": (
        amd(units=[unit(struct.pack("<BHB", 3, 8, 0), select(9))]),
        amd(units=[unit(struct.pack("<BHB", 3, 8, 0), struct.pack("<BHB", 4, 9, 0))]),
    ),
    "ivrs-range": (amd(units=[unit(span(8, 8))]), amd(units=[unit(span(8, 9))])),
    "ivrs-alias": (amd(units=[unit(alias(8, 0xA8))]), amd(units=[unit(alias(8, 0xA7))])),
    "ivrs-special-variety": (
        amd(units=[unit(special(0x30, variety=3, handle=9))]),
        amd(units=[unit(special(0x30, variety=2, handle=9))]),
    ),
    "ivrs-io-apic-conflict": (
        amd(units=[unit(special(0x30, handle=0))]),
        amd(units=[unit(special(0xA0, handle=0))]),
    ),
    "ivrs-io-apic-unknown": (
        amd(units=[unit(special(0x30, handle=9))]),
        amd(units=[unit(special(0x30, handle=9))], io_apics=(9, 0)),
    ),
    "ivrs-io-apic-missing": (amd(io_apics=(0, 1)), amd(io_apics=(0,))),
    "ivrs-no-southbridge": (
        amd(units=[ivhd(select(8), select(9), special(0x30))]),
        amd(units=[ivhd(select(8), select(9), special(0xA0))]),
    ),
    "ivrs-unit-segment": (
        amd(units=[unit(select(8), select(9)), ivhd(select(8), select(9), segment=1)], raws=BOTH),
        amd(units=[unit(select(8), select(9))], raws=BOTH),
    ),
    "ivrs-unit-capability": (amd(raws=(iommu(kind=2),)), amd(raws=(iommu(),))),
    "ivrs-unit-msi": (amd(raws=(iommu(msi=False),)), amd(raws=(iommu(),))),
    "sp5100-combined-mode": (amd(raws=(iommu(), smbus())), amd(raws=(iommu(), smbus(mode=0xF7)))),
    "ivmd-length": (amd(struct.pack("<BBH", ONE, UNITY, 31) + bytes(27)), amd(block())),
    "ivmd-end": (amd(block(start=0, size=0)), amd(block(start=TAKEN, size=0))),
    "ivmd-over-ram": (amd(block(start=0x6000_0000)), amd(block(start=TAKEN))),
    "ivmd-over-acpi": (amd(block(start=ACPI)), amd(block(start=TAKEN))),
    "ivmd-endless": (
        amd(block(start=1 << 46, size=1 << 46), info=1 | 60 << 8 | 60 << 15),
        amd(block(start=1 << 47, size=1 << 48)),  # passed over: IVinfo has 48 bits
    ),
    "ivmd-flags": (amd(block(flags=2)), amd(block(flags=1))),
    "ivmd-beyond": (amd(block(first=0xA8), units=[SOME]), amd(block(first=0xA0), units=[SOME])),
    "ivmd-range": (amd(block(RANGE, 0x11, 0x11)), amd(block(RANGE, 0x11, 0x12))),
    "ivmd-overlap": (
        amd(block(), block(ALL, size=0x2000)),
        amd(block(), block(ALL, start=TAKEN + 0x1000)),
    ),
    "ivmd-no-unit": (amd(block(UNIT, 2, 0x44)), amd(block(UNIT, 2, 0x40))),
    "ivmd-unserved": (amd(block(first=0x40), units=[SOME]), amd(block(first=0x20), units=[SOME])),
    "ivmd-no-segment": (
        amd(block(ALL), units=[unit(select(8), select(9), segment=1)]),
        amd(block(ALL), units=[unit(select(8), select(9))]),
    ),
}
