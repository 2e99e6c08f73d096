"""Simulate PCI hardware: a write to a register has the effect that it has on a real bus.

A bridge's bus numbers change the addresses of the functions behind it, VF Enable adds virtual functions, BARs
decode where the registers say. A function is found by its present address; Linux may still use an earlier
one. If two bridges forward the same bus number, the bridge with the lower device number gets it. Virtual
functions stay on the bus of their physical function.
"""

from collections.abc import Iterable, Iterator, Sequence

from pcipt import values as attrs
from pcipt.pci import HeaderType, Range, RawFunction, Sbdf, decode_function, sbdf_from_devfn
from pcipt.pci.requester import PCIE_TO_PCI, Role, role_of
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
_VIRTUAL = b"\xff\xff\xff\xff".ljust(256, b"\0")  # a virtual function without a given config space

Bus = tuple[int, int]  # segment, bus number


@attrs.define(eq=False)
class Slot:
    """One function: its registers and, for a bridge, the functions directly behind it.

    `behind` maps a devfn (device and function number) to a slot. For a physical function, `virtual` maps the
    number of a virtual function to its slot, whether or not the virtual function is enabled. A virtual
    function that no raw function describes is in `virtual` from the first time that it is enabled. `enabled`
    holds the devfn of each enabled virtual function. For a virtual function, `physfn` is its physical
    function and `number` its number.
    """

    devfn: int
    registers: Registers
    behind: "dict[int, Slot]"
    physfn: "Slot | None" = None
    number: int = 0
    virtual: "dict[int, Slot]" = attrs.field(factory=dict)  # by VF number
    enabled: list[int] = attrs.field(factory=list)  # devfn of each enabled VF


class BusHardware:
    """A machine built from raw functions. Each function begins at the address that it has in `raws`.

    If two raw functions have the same address, the later one replaces the earlier one.
    """

    def __init__(self, raws: Iterable[RawFunction] = ()) -> None:
        self._roots: dict[Bus, dict[int, Slot]] = {}
        self._buses: dict[Bus, dict[int, Slot]] = {}
        # Bridges before the functions behind them (higher bus numbers), physical before virtual functions.
        for raw in sorted(raws, key=lambda raw: (raw.physfn is not None, raw.sbdf)):
            self.plug(raw)

    def functions(self) -> Sequence[Sbdf]:
        """Return the present addresses of all functions on buses that can be reached.

        The order is not defined. Functions that do not answer (their registers read all ones) are among them.
        """
        return [sbdf_from_devfn(*bus, devfn) for bus, slots in self._buses.items() for devfn in slots]

    def slots(self) -> Iterator[Slot]:
        """Yield the slot of every function, whether or not its bus can be reached at present.

        Virtual functions that are not enabled are left out. The order is not defined.
        """
        waiting = list(self._roots.values())
        while waiting:
            slots = waiting.pop().values()
            yield from slots
            waiting += [slot.behind for slot in slots]

    def presence(self, function: Sbdf) -> Presence | None:
        """Return what Xen sees of a function on the bus; None if no function answers at this address.

        A function whose registers read all ones does not answer. `flags.physfn` is set for a virtual
        function. The NUMA node is always None.
        """
        slot = self.slot(function)
        if slot is None or not slot.registers.answers:
            return None
        role = role_of(slot.registers.read(0x08, 4) >> 8, slot.registers.port_type)
        if slot.physfn is None:
            data = slot.registers.data
            return Presence(
                slot.registers.decodes_memory,
                role=role,
                port_type=slot.registers.port_type,
                buses=(data[SECONDARY], data[SUBORDINATE]) if role is Role.BRIDGE else (0, 0),
            )
        physfn = sbdf_from_devfn(function.segment, function.bus, slot.physfn.devfn)
        flags = DeviceFlags(physfn=physfn)
        return Presence(slot.registers.decodes_memory, flags, role=role, port_type=0)

    def has_bus(self, segment: int, bus: int) -> bool:
        """Return True if the bus can be reached: it is a root bus, or a bridge's bus numbers lead to it."""
        return (segment, bus) in self._buses

    def place(self, function: Sbdf) -> tuple[int, ...]:
        """Return a name of the place at an address: it stays the same when buses are renumbered.

        Shape:  segment, number of the root bus, then devfn of each bridge on the way and of the function.
        """
        behind = self._buses.get((function.segment, function.bus))
        for bus, slots in self._roots.items():
            found = _way_to(behind, slots) if behind is not None else None
            if found is not None:
                return (*bus, *found, function.devfn)
        return (function.segment, function.bus, function.devfn)

    def requesters(self, function: Sbdf) -> tuple[Sbdf, ...]:
        """Return the requester ids that DMA of a function may carry.

        DMA of a conventional function carries the address of the uppermost conventional bridge above it, or
        behind a bridge from PCI Express to PCI that of device 0 of the bus below it (PCIe to PCI Bridge 1.0
        §2.3).
        """
        slot = self.slot(function)
        if slot is None or slot.registers.port_type is not None or slot.physfn is not None:
            return (function,)
        found: tuple[Sbdf, ...] = (function,)
        bus: Bus = (function.segment, function.bus)
        while (above := self._bridge_to(bus)) is not None:
            port = self._slot_at(above).registers.port_type
            if port is None or port == PCIE_TO_PCI:
                found = (above,) if port is None else (above, sbdf_from_devfn(*bus, 0))
            bus = (above.segment, above.bus)
        return found

    def _bridge_to(self, bus: Bus) -> Sbdf | None:
        """Return the present address of the bridge directly above a bus; None for a root bus."""
        behind = self._buses.get(bus)
        for at, slots in self._buses.items():
            for devfn, slot in slots.items():
                if slot.behind is behind and slot.registers.header is HeaderType.BRIDGE:
                    return sbdf_from_devfn(*at, devfn)
        return None

    def _slot_at(self, function: Sbdf) -> Slot:
        """Return the slot at an address at which a function is."""
        return self._buses[function.segment, function.bus][function.devfn]

    def slot(self, function: Sbdf) -> Slot | None:
        """Return the slot at an address; None if no function is there."""
        return self._buses.get((function.segment, function.bus), {}).get(function.devfn)

    def config(self, function: Sbdf) -> bytes | None:
        """Return the present config space of a function; None if no function is at this address.

        The result shows earlier writes. It is as long as the config space of the raw function, and at least
        64 bytes. A virtual function that no raw function describes has 256 bytes. If the function at this
        address does not answer, all 64 bytes of the header are ff.
        """
        slot = self.slot(function)
        return None if slot is None else bytes(slot.registers.data)

    def write(self, function: Sbdf, offset: int, size: int, value: int) -> None:
        """Write a register. A write to an address at which no function answers has no effect.

        A write to a bridge's bus numbers changes the addresses of the functions behind it. A write to the
        SR-IOV capability adds and removes virtual functions. A write that starts a reset resets the function,
        or everything behind a bridge (`reset`). Bits that are read-only do not change.
        """
        slot = self.slot(function)
        if slot is None or not slot.registers.answers:
            return
        if slot.registers.starts_reset(offset, size, value):
            self.reset(function)
            return
        held = slot.registers.holds_reset
        slot.registers.write(offset, size, value)
        if slot.registers.holds_reset and not held:
            self._reset(function.segment, slot.behind)
        if (
            slot.registers.header is HeaderType.BRIDGE
            and offset < BUS_NUMBERS.stop
            and offset + size > BUS_NUMBERS.start
        ):
            self._route(function.segment)
        if slot.registers.sriov_at is not None and offset >= slot.registers.sriov_at:
            self._show_virtual(slot, self._buses[function.segment, function.bus])

    def reset(self, function: Sbdf) -> None:
        """Reset a function and everything behind it, as power off and on (D3cold) does.

        BARs and decode bits are 0 after it, buses behind bridges cannot be reached, and virtual functions are
        gone. Nobody sees it on the bus. Nothing happens if no function is at this address.
        """
        slot = self.slot(function)
        if slot is not None:
            self._reset(function.segment, {function.devfn: slot}, self._buses[function.segment, function.bus])

    def _reset(self, segment: int, slots: dict[int, Slot], bus: dict[int, Slot] | None = None) -> None:
        """Reset the functions in `slots` and everything behind them. `bus` are all slots of their bus."""
        for slot in list(slots.values()):
            if slot.physfn is not None:
                continue  # the physical function's reset ends it
            slot.registers.reset()
            self._show_virtual(slot, slots if bus is None else bus)
            if slot.registers.header is HeaderType.BRIDGE:
                self._reset(segment, slot.behind)
        self._route(segment)

    def decodes_memory(self, function: Sbdf) -> bool:
        """Return True if the function's memory BARs decode. Return False if no function answers.

        BARs of a virtual function decode if VF Enable and VF Memory Enable of its physical function are set.
        BARs of any other function decode if memory decode is on in its Command register.
        """
        slot = self.slot(function)
        if slot is None or not slot.registers.answers:
            return False
        return slot.registers.decodes_memory if slot.physfn is None else slot.physfn.registers.vf_memory

    def memory_bars(self, function: Sbdf) -> list[tuple[int, Range]]:
        """Return (index, addresses) of each memory BAR, whether or not it decodes.

        The ROM (index 6) is included while it is enabled. A BAR whose size is not known is left out. The list
        is empty if no function is at this address.
        """
        slot = self.slot(function)
        if slot is None:
            return []
        return list(
            slot.registers.bars() if slot.physfn is None else slot.physfn.registers.vf_bars(slot.number)
        )

    def bar_sizes(self, function: Sbdf) -> list[tuple[int, int]]:
        """Return (index, size in bytes) of each memory BAR of a function; index 6 is the ROM.

        A BAR whose size is not known is left out. BARs of virtual functions (VF BARs) are left out. So the
        list is empty for a virtual function. It is empty too if no function is at this address.
        """
        slot = self.slot(function)
        return [] if slot is None else list(slot.registers.sizes.items())

    def msix(self, function: Sbdf) -> Msix | None:
        """Return the function's MSI-X capability; None if it has none or no function is there."""
        slot = self.slot(function)
        return None if slot is None else slot.registers.msix

    def plug(self, raw: RawFunction) -> None:
        """Insert a function at its address. A function that is at that address is removed before (`pull`).

        If its bus cannot be reached, the bus becomes a new root bus. A virtual function is inserted only
        while its physical function enables it. A virtual function is ignored if its physical function is
        missing, is on another bus, or cannot have a virtual function at that address.
        """
        registers = registers_from_function(raw, decode_function(raw))
        if raw.physfn is not None:
            self._keep_virtual(raw, registers)
            return
        self.pull(raw.sbdf)
        bus = (raw.sbdf.segment, raw.sbdf.bus)
        if bus not in self._buses:
            self._roots[bus] = self._buses[bus] = {}
        slot = Slot(raw.sbdf.devfn, registers, {})
        self._buses[bus][slot.devfn] = slot
        if registers.header is HeaderType.BRIDGE:
            self._route(raw.sbdf.segment)
        self._show_virtual(slot, self._buses[bus])

    def pull(self, function: Sbdf) -> None:
        """Remove a function, its virtual functions, and all functions behind it.

        Nothing happens if no function is at this address.
        """
        slots = self._buses.get((function.segment, function.bus), {})
        slot = slots.pop(function.devfn, None)
        if slot is None:
            return
        for devfn in slot.enabled:
            slots.pop(devfn, None)
        if slot.physfn is not None:
            slot.physfn.enabled.remove(slot.devfn)
        if slot.registers.header is HeaderType.BRIDGE:
            self._route(function.segment)

    def _keep_virtual(self, raw: RawFunction, registers: Registers) -> None:
        """Keep the config space of a virtual function. It appears when its physical function enables it.

        The virtual function is ignored if its physical function is missing, is on another bus, or cannot have
        a virtual function at that address.
        """
        physfn = self.slot(raw.physfn) if raw.physfn is not None else None
        if physfn is None or raw.physfn is None or raw.physfn[:2] != raw.sbdf[:2]:
            return
        places = physfn.registers.vf_devfns(physfn.devfn, everyone=True)
        if raw.sbdf.devfn in places:
            number = places.index(raw.sbdf.devfn)
            physfn.virtual[number] = Slot(raw.sbdf.devfn, registers, {}, physfn, number)
            self._show_virtual(physfn, self._buses[raw.sbdf.segment, raw.sbdf.bus])

    def _show_virtual(self, physfn: Slot, slots: dict[int, Slot]) -> None:
        """Add the enabled virtual functions of `physfn` to `slots`; remove those that are not enabled.

        `slots` are the slots of its bus. A virtual function is not added if another function has its devfn.
        """
        for devfn in physfn.enabled:
            slots.pop(devfn, None)
        physfn.enabled = []
        for number, devfn in enumerate(physfn.registers.vf_devfns(physfn.devfn)):
            if devfn not in slots:
                slots[devfn] = physfn.virtual.setdefault(number, _virtual_slot(physfn, number, devfn))
                physfn.enabled.append(devfn)

    def _route(self, segment: int) -> None:
        """Compute again which bus numbers lead to which bus, for all bridges of the segment."""
        self._buses = {bus: slots for bus, slots in self._buses.items() if bus[0] != segment}
        for bus, slots in self._roots.items():
            if bus[0] == segment:
                self._buses[bus] = slots
        for bus, slots in list(self._roots.items()):
            if bus[0] == segment:
                self._route_below(bus, slots, LAST_BUS)

    def _route_below(self, bus: Bus, slots: dict[int, Slot], last: int) -> None:
        """Assign bus numbers to all buses behind the bridges in `slots`, up to the number `last`.

        `slots` are the functions of `bus`. A bridge's secondary number is the number of the bus behind it.
        That bus cannot be reached if its number is not above the number of `bus`, is above the bridge's
        subordinate number or above `last`, is in the bus numbers of a bridge with a lower devfn, or is
        already the number of another bus.
        """
        claimed: set[int] = set()
        for _, slot in sorted(slots.items()):
            if slot.registers.header is not HeaderType.BRIDGE:
                continue
            first, end = slot.registers.data[SECONDARY], min(slot.registers.data[SUBORDINATE], last)
            below = (bus[0], first)
            if bus[1] < first <= end and first not in claimed and below not in self._buses:
                self._buses[below] = slot.behind
                self._route_below(below, slot.behind, end)
            claimed.update(range(first, end + 1))


def _way_to(wanted: dict[int, Slot], slots: dict[int, Slot]) -> tuple[int, ...] | None:
    """Return the devfn of each bridge from the bus `slots` down to `wanted`; None if it is not below."""
    if wanted is slots:
        return ()
    for devfn, slot in slots.items():
        way = _way_to(wanted, slot.behind) if slot.registers.header is HeaderType.BRIDGE else None
        if way is not None:
            return (devfn, *way)
    return None


def _virtual_slot(physfn: Slot, number: int, devfn: int) -> Slot:
    """Return a slot for a virtual function that no raw function describes.

    It has the class code of its physical function, and no BARs and no capabilities.
    """
    data = bytearray(_VIRTUAL)
    data[0x09:0x0C] = physfn.registers.data[0x09:0x0C]  # the class code of the physical function
    registers = Registers(data, bytes(len(data)), HeaderType.ENDPOINT, {}, {}, None, None)
    return Slot(devfn, registers, {}, physfn, number)
