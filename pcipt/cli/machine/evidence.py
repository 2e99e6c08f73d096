"""The evidence for passthrough checks: facts of a machine, from its files or a dump and from the daemon."""

import os

from pcipt import values as attrs
from pcipt.cli.machine.host import host_of, said_by_xen, status_at, told_by_daemon
from pcipt.cli.machine.pvh import (
    acpi_tables_of,
    ecam_of,
    guest_type,
    madt_of,
    memory_map_of,
    xen_version,
)
from pcipt.cli.machine.roots import root_windows
from pcipt.cli.machine.source import Source
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.passthrough.host import XenSays
from pcipt.firmware.passthrough.trouble import is_pinless
from pcipt.firmware.passthrough.verdict import Evidence, FixedRange
from pcipt.host.files import Depth
from pcipt.host.function.facts import read_facts
from pcipt.host.roles import read_roles
from pcipt.host.uses import SSH_PORT, read_uses
from pcipt.pci import Range, decode_machine
from pcipt.pci.space.shortage import lacks_addresses
from pcipt.pci.space.windows import NO_ROOTS
from pcipt.pci.units import PAGE_SIZE
from pcipt.xen.releases import Version


def gather(source: Source, root: str | None, socket: str | None, other: Version | None = None) -> Evidence:
    """Read the functions of `source` and all other facts that passthrough checks need; return these facts.

    `root` is the directory of the machine's files. It is None for a dump: then only the functions are known.
    `socket` is the daemon's control socket, None if no daemon runs on that machine. A fact that cannot be
    read stays unknown (None in `Evidence`). `other` is another version of Xen for which to judge the host.

    Raises: InputError if the functions themselves cannot be read.
    """
    raws = source.read(Depth.FULL)
    machine = decode_machine(raws)
    sizes, pinless = {}, set()
    for raw in raws:
        sizes[raw.sbdf] = len(raw.config or b"")
        if is_pinless(raw):
            pinless.add(raw.sbdf)
    evidence = Evidence(machine, sizes, pinless=frozenset(pinless))
    if root is None:
        return evidence
    roles, uses = read_roles(root), read_uses(root, _ssh_ports(root))
    tables, memory, live = acpi_tables_of(root), memory_map_of(root), socket is not None
    status = status_at(socket)
    host = told_by_daemon(status) if other is None else None
    # xl is slow: it is asked once, and only if its words count
    said = said_by_xen(root, live=live) if host is None or _have_regions(tables) else XenSays()
    evidence = attrs.evolve(
        evidence,
        facts=read_facts(root, machine.functions),
        carriers=roles.root,
        uses=uses.found,
        unseen_uses=uses.unknown,
        memory=memory,
        host=host or host_of(root, machine, tables, memory, said, live=live, other=other),
        live=live,
        root_windows=root_windows(root)
        if any(map(lacks_addresses, machine.functions.values()))
        else NO_ROOTS,
    )
    if roles.serial is not None:
        shown = {sbdf for sbdf, facts in evidence.facts.items() if facts.boot_vga and roles.screen}
        evidence = attrs.evolve(evidence, consoles=roles.serial | shown)
    if tables is not None:
        evidence = _with_tables(evidence, tables, root, said.options, other or xen_version(root))
    if socket is None:
        return evidence
    from pcipt.cli.machine.told import with_daemon  # it loads much that only a running machine needs

    return with_daemon(evidence, socket, status)


def _have_regions(tables: list[bytes] | None) -> bool:
    """Return True if one of the tables has reserved regions, by its signature."""
    if not tables:
        return False
    from pcipt.firmware.regions.tables import have_regions

    return have_regions(tables)


def _ssh_ports(root: str) -> set[int]:
    """Return the ports at which this host takes ssh connections: 22, and that of the user's own connection.

    For a recorded machine it is only 22.
    """
    own = os.environ.get("SSH_CONNECTION", "").split() if root == "/" else []
    return {SSH_PORT, *(int(port) for port in own[3:4] if port.isascii() and port.isdigit())}


def _with_tables(
    evidence: Evidence, tables: list[bytes], root: str, options: Options, version: Version | None
) -> Evidence:
    """Return the evidence with facts from the ACPI tables added.

    `options` are those of Xen's command line, `version` is Xen's. A PVH dom0 cannot see DMAR and IVRS. If
    both are missing there, reserved regions and IOMMUs stay unknown.
    """
    from pcipt.firmware.coverage import IommuScope, snapshot_from_machine
    from pcipt.firmware.mmcfg import mmcfg_of
    from pcipt.firmware.pvh.bar_pages import whole_pages
    from pcipt.firmware.regions.findings import with_findings
    from pcipt.firmware.regions.tables import regions_from_tables  # it loads much, and only root reads tables

    machine = evidence.machine
    fixed = [FixedRange(each.range, "MMCFG") for each in mmcfg_of(ecam_of(tables), evidence.memory)]
    madt = madt_of(tables)
    fixed += (
        FixedRange(whole_pages(Range(each.address, PAGE_SIZE // 4)), f"IO-APIC {each.apic_id}")
        for each in (madt.io_apics if madt is not None else ())
    )
    listed = regions_from_tables(tables, machine, None, options, evidence.memory, version)
    regions = with_findings(listed, evidence.memory, version)
    evidence = attrs.evolve(evidence, fixed=tuple(fixed))
    if not regions.signatures and guest_type(root) == "PVH":
        return evidence
    scope = IommuScope(snapshot_from_machine("", machine), absent=not regions.signatures)
    scope = scope.with_tables(tables, evidence.memory, version)
    return attrs.evolve(evidence, regions=regions, iommu=scope)
