"""Read a DMAR table to its end as Xen does, and meet the rules on the way.

Source: Xen drivers/passthrough/vtd/dmar.c (acpi_parse_dmar and what it calls), vtd/iommu.c (vtd_setup,
        init_vtd_hw).
"""

from collections.abc import Iterable, Mapping

from pcipt import values as attrs
from pcipt.firmware.acceptance import rules
from pcipt.firmware.acceptance.memory import MemoryMap
from pcipt.firmware.acceptance.reading import Reading
from pcipt.firmware.acceptance.vtd_state import VtdRegion, VtdState, VtdUnit
from pcipt.firmware.acpi.dmar import (
    ATSR,
    DRHD,
    ENTRIES_AT,
    INCLUDE_PCI_ALL,
    RHSA,
    RMRR,
    SATC,
    SCOPE_BRIDGE,
    SCOPE_IOAPIC,
    SCOPES_OF_XEN,
)
from pcipt.firmware.mmcfg import Mmcfg, is_found_early, is_read_early
from pcipt.hints import Protocol
from pcipt.pci import Sbdf
from pcipt.pci.units import PAGE_SIZE
from pcipt.xen.releases import SATC_READ

_WIDTH_AT, _FLAGS_AT, _INTR_REMAP = 36, 37, 0x1
_HEADER, _SHORTEST_SCOPE, _PATH_AT = 4, 8, 6
_LEAST = {DRHD: 16, RMRR: 24, ATSR: 8, RHSA: 20, SATC: 8}
_NAMES = {DRHD: "DRHD", RMRR: "RMRR", ATSR: "ATSR", RHSA: "RHSA", SATC: "SATC"}
_ALL_ONES = (1 << 64) - 1
_NO_BUS = 0xFF  # what a bus number register reads where no function answers


class Topology(Protocol):
    """The functions of the machine when Xen boots, and (secondary, subordinate) of its bridges."""

    @property
    def functions(self) -> frozenset[Sbdf]: ...

    @property
    def bridges(self) -> Mapping[Sbdf, tuple[int, int]]: ...


@attrs.frozen
class _Scopes:
    """The device scopes of an entry. A device is None if it is not known where its path leads."""

    devices: tuple[Sbdf | None, ...]
    buses: frozenset[int]
    io_apics: tuple[int, ...]


class DmarReader:
    """Reads one table.

    `topology` None: the machine is not known, and the functions that the table names are taken to be there.
    `areas` are the areas of MMCFG, None if no table names them: they decide which bridges above segment 0 Xen
    can read. If nobody knows whether it can read one, it is taken to be read.
    """

    def __init__(
        self,
        reading: Reading,
        memory: MemoryMap,
        topology: Topology | None,
        areas: tuple[Mmcfg, ...] | None = None,
    ) -> None:
        self._reading, self._memory, self._topology, self._areas = reading, memory, topology, areas
        self._units: list[VtdUnit] = []
        self._regions: list[VtdRegion] = []
        self._for_all = self._all_ports = False

    def read(self, io_apics: Iterable[int]) -> VtdState:
        """Read the table; `io_apics` are the ids of the MADT's IO-APICs.

        Raises: EndedError if Xen does not accept it.
        """
        data = self._reading
        if not data.u8(_WIDTH_AT):
            data.meet(rules.WIDTH, _WIDTH_AT)
        at = ENTRIES_AT
        while at < len(data.data):
            kind, length = data.u16(at), data.u16(at + 2)
            self._need(at, kind, length, _HEADER)
            if kind in _LEAST:
                self._need(at, kind, length, _LEAST[kind])
                self._entry(kind, at, length)
            at += length
        if not self._units:
            data.meet(rules.NO_UNIT)
        self._interrupts(io_apics)
        return VtdState(tuple(self._units), tuple(self._regions))

    def _need(self, at: int, kind: int, length: int, least: int) -> None:
        if length < least:
            rule = rules.SATC_LENGTH if kind == SATC and least > _HEADER else rules.ENTRY_LENGTH
            self._reading.meet(rule, at, _name(kind), length=length, least=least)

    def _entry(self, kind: int, at: int, length: int) -> None:
        if kind == DRHD:
            self._drhd(at, length)
        elif kind == RMRR:
            self._rmrr(at, length)
        elif kind == ATSR:
            self._atsr(at, length)
        elif kind == SATC and SATC_READ.of(self._reading.version):
            self._scopes(SATC, at, length)

    def _drhd(self, at: int, length: int) -> None:
        data = self._reading
        base, segment = data.u64(at + 8), data.u16(at + 6)
        if base in (0, _ALL_ONES):
            data.meet(rules.BASE, at, "DRHD", base=base)
        scopes = self._scopes(DRHD, at, length)
        for_all = bool(data.u8(at + 4) & INCLUDE_PCI_ALL)
        if for_all and not segment:
            if self._for_all:
                data.meet(rules.INCLUDE_ALL, at, "DRHD")
            self._for_all = True
        unit = VtdUnit(segment, base, for_all, scopes.devices, scopes.buses, scopes.io_apics, at)
        self._units.insert(len(self._units) if for_all else 0, unit)

    def _rmrr(self, at: int, length: int) -> None:
        data = self._reading
        data.has_regions = True
        segment, base, limit = data.u16(at + 6), data.u64(at + 8), data.u64(at + 16)
        for other in self._regions:
            if base <= other.limit and other.base <= limit:
                told = f"{other.base:#x}-{other.limit:#x}"
                data.meet(rules.RMRR_OVERLAP, at, "RMRR", base=base, limit=limit, other=told)
        first, last = base // PAGE_SIZE, limit // PAGE_SIZE
        span = first * PAGE_SIZE, (last + 1) * PAGE_SIZE
        wrong = self._memory.wrong_page(*span)
        if pages := self._memory.endless(*span, wrong):
            data.meet(rules.RMRR_ENDLESS, at, "RMRR", base=base, limit=limit, pages=pages)
        if wrong is not None:
            page, what = wrong
            data.meet(rules.RMRR_OVER_RAM, at, "RMRR", base=base, limit=limit, page=page, what=what)
        self._memory.reserve(*span)
        devices = self._scopes(RMRR, at, length).devices
        if not devices or not self._is_there(segment, devices):
            return  # Xen forgets it
        if base > limit:
            data.meet(rules.RMRR_REVERSED, at, "RMRR", base=base, limit=limit)
        self._regions.append(VtdRegion(segment, base, limit, devices, at))

    def _atsr(self, at: int, length: int) -> None:
        if not self._reading.u8(at + 4) & 1:
            self._scopes(ATSR, at, length)
        elif not self._reading.u16(at + 6):
            if self._all_ports:
                self._reading.meet(rules.ALL_PORTS, at, "ATSR")
            self._all_ports = True

    def _is_there(self, segment: int, devices: Iterable[Sbdf | None]) -> bool:
        """Return True if Xen finds one of the functions (`is_found_early`), or if they are not known."""
        if self._topology is None:
            return True
        here = self._topology.functions
        there = (device for device in devices if device is not None and device in here)
        return is_found_early(segment, there, self._areas, self._reading.version)

    def _scopes(self, kind: int, at: int, length: int) -> _Scopes:
        """Read the device scopes of an entry; the last of them may run past the entry's end."""
        data = self._reading
        segment, scope, end = data.u16(at + 6), at + _LEAST[kind], at + length
        places = []
        while scope < end:
            size = data.u8(scope + 1)
            if size < _SHORTEST_SCOPE:
                rule = rules.SATC_SCOPE if kind == SATC else rules.SCOPE
                data.meet(rule, scope, _name(kind), length=size)
                break
            places.append((scope, size))
            scope += size
        devices: list[Sbdf | None] = []
        buses: set[int] = set()
        io_apics = []
        for scope, size in places:
            what = data.u8(scope)
            if what not in SCOPES_OF_XEN:
                continue
            device = self._follow(segment, scope, size)
            devices.append(device)
            if what == SCOPE_IOAPIC:
                io_apics.append(data.u8(scope + 4))
            elif what == SCOPE_BRIDGE and device is not None:
                secondary, subordinate = self._buses(device)
                buses.update(range(secondary, subordinate + 1))
        return _Scopes(tuple(devices), frozenset(buses), tuple(io_apics))

    def _follow(self, segment: int, scope: int, size: int) -> Sbdf | None:
        """Return the function to which a scope's path leads; None if the machine is not known and it is long.

        Of device and function numbers that do not exist only the low bits count (PCI_BDF).
        """
        data = self._reading
        hops = [
            (data.u8(hop) & 0x1F, data.u8(hop + 1) & 7)
            for hop in range(scope + _PATH_AT, scope + _PATH_AT + (size - _PATH_AT) // 2 * 2, 2)
        ]
        if len(hops) > 1 and self._topology is None:
            return None
        bus = data.u8(scope + 5)
        for device, function in hops[:-1]:
            bus = self._buses(Sbdf(segment, bus, device, function))[0]
        return Sbdf(segment, bus, *hops[-1])

    def _buses(self, at: Sbdf) -> tuple[int, int]:
        """Return the bus number registers of a function as Xen reads them."""
        read = is_read_early(at, self._areas, self._reading.version)
        if self._topology is None or at not in self._topology.functions or read is False:
            return (_NO_BUS, _NO_BUS)
        return self._topology.bridges.get(at, (0, 0))

    def _interrupts(self, io_apics: Iterable[int]) -> None:
        data = self._reading
        if not data.u8(_FLAGS_AT) & _INTR_REMAP:
            data.meet(rules.NO_FLAG, _FLAGS_AT)
        served = {apic for unit in self._units for apic in unit.io_apics}
        for apic in io_apics:
            if apic not in served:
                data.meet(rules.IO_APIC_UNSERVED, apic=apic)


def _name(kind: int) -> str:
    return _NAMES.get(kind, f"type {kind:#x}")
