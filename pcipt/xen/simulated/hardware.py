"""Simulated PCI hardware: a write to a register has the effect it has on a bus.

A bridge's bus numbers move what stands behind it, VF Enable makes virtual functions appear, BARs decode where
the registers say. A function is found by its present address; Linux may still call it by another. Where two
bridges claim a bus, the lower device has it. Virtual functions stay on the bus of their physical function.
"""

from collections.abc import Iterable, Iterator, Sequence

import attrs

from pcipt.pci import HeaderType, Range, RawFunction, Sbdf, decode_function, sbdf_from_devfn
from pcipt.pci.structures import Msix
from pcipt.xen.interface import DeviceFlags
from pcipt.xen.simulated.model import Presence
from pcipt.xen.simulated.registers import (
    BUS_NUMBERS,
    SECONDARY,
    SUBORDINATE,
    Registers,
    registers_from_function,
)

LAST_BUS = 0xFF
_VIRTUAL = b"\xff\xff\xff\xff".ljust(256, b"\0")  # what is not given of a virtual function's config space

Bus = tuple[int, int]  # segment and number


@attrs.define(eq=False)
class Slot:
    """One function: its registers, what is behind it, and for a virtual one whose it is."""

    devfn: int
    registers: Registers
    behind: "dict[int, Slot]"
    physfn: "Slot | None" = None
    number: int = 0
    virtual: "dict[int, Slot]" = attrs.field(factory=dict)  # by number, also those that are not enabled
    enabled: list[int] = attrs.field(factory=list)  # where the enabled ones stand


class BusHardware:
    """A machine made of raw functions, each at the address it has at the start."""

    def __init__(self, raws: Iterable[RawFunction] = ()) -> None:
        self._roots: dict[Bus, dict[int, Slot]] = {}
        self._buses: dict[Bus, dict[int, Slot]] = {}
        # What is behind a bridge has a higher bus number; virtual functions need their physical one.
        for raw in sorted(raws, key=lambda raw: (raw.physfn is not None, raw.sbdf)):
            self.plug(raw)

    def functions(self) -> Sequence[Sbdf]:
        return [sbdf_from_devfn(*bus, devfn) for bus, slots in self._buses.items() for devfn in slots]

    def slots(self) -> Iterator[Slot]:
        """Give every function that is there, also where no bus number leads to it."""
        waiting = list(self._roots.values())
        while waiting:
            slots = waiting.pop().values()
            yield from slots
            waiting += [slot.behind for slot in slots]

    def presence(self, function: Sbdf) -> Presence | None:
        slot = self.slot(function)
        if slot is None:
            return None
        if slot.physfn is None:
            return Presence(slot.registers.decodes_memory)
        physfn = sbdf_from_devfn(function.segment, function.bus, slot.physfn.devfn)
        return Presence(slot.registers.decodes_memory, DeviceFlags(physfn=physfn))

    def has_bus(self, segment: int, bus: int) -> bool:
        """Tell whether any bus number leads there."""
        return (segment, bus) in self._buses

    def slot(self, function: Sbdf) -> Slot | None:
        return self._buses.get((function.segment, function.bus), {}).get(function.devfn)

    def config(self, function: Sbdf) -> bytes | None:
        """Read all of a function's config space; None where nothing answers, which reads as all ones."""
        slot = self.slot(function)
        return None if slot is None else bytes(slot.registers.data)

    def write(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Write a register; a write to what is not there is lost."""
        slot = self.slot(function)
        if slot is None:
            return
        slot.registers.write(offset, size, value)
        if (
            slot.registers.header is HeaderType.BRIDGE
            and offset < BUS_NUMBERS.stop
            and offset + size > BUS_NUMBERS.start
        ):
            self._route(function.segment)
        if slot.registers.sriov_at is not None and offset >= slot.registers.sriov_at:
            self._show_virtual(slot, self._buses[function.segment, function.bus])

    def decodes_memory(self, function: Sbdf) -> bool:
        """Tell whether its BARs answer: a virtual function's by its physical function's VF Memory Enable."""
        slot = self.slot(function)
        if slot is None:
            return False
        return slot.registers.decodes_memory if slot.physfn is None else slot.physfn.registers.vf_memory

    def memory_bars(self, function: Sbdf) -> list[tuple[int, Range]]:
        """List index and place of its memory BARs, decoding or not, and of the ROM while it is enabled."""
        slot = self.slot(function)
        if slot is None:
            return []
        return list(
            slot.registers.bars() if slot.physfn is None else slot.physfn.registers.vf_bars(slot.number)
        )

    def bar_sizes(self, function: Sbdf) -> list[tuple[int, int]]:
        """Tell index (6 is the ROM) and size of each memory BAR that the function itself has."""
        slot = self.slot(function)
        return [] if slot is None else list(slot.registers.sizes.items())

    def msix(self, function: Sbdf) -> Msix | None:
        slot = self.slot(function)
        return None if slot is None else slot.registers.msix

    def plug(self, raw: RawFunction) -> None:
        """Put a function where its address says, with what its physical function or its bridge decides."""
        registers = registers_from_function(raw, decode_function(raw))
        if raw.physfn is not None:
            self._give_virtual(raw, registers)
            return
        bus = (raw.sbdf.segment, raw.sbdf.bus)
        if bus not in self._buses:
            self._roots[bus] = self._buses[bus] = {}
        slot = Slot(raw.sbdf.devfn, registers, {})
        self._buses[bus][slot.devfn] = slot
        if registers.header is HeaderType.BRIDGE:
            self._route(raw.sbdf.segment)
        self._show_virtual(slot, self._buses[bus])

    def pull(self, function: Sbdf) -> None:
        """Take a function out, with its virtual ones and all that is behind it."""
        slots = self._buses.get((function.segment, function.bus), {})
        slot = slots.pop(function.devfn, None)
        if slot is None:
            return
        for devfn in slot.enabled:
            slots.pop(devfn, None)
        if slot.registers.header is HeaderType.BRIDGE:
            self._route(function.segment)

    def _give_virtual(self, raw: RawFunction, registers: Registers) -> None:
        """Keep a virtual function's own config space; whether it is there the physical function decides."""
        physfn = self.slot(raw.physfn) if raw.physfn is not None else None
        if physfn is None:
            return
        places = physfn.registers.vf_devfns(physfn.devfn, everyone=True)
        if raw.sbdf.devfn in places:
            number = places.index(raw.sbdf.devfn)
            physfn.virtual[number] = Slot(raw.sbdf.devfn, registers, {}, physfn, number)
            self._show_virtual(physfn, self._buses[raw.sbdf.segment, raw.sbdf.bus])

    def _show_virtual(self, physfn: Slot, slots: dict[int, Slot]) -> None:
        for devfn in physfn.enabled:
            slots.pop(devfn, None)
        physfn.enabled = []
        for number, devfn in enumerate(physfn.registers.vf_devfns(physfn.devfn)):
            if devfn not in slots:
                slots[devfn] = physfn.virtual.setdefault(number, _virtual_slot(physfn, number, devfn))
                physfn.enabled.append(devfn)

    def _route(self, segment: int) -> None:
        """Find out anew which bus each bridge of the segment makes reachable."""
        self._buses = {bus: slots for bus, slots in self._buses.items() if bus[0] != segment}
        for bus, slots in self._roots.items():
            if bus[0] == segment:
                self._buses[bus] = slots
        for bus, slots in list(self._roots.items()):
            if bus[0] == segment:
                self._walk(bus, slots, LAST_BUS)

    def _walk(self, bus: Bus, slots: dict[int, Slot], last: int) -> None:
        claimed: set[int] = set()
        for _, slot in sorted(slots.items()):
            if slot.registers.header is not HeaderType.BRIDGE:
                continue
            first, end = slot.registers.data[SECONDARY], min(slot.registers.data[SUBORDINATE], last)
            below = (bus[0], first)
            if bus[1] < first <= end and first not in claimed and below not in self._buses:
                self._buses[below] = slot.behind
                self._walk(below, slot.behind, end)
            claimed.update(range(first, end + 1))


def _virtual_slot(physfn: Slot, number: int, devfn: int) -> Slot:
    data = bytearray(_VIRTUAL)
    data[0x09:0x0C] = physfn.registers.data[0x09:0x0C]  # the class is the physical function's
    registers = Registers(data, bytearray(len(data)), HeaderType.ENDPOINT, {}, {}, None, None)
    return Slot(devfn, registers, {}, physfn, number)
