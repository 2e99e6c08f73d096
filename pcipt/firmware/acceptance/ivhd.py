"""Read the device entries of IVHD blocks as Xen does: which unit serves which id, and where IO-APICs are.

Source: Xen drivers/passthrough/amd/iommu_acpi.c (get_last_bdf_ivhd, parse_ivhd_block and what it calls,
        add_ivrs_mapping_entry).
"""

from collections.abc import Mapping, Sequence

from pcipt import values as attrs
from pcipt.firmware.acceptance import rules
from pcipt.firmware.acceptance.amd_state import AmdUnit, Runs
from pcipt.firmware.acceptance.options import Options
from pcipt.firmware.acceptance.reading import Reading

_HEADER = 4
_PAD4, _SELECT, _RANGE, _END, _PAD8 = 0x00, 0x02, 0x03, 0x04, 0x40
_ALIAS, _ALIAS_RANGE, _EXTENDED, _EXTENDED_RANGE, _SPECIAL = 0x42, 0x43, 0x46, 0x47, 0x48
_IO_APIC, _HPET = 1, 2
# type: (bytes, offset of the highest routing id), the offset is None if the entry has none
_ENTRIES: Mapping[int, tuple[int, int | None]] = {
    _PAD4: (4, None), _PAD8: (8, None), _SELECT: (4, 1), _RANGE: (8, 5), _ALIAS: (8, 1),
    _ALIAS_RANGE: (12, 9), _EXTENDED: (8, 1), _EXTENDED_RANGE: (12, 9), _SPECIAL: (8, 5),
}  # fmt: skip
# type: offset of its end, an entry of its own
_RANGES = {_RANGE: 4, _ALIAS_RANGE: 8, _EXTENDED_RANGE: 8}


def last_id(data: Reading, block: int, start: int, end: int) -> int:
    """Return the highest routing id of an IVHD block at `block`, whose entries are between two offsets.

    Xen reads entries that run past the block's end; an alias does not count.
    Raises: EndedError if there is an entry of a type that Xen does not know.
    """
    found, at = 0, start
    while at + _HEADER <= end:
        kind = data.u8(at)
        if kind not in _ENTRIES:
            data.meet(rules.ENTRY_UNKNOWN, at, f"of IVHD at {block:#x}", kind=kind)
        size, where = _ENTRIES[kind]
        if where is not None:
            found = max(found, data.u16(at + where))
        at += size
    return found


class IvhdReader:
    """Reads the IVHD blocks of a table in turn into the records of its segments.

    `io_apics` are the places of the IO-APICs so far: (segment << 16 | routing id) by the IO-APIC's id.
    """

    def __init__(
        self,
        reading: Reading,
        units: Sequence[AmdUnit],
        segments: Mapping[int, Runs],
        madt: Sequence[int] | None,
        options: Options,
    ) -> None:
        self._reading, self._units, self._segments = reading, units, segments
        self._madt, self._options = madt, options
        self.io_apics: dict[int, int] = dict(options.io_apics)

    def read(self, block: int, start: int, end: int) -> None:
        """Read the block at `block`. Raises: EndedError if Xen does not accept it."""
        data, at = self._reading, start
        key = data.u16(block + 16), data.u16(block + 4), data.u16(block + 6)
        names = [(unit.segment, unit.device, unit.capability) for unit in self._units]
        unit = names.index(key)  # of several blocks about one unit the first one's counts
        while at + _HEADER <= end:
            kind = data.u8(at)
            size, _ = _ENTRIES[kind]
            entry = f"of IVHD at {block:#x}"
            if at + size > end:
                data.meet(rules.ENTRY_CUT, at, entry)
            first, alias = data.u16(at + 1), None
            last = first
            if kind in _RANGES:
                last = self._range_end(at, entry, first, _RANGES[kind])
            if kind in (_ALIAS, _ALIAS_RANGE):
                alias = data.u16(at + 5)
                most = self._segments[key[0]].count - 1
                if alias > most:
                    data.meet(rules.ALIAS, at, entry, other=alias, most=most)
            if kind == _SPECIAL:
                first = last = data.u16(at + 5)
            if kind not in (_PAD4, _PAD8):
                self._add(unit, first, last, alias)
            if kind == _SPECIAL:
                self._special(at, entry, key[0] << 16 | first)
            at += size

    def _range_end(self, at: int, entry: str, first: int, where: int) -> int:
        data = self._reading
        if data.u8(at + where) != _END:
            data.meet(rules.RANGE_OPEN, at, entry, first=first)
        last = data.u16(at + where + 1)
        if last <= first:
            data.meet(rules.RANGE, at, entry, first=first, last=last)
        return last

    def _add(self, unit: int, first: int, last: int, alias: int | None) -> None:
        """Note that `unit` serves the routing ids `first` to `last` (inclusive) except the unit's own id."""
        runs, device = self._segments[self._units[unit].segment], self._units[unit].device
        own = runs.at(device) if device < runs.count else None
        runs.update(first, last, lambda record: attrs.evolve(record, unit=unit, alias=alias))
        if own is not None and first <= device <= last:
            runs.update(device, device, lambda _: attrs.evolve(own, alias=alias))

    def _special(self, at: int, entry: str, place: int) -> None:
        """Take the place of an IO-APIC; an IO-APIC or a place that the boot options name is left as it is."""
        data, variety, apic = self._reading, self._reading.u8(at + 7), self._reading.u8(at + 4)
        if variety not in (_IO_APIC, _HPET):
            data.meet(rules.VARIETY, at, entry, variety=variety)
        if variety != _IO_APIC or not self._options.interrupts or place in self._options.io_apics.values():
            return
        shown = f"{place >> 8 & 0xFF:02x}:{place >> 3 & 0x1F:02x}.{place & 7}"
        if self._madt is not None and apic not in self._madt:
            data.meet(rules.APIC_UNKNOWN, at, entry, apic=apic, place=shown)
        before = self.io_apics.setdefault(apic, place)
        if before != place and apic not in self._options.io_apics and self._options.per_device:
            other = f"{before >> 8 & 0xFF:02x}:{before >> 3 & 0x1F:02x}.{before & 7}"
            data.meet(rules.APIC_CONFLICT, at, entry, apic=apic, place=shown, other=other)
