"""Reads which pages pcipt must never map or unmap, and whether Xen maps unmapped pages again (pf-fixup).

If the memory map cannot be read, all pages are protected.
"""

from pcipt.engine.interfaces import Host
from pcipt.errors import HypervisorError, PciptError, UnsupportedError
from pcipt.firmware.memory_map import MemoryEntry, entries_from_names
from pcipt.firmware.mmcfg import taken_of_tables
from pcipt.pci import Finding, Frames, Gfn
from pcipt.pci.space.roots import roots_of_lines
from pcipt.pci.space.windows import NO_ROOTS, RootWindows
from pcipt.pci.write import EcamRegion
from pcipt.remap.guard.protected import Protected, Reason, protected_ranges
from pcipt.xen.interface import Hypervisor, command_line_of
from pcipt.xen.pf_fixup import PfFixup, pf_fixup_of

EVERYTHING = Frames(Gfn(0), 1 << 52)


def read_protection(host: Host, xen: Hypervisor) -> tuple[Protected, tuple[Finding, ...]]:
    """Read memory maps, ACPI tables and reserved regions.

    Return the protected pages (all pages if no memory map can be read), and findings about what could not be
    read.
    """
    try:
        memory = host.memory()
    except PciptError as error:
        why = Finding(
            "memory-map-unread", (f"{error}; pcipt maps nothing as long as it does not know where RAM is")
        )
        return Protected([(EVERYTHING, Reason("an address space of which no memory map could be read"))]), (
            why,
        )
    lines = [(line.range, line.name) for line in memory.iomem or ()]
    entries: list[MemoryEntry] = [
        *entries_from_names((line.range, line.name) for line in memory.firmware),
        *entries_from_names(lines),
    ]
    reserved, findings = read_reserved(xen)
    return protected_ranges(entries, lines, host.acpi_tables(), reserved), (*memory.findings, *findings)


def read_mmcfg(host: Host) -> tuple[EcamRegion, ...]:
    """Return the parts of the MMCFG areas that Xen and Linux use (`firmware.mmcfg`), in the order of MCFG.

    If no memory map can be read, the whole areas are returned.
    """
    return taken_of_tables(host.acpi_tables(), memory_map(host))


def memory_map(host: Host) -> tuple[MemoryEntry, ...] | None:
    """Return what the memory maps say, in any order; None if none can be read."""
    try:
        memory = host.memory()
    except PciptError:
        return None
    lines = (*memory.firmware, *(memory.iomem or ()))
    return entries_from_names((line.range, line.name) for line in lines)


def root_windows(host: Host) -> RootWindows:
    """Return the windows of root buses, with what is in use in them; empty if no memory map can be read."""
    try:
        lines = host.memory().iomem or ()
    except PciptError:
        return NO_ROOTS
    return roots_of_lines((line.range, line.name, line.depth) for line in lines)


def read_reserved(xen: Hypervisor) -> tuple[tuple[Frames, ...], tuple[Finding, ...]]:
    """Return the reserved regions that Xen lists, and a finding if Xen could not be asked.

    If this Xen does not have the hypercall, both are empty.
    """
    try:
        return xen.reserved_regions(), ()
    except UnsupportedError:
        return (), ()  # this Xen or its libraries do not tell; the memory maps have most of it
    except HypervisorError as error:
        why = (
            f"{error}: pcipt does not know which reserved regions devices need; the memory maps still "
            "protect these regions"
        )
        return (), (Finding("reserved-regions-unread", why),)


def read_pf_fixup(xen: Hypervisor) -> PfFixup:
    """Return whether Xen maps unmapped pages again when dom0 accesses them, by its release and command line.

    If the command line cannot be read and this release has the option, the answer is not certain.
    """
    return pf_fixup_of(xen.identity, command_line_of(xen))
