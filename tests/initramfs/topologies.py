"""Random machines made of cards, as a workshop has them, and the firmware that numbers their buses.

A place is where a card is put: a slot of the main board or of a card that is a switch. A machine is
enumerated depth first; firmware may keep bus numbers free behind ports. What a function is physically is
known here, and nowhere else: the resolvers see paths, ids and serial numbers only.
"""

import random
import struct

import attrs

from pcipt.pci import Ids, RawFunction, Sbdf

MODELS = ((0x8086, 0x1533, 1), (0x8086, 0x1521, 4), (0x144D, 0xA808, 1), (0x10DE, 0x2204, 2))
MOST_BUSES = 200


@attrs.define(eq=False)
class Card:
    """A card with one or more functions. `serial` is None where the vendor gave it no number."""

    model: int
    serial: int | None
    revision: int = 3
    extended: bool = True  # whether it has extended registers without a serial number
    sprawls: bool = False  # whether it has a function on the next bus, as SR-IOV has, equal to its first


@attrs.define(eq=False)
class Switch:
    """A card with an upstream port and `slots` below it: by device number what is in each, or None."""

    slots: dict
    serial: int | None = None


@attrs.define(eq=False)
class HostBridge:
    """A host bridge: its ACPI name, its segment, functions on board and slots, by device number."""

    name: str
    segment: int
    ports: dict  # device -> what is in the slot behind the port
    board: dict  # device -> Card soldered on the root bus


@attrs.define(eq=False)
class Board:
    """A machine: its host bridges, and how many buses its firmware keeps free behind each port."""

    bridges: list
    reserve: int = 0
    align: int = 1


@attrs.frozen
class Placed:
    """A function as it is physically: the card, its function number and its position."""

    card: object
    function: int
    position: tuple


def a_card(source):
    serial = source.getrandbits(60) | 1 if source.random() < 0.5 else None
    return Card(
        source.randrange(len(MODELS)), serial, extended=source.random() < 0.5, sprawls=source.random() < 0.2
    )


def a_thing(source, depth=0):
    """Make what may be in a slot: nothing, a card, or a switch with slots of its own."""
    chance = source.random()
    if chance < 0.3:
        return None
    if chance < 0.8 or depth > 2:
        return a_card(source)
    devices = source.sample(range(4), source.randint(1, 3))
    return Switch({device: a_thing(source, depth + 1) for device in sorted(devices)})


def a_board(source):
    """Make a machine: one to three host bridges in one or two segments."""
    bridges = []
    for number in range(source.choice((1, 1, 2, 3))):
        ports = {
            device: a_thing(source) for device in sorted(source.sample(range(1, 0x1C), source.randint(1, 4)))
        }
        board = {0x1F: a_card(source)} if source.random() < 0.5 else {}
        bridges.append(HostBridge(f"\\_SB_.PC{number:02X}", source.choice((0, 0, 0, 1)), ports, board))
    return Board(bridges, source.choice((0, 0, 1, 4)), source.choice((1, 0x10, 0x20)))


def slots_of(board):
    """List every slot: the mapping it is in, and its device number there."""
    waiting = [bridge.ports for bridge in board.bridges]
    found = []
    while waiting:
        holder = waiting.pop()
        for device, thing in holder.items():
            found.append((holder, device))
            if isinstance(thing, Switch):
                waiting.append(thing.slots)
    return found


def change(source, board):
    """Change the machine once, in place; give back what was done."""
    slots = slots_of(board)
    empty = [slot for slot in slots if slot[0][slot[1]] is None]
    full = [slot for slot in slots if slot[0][slot[1]] is not None]
    kind = source.choice(("add", "remove", "swap", "move", "reserve"))
    if kind == "add" and empty:
        holder, device = source.choice(empty)
        holder[device] = a_thing(source, 1) or a_card(source)
    elif kind == "remove" and full:
        holder, device = source.choice(full)
        holder[device] = None
    elif kind == "swap" and len(full) > 1:
        (one, at), (other, there) = source.sample(full, 2)
        first, second = one[at], other[there]
        if not (is_below(first, other) or is_below(second, one)):
            one[at], other[there] = second, first
    elif kind == "move" and empty and full:
        (one, at), (other, there) = source.choice(full), source.choice(empty)
        if not is_below(one[at], other):
            one[at], other[there] = None, one[at]
    else:
        kind = "reserve"
        board.reserve = source.choice((0, 1, 2, 5))
        board.align = source.choice((1, 8, 0x20))
    return kind


def is_below(thing, holder):
    """Is this mapping of slots on the card, or on one that is in it?"""
    if not isinstance(thing, Switch):
        return False
    return thing.slots is holder or any(is_below(each, holder) for each in thing.slots.values())


class Enumeration:
    """What the firmware makes of a machine: raw functions, and what each is physically.

    Raises ValueError if the bus numbers of a segment do not suffice.
    """

    def __init__(self, board):
        self.raws, self.placed, self.homes = {}, {}, {}
        self.names = {}
        self._board = board
        following = {}
        for number, bridge in enumerate(board.bridges):
            bus = following.get(bridge.segment, 0)
            self._last = self._root = bus
            self._bridge = bridge
            self.names[bridge.segment, bus] = bridge.name
            home = f"pci{bridge.segment:04x}:{bus:02x}"
            for device, thing in bridge.ports.items():
                self._port(bus, device, thing, None, home, (number, (device, 0)))
            for device, card in bridge.board.items():
                self._card(bus, device, card, None, home, (number,))
            end = self._last + 1
            following[bridge.segment] = -(-end // board.align) * board.align

    def _port(self, bus, device, thing, parent, home, position):
        """Number the bus behind a port, and what is in its slot."""
        if self._last + 1 + self._board.reserve > MOST_BUSES:
            raise ValueError("no bus left")
        self._last += 1
        secondary = self._last
        sbdf = Sbdf(self._bridge.segment, bus, device, 0)
        home = f"{home}/{sbdf}"
        if isinstance(thing, Card):
            self._card(secondary, 0, thing, sbdf, home, position)
        elif isinstance(thing, Switch):
            self._switch(secondary, thing, sbdf, home, position)
        self._last += self._board.reserve
        self._bridge_function(sbdf, parent, home, secondary)

    def _switch(self, bus, switch, parent, home, position):
        """Number a switch: its upstream port, and a downstream port for each slot."""
        upstream = Sbdf(self._bridge.segment, bus, 0, 0)
        self._last += 1
        secondary = self._last
        home = f"{home}/{upstream}"
        for device, thing in switch.slots.items():
            self._port(secondary, device, thing, upstream, home, (*position, (0, 0), (device, 0)))
        self._bridge_function(upstream, parent, home, secondary)

    def _bridge_function(self, sbdf, parent, home, secondary):
        data = bytearray(64)
        struct.pack_into("<HH", data, 0, 0x8086, 0x3420)
        data[0x0A:0x0F] = bytes((4, 6, 0, 0, 1))
        data[0x18:0x1B] = bytes((sbdf.bus, secondary, self._last))
        self._put(sbdf, parent, home, bytes(data), Ids(0x8086, 0x3420, 0x060400, 2, 0, 0), secondary)

    def _card(self, bus, device, card, parent, home, position):
        vendor, product, count = MODELS[card.model]
        places = [(bus, device, function) for function in range(count)]
        if card.sprawls and parent is not None:
            self._last += 1
            places.append((bus + 1, device, 0))
        for function, place in enumerate(places):
            sbdf = Sbdf(self._bridge.segment, *place)
            ids = Ids(vendor, product, 0x020000, card.revision, vendor, 1 + place[2])
            data = config(ids, card.serial, extended=card.extended)
            self._put(sbdf, parent, f"{home}/{sbdf}", data, ids, None)
            self.placed[sbdf] = Placed(card, function, (*position, (device, function)))

    def _put(self, sbdf, parent, home, data, ids, secondary):
        root = self._root if parent is None else None
        self.raws[sbdf] = RawFunction(sbdf, data, ids=ids, parent=parent, root_bus=root, secondary=secondary)
        self.homes[sbdf] = home

    def write(self, place):
        """Write what a shell needs of sysfs below the directory `place`."""
        for (segment, bus), name in self.names.items():
            node = place / f"devices/pci{segment:04x}:{bus:02x}/firmware_node"
            node.mkdir(parents=True)
            (node / "path").write_text(f"{name}\n")
        for sbdf, raw in sorted(self.raws.items(), key=lambda pair: len(self.homes[pair[0]])):
            directory = place / "devices" / self.homes[sbdf]
            directory.mkdir(parents=True, exist_ok=True)
            ids = raw.ids
            for name, value, digits in (
                ("vendor", ids.vendor, 4), ("device", ids.device, 4), ("revision", ids.revision, 2),
                ("subsystem_vendor", ids.subsystem_vendor, 4), ("class", ids.class_code, 6),
                ("subsystem_device", ids.subsystem_device, 4),
            ):  # fmt: skip
                (directory / name).write_text(f"0x{value:0{digits}x}\n")
            if raw.secondary is not None:
                (directory / f"pci_bus/{sbdf.segment:04x}:{raw.secondary:02x}").mkdir(parents=True)
            else:
                (directory / "config").write_bytes(raw.config)


def config(ids, serial, *, extended):
    """Make the registers of a card: with a serial number behind another extended capability, with that other
    one alone, or of a conventional card.
    """
    data = bytearray(0x160 if extended or serial is not None else 256)
    struct.pack_into("<HHHHI", data, 0, ids.vendor, ids.device, 0, 0x10, ids.class_code << 8 | ids.revision)
    data[0x34], data[0x40] = 0x40, 0x10 if len(data) > 256 else 0x01
    if len(data) > 256:
        struct.pack_into("<I", data, 0x100, 1 | 1 << 16 | (0x140 << 20 if serial is not None else 0))
    if serial is not None:
        struct.pack_into("<IQ", data, 0x140, 3 | 1 << 16, serial)
    return bytes(data)


def enumerated(source):
    """Make a machine whose buses suffice; give back it and its enumeration, with at least one card."""
    while True:
        board = a_board(source)
        try:
            numbered = Enumeration(board)
        except ValueError:
            continue
        if numbered.placed:
            return board, numbered


def a_source(seed):
    return random.Random(seed)
