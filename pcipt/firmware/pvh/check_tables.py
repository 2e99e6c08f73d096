"""Check the ACPI tables of a PVH domain against every rule of the boot ABI.

The tables may come from any program. This module checks which tables exist, their lengths and checksums, and
that every pointer leads to the right table. `check_fadt` and `check_madt` check the contents of FADT and
MADT, whose rules depend on the kind of domain. Each function yields `Row` values; a `Row` is the result of
one rule: OK, WARN or ERROR.
Source: ACPI 6.5 §5.2; xen/arch/x86/hvm/dom0_build.c; tools/libacpi/build.c.
"""

from collections.abc import Iterator

from pcipt.errors import MalformedError
from pcipt.firmware.acpi.root_tables import ENTRY_SIZES, RSDP_SIZE, Rsdp, parse_root_table, parse_rsdp
from pcipt.firmware.acpi.table import HEADER_SIZE
from pcipt.firmware.acpi.table_set import FACS_SIZE, Domain, PlacedTable, TableSet
from pcipt.firmware.pvh.check_fadt import check_fadt
from pcipt.firmware.pvh.check_madt import check_madt
from pcipt.firmware.pvh.check_rows import Row, doubtful, good, judged, row_from_finding, wrong
from pcipt.firmware.pvh.facts import Facts
from pcipt.firmware.pvh.rules import FORBIDDEN, OTHERS, why_not_given


def check_tables(tables: TableSet, domain: Domain | None, facts: Facts) -> Iterator[Row]:
    """Yield the rows of all rules for the tables of one domain.

    No error is raised, whatever the bytes of the tables are.

    `domain` None means that neither Xen nor libxl made the tables. Then only rules that hold for every
    machine are checked: lengths, checksums, the revision of the RSDP, pointers, overlaps.
    """
    for table in tables.tables:
        yield from _length_and_checksum(tables.label(table), table)
    if domain is not None:
        yield from _present(tables, domain)
    if domain is Domain.HARDWARE:
        yield from _permitted(tables, facts)
    yield from _rsdp(tables, domain)
    for table in tables.named("XSDT", "RSDT"):
        yield from _root_table(tables, table, domain)
    yield from _overlaps(tables)
    if domain is None:
        yield good("contract", "all", None, "another loader made them: Xen's own rules do not apply")
        return
    for table in tables.named("FACP"):
        yield from check_fadt(tables, table, domain, facts)
    for table in tables.named("APIC"):
        yield from check_madt(tables, table, domain, facts)


def _length_and_checksum(label: str, table: PlacedTable) -> Iterator[Row]:
    """Yield the rows about the length and the checksum of one table: ERROR if one is wrong.

    A FACS has no checksum, so it gets a row about its length only. A table shorter than a header gets one
    ERROR row.
    """
    if table.signature == "FACS":
        length = int.from_bytes(table.data[4:8], "little")
        fits = len(table.data) >= 8 and FACS_SIZE <= length <= len(table.data)
        fine, otherwise = (
            f"{length} bytes",
            f"the header says {length} bytes, there are {len(table.data)}, 64 are needed",
        )
        yield judged(fits, "acpi-length", label, 4, fine, otherwise)
        return
    parsed = table.parsed
    if parsed is None:
        yield wrong(
            "acpi-length", label, 0, f"{len(table.data)} bytes are no table, a header has {HEADER_SIZE}"
        )
        return
    codes = {finding.code for finding in parsed.findings}
    if "acpi-length" not in codes:
        yield good("acpi-length", label, 4, f"{len(parsed.data)} bytes")
    if "acpi-checksum" not in codes:
        yield good("acpi-checksum", label, 9, "the bytes sum to zero")
    for finding in parsed.findings:
        yield row_from_finding(finding, label)


def _present(tables: TableSet, domain: Domain) -> Iterator[Row]:
    """Yield the rows about required tables: ERROR if one is missing or there are too many of a kind.

    Required are FADT and DSDT, and the MADT of the hardware domain. At most one of each is allowed; a guest
    may have two FADTs. The hardware domain's DSDT is an exception: if it is missing, the row is WARN, because
    a recording may lack it. If there is a FADT and no FACS, the row is WARN.
    """
    for signature in ("FACP", "DSDT"):
        there = bool(tables.named(signature))
        warn = signature == "DSDT" and domain is Domain.HARDWARE  # a recording may lack the machine's DSDT
        yield judged(there, "present", signature, None, "there", "missing", warn=warn)
    if domain is Domain.HARDWARE:
        yield judged(bool(tables.named("APIC")), "present", "APIC", None, "there", "missing")
    elif not tables.named("APIC"):
        yield good("present", "APIC", None, "there is no MADT: the guest has no local APIC")
    if tables.named("FACP") and not tables.named("FACS"):
        yield doubtful("present", "FACS", None, "missing: a FADT that is not hardware-reduced needs one")
    for signature in ("FACP", "DSDT", "APIC"):
        count = len(tables.named(signature))
        limit = (
            2 if signature == "FACP" and domain is Domain.GUEST else 1
        )  # one for the RSDT, one for the XSDT
        if count > limit:
            yield wrong("present", signature, None, f"there are {count} of them")


def _permitted(tables: TableSet, facts: Facts) -> Iterator[Row]:
    """Yield an ERROR row per table in `FORBIDDEN`, a WARN row per other table that Xen does not hand out.

    Which tables these are depends on the version of Xen (`why_not_given`). Tables in `OTHERS` are fine. If no
    table is odd, yield one OK row.
    """
    bad = False
    for table in tables.tables:
        label, name = tables.label(table), table.signature
        if name in FORBIDDEN:
            bad = True
            yield wrong("forbidden", label, 0, f"the hardware domain must not see it: {FORBIDDEN[name]}")
        elif name not in OTHERS and (why := why_not_given(name, facts.xen)):
            bad = True
            yield doubtful("forbidden", label, 0, why)
    if not bad:
        names = ", ".join(sorted(FORBIDDEN))
        yield good("forbidden", "all", None, f"only tables that Xen hands out, none of {names}")


def _rsdp(tables: TableSet, domain: Domain | None) -> Iterator[Row]:
    """Yield the rows about the RSDP and its pointers: ERROR for a wrong checksum, length or revision.

    If `tables.rsdp` is None, yield one OK row that says so. If the RSDP is malformed, yield one ERROR row.
    Revision 2 is right. Revision 0 is right only if `domain` is None.
    """
    table = tables.rsdp
    if table is None:
        yield good(
            "rsdp",
            "RSDP",
            None,
            ("no RSDP is given (sysfs does not show it): RSDP, XSDT and pointers are not checked"),
        )
        return
    data = table.data
    try:
        rsdp = parse_rsdp(data)
    except MalformedError as error:
        yield wrong("rsdp", "RSDP", error.offset, error.why)
        return
    yield judged(not sum(data[:20]) & 0xFF, "acpi-checksum", "RSDP", 8, "the first 20 bytes sum to zero",
                 "the first 20 bytes do not sum to zero")  # fmt: skip
    fine = rsdp.revision == 2 or (domain is None and rsdp.revision == 0)
    revision = f"revision {rsdp.revision}"
    yield judged(fine, "rsdp", "RSDP", 15, revision, f"{revision}, not 2")
    if rsdp.revision:
        length = int.from_bytes(data[20:24], "little")
        yield judged(
            length == RSDP_SIZE, "acpi-length", "RSDP", 20, "36 bytes", f"it says {length} bytes, not 36"
        )
        yield judged(not sum(data[:RSDP_SIZE]) & 0xFF, "acpi-checksum", "RSDP", 32,
                     "the 36 bytes sum to zero", "the 36 bytes do not sum to zero")  # fmt: skip
    yield from _rsdp_pointers(tables, rsdp, domain)


def _rsdp_pointers(tables: TableSet, rsdp: Rsdp, domain: Domain | None) -> Iterator[Row]:
    """Yield the rows about the RSDP's pointers to XSDT and RSDT: ERROR if one is wrong.

    If `domain` is the hardware domain or a guest, an XSDT is needed. If `domain` is None, an XSDT or an RSDT
    is enough. It is an ERROR if what is needed is missing. WARN: the hardware domain has an RSDT, or a guest
    has an XSDT and no RSDT.
    """
    if rsdp.xsdt or domain is not None:
        yield _pointer(tables, "RSDP", 24, rsdp.xsdt, ("XSDT",))
    if domain is Domain.HARDWARE:
        yield judged(rsdp.rsdt == 0, "rsdt", "RSDP", 16, "no RSDT",
                     f"an RSDT at {rsdp.rsdt:#x}; Xen gives none", warn=True)  # fmt: skip
    elif rsdp.rsdt:
        yield _pointer(tables, "RSDP", 16, rsdp.rsdt, ("RSDT",))
    elif not rsdp.xsdt:
        yield wrong("pointer", "RSDP", 16, "neither an XSDT nor an RSDT")
    elif domain is Domain.GUEST:
        yield doubtful("rsdt", "RSDP", 16, "no RSDT: a 32-bit guest may need one")


def _pointer(tables: TableSet, label: str, offset: int, address: int, wanted: tuple[str, ...]) -> Row:
    """Return the row about one pointer of the table `label`: ERROR if `address` is wrong, else OK.

    `address` must be that of a table with one of the signatures `wanted`. An empty `wanted` allows every
    table except RSDT, XSDT, FACS, DSDT and RSDP. `offset` is the byte offset of the pointer in its table.
    Address 0 is an ERROR. If no table at all has a known address, the row is OK and says that the pointer was
    not checked.
    """
    if not address:
        return wrong("pointer", label, offset, "it is 0")
    target = tables.at(address)
    if target is None:
        if all(table.address is None for table in tables.tables):
            return good("pointer", label, offset, f"{address:#x}: not checked, no table's address is known")
        return wrong("pointer", label, offset, f"no table is at {address:#x}")
    name = target.signature
    if wanted and name not in wanted:
        return wrong("pointer", label, offset, f"{address:#x} is {name}, not {' or '.join(wanted)}")
    if not wanted and (name in ENTRY_SIZES or name in ("FACS", "DSDT", "RSDP")):
        return wrong("pointer", label, offset, f"{address:#x} is {name}, which no list may name")
    return good("pointer", label, offset, f"{address:#x} is {name}")


def _root_table(tables: TableSet, table: PlacedTable, domain: Domain | None) -> Iterator[Row]:
    """Yield the rows about an RSDT or XSDT: its length, its entries and where they point.

    ERROR: an incomplete, repeated or wrong entry, no entry, more than 256 entries. WARN: the first entry of
    the hardware domain's table leads to a table other than the MADT. Yield nothing for a table without a
    whole header.
    """
    label, parsed = tables.label(table), table.parsed
    if parsed is None:
        return
    size = ENTRY_SIZES[table.signature]
    body = len(parsed.data) - HEADER_SIZE
    if body % size:
        yield wrong("entries", label, 4, f"{body} bytes are no whole number of entries")
    addresses = parse_root_table(parsed)
    if body // size > len(addresses):
        yield wrong("entries", label, 4, f"{body // size} entries are more than any machine has")
    if not addresses:
        yield wrong("entries", label, 4, "it names no table")
    seen: set[int] = set()
    for number, address in enumerate(addresses):
        at = HEADER_SIZE + size * number
        if address in seen:
            yield wrong("pointer", label, at, f"{address:#x} is named twice")
            continue
        seen.add(address)
        yield _pointer(tables, label, at, address, ())
    first = tables.at(addresses[0]) if addresses else None
    if domain is Domain.HARDWARE and first is not None:
        yield judged(first.signature == "APIC", "order", label, HEADER_SIZE,
                     "the MADT comes first, as Xen puts it", "the MADT does not come first, as Xen puts it",
                     warn=True)  # fmt: skip


def _overlaps(tables: TableSet) -> Iterator[Row]:
    """Yield an ERROR row for each table that overlaps a table before it; one OK row if none does.

    "Before" is by address. The RSDP is included. Tables whose address is unknown, and tables without bytes,
    are left out. If no table remains, yield nothing.
    """
    placed = sorted(
        ((table.range, tables.label(table)) for table in tables.everything if table.range is not None),
        key=lambda item: item[0],
    )
    if not placed:
        return
    fine = True
    reach, owner = placed[0]  # the table that ends last so far
    for span, label in placed[1:]:
        if span.overlaps(reach):
            fine = False
            yield wrong("overlap", label, None, f"it lies at {span}, over {owner} at {reach}")
        if span.last > reach.last:
            reach, owner = span, label
    if fine:
        yield good("overlap", "all", None, "no table lies over another")
