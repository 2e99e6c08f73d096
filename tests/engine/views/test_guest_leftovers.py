"""What guests may still reach of the functions that they have or had."""

import errno

import attrs
import pytest

from pcipt.engine.memory import Memory
from pcipt.engine.views.guest_leftovers import GuestLeftovers
from pcipt.engine.views.reserved import Reserved
from pcipt.pci import Address, Frames, Gfn, Range, Resource, decode_machine
from pcipt.remap.ledger import Ledger
from pcipt.remap.view import XenView
from pcipt.xen.interface import Permissions
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import SimulatedHardware
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.stage import S
from tests.xen.devices import device

NIC, DISK = S("02:00.0"), S("03:00.0")
AT_NIC, AT_DISK, OLD = Frames(Gfn(0xFE000), 2), Frames(Gfn(0xFE100), 1), Frames(Gfn(0xFE800), 1)
REGION, ROM = Frames(Gfn(0x7FFF0), 2), Frames(Gfn(0xFE900), 1)
RAWS = [
    device("02:00.0", (0xFE00_0000, 0x2000), rom=(0xFE90_0000, 0x1000)),
    device("03:00.0", (0xFE10_0000, 0x1000)),
]


class Scene:
    def __init__(self, raws=None):
        raws = RAWS if raws is None else raws
        self.xen = SimulatedXen(SimulatedHardware([NIC, DISK]), reserved=[ReservedRegion(REGION, (NIC,))])
        self.memory = Memory(Ledger("boot"))
        self.reserved = Reserved(self.xen)
        self.reserved.read([NIC, DISK])
        self.guests = GuestLeftovers(self.xen, self.reserved, self.memory)
        self.machine = decode_machine(raws)
        self.raws = {raw.sbdf: raw for raw in raws}
        self.owners = {}

    def allow(self, guest, *memory, ports=()):
        self.xen.grants[guest] = Permissions(memory, tuple(ports))

    def look(self):
        known = frozenset({NIC, DISK})
        elsewhere = {sbdf: f"guest {guest}" for sbdf, guest in self.owners.items()}
        return self.guests.look(self.machine, self.raws, XenView(known, elsewhere=elsewhere))

    @property
    def codes(self):
        return {sbdf: [each.code for each in found] for sbdf, found in self.guests.findings.items()}

    @property
    def keys(self):
        return [call.op for call in self.xen.calls].count(Op.KEY)


def test_without_guests_xen_is_not_asked():
    scene = Scene()
    assert (scene.look(), scene.keys, scene.codes) == ([], 0, {})


def test_a_guest_that_reaches_what_its_function_decodes_is_in_order():
    scene = Scene()
    scene.owners = {NIC: 3}
    scene.allow(3, AT_NIC)
    assert (scene.look(), scene.keys, scene.codes) == ([3], 1, {})


@pytest.mark.parametrize("more", [REGION, ROM, Frames(Gfn(0x7FFF1), 1)])
def test_regions_of_its_function_and_the_place_of_the_rom_are_a_guests_by_right(more):
    scene = Scene()
    scene.owners = {NIC: 3}
    scene.allow(3, AT_NIC, more)
    scene.look()
    assert scene.codes == {}


@pytest.mark.parametrize(
    ("line", "left"),
    [
        (Resource(0xFE90_0000, 0x1000, Resource.MEMORY), False),
        (Resource(0xFE90_0000, 0x1000, Resource.MEMORY | Resource.UNSET), True),
        (Resource(0xFE90_0000, 0x1000, Resource.IO), True),
        (Resource(0xFE90_0000, 0, Resource.MEMORY), True),
    ],
)
def test_only_a_rom_with_an_address_in_memory_is_a_guests_by_right(line, left):
    plain = device("02:00.0", (0xFE00_0000, 0x2000))
    lines = (*plain.resources[:6], line, Resource(0xFE90_0000, 0x1000, Resource.MEMORY))
    scene = Scene([attrs.evolve(plain, resources=lines)])
    scene.owners = {NIC: 3}
    scene.allow(3, AT_NIC, ROM)
    scene.look()
    assert scene.codes == ({NIC: ["guest-leftover"]} if left else {})


def test_what_a_guest_may_reach_besides_is_left_over():
    scene = Scene()
    scene.owners = {NIC: 3, DISK: 3}
    scene.allow(3, AT_NIC, AT_DISK, OLD, ports=[Range(Address(0xE000), 8)])
    assert scene.look() == [3]
    assert scene.codes == {sbdf: ["guest-leftover"] * 2 for sbdf in (NIC, DISK)}  # whose it is nobody knows


def test_a_function_whose_bar_its_guest_cannot_reach_has_moved():
    scene = Scene()
    scene.owners = {NIC: 3, DISK: 3}
    scene.allow(3, OLD, AT_DISK)
    scene.look()
    assert scene.codes == {NIC: ["guest-bar-moved", "guest-leftover"], DISK: ["guest-leftover"]}


def test_each_guest_is_compared_with_its_own_functions():
    scene = Scene()
    scene.owners = {NIC: 4, DISK: 3}
    scene.allow(3, AT_NIC)
    scene.allow(4, AT_NIC)
    assert scene.look() == [3, 4]
    assert scene.codes == {DISK: ["guest-bar-moved", "guest-leftover"]}


def test_what_a_guest_keeps_of_a_function_that_has_left_is_told_of_that_function():
    scene = Scene()
    scene.owners = {DISK: 3}
    scene.memory.left_guests[NIC] = 3
    scene.allow(3, AT_NIC, AT_DISK)
    assert scene.look() == [3]
    assert scene.codes == {NIC: ["guest-leftover"]}
    assert scene.memory.left_guests == {NIC: 3}
    scene.allow(3, AT_DISK)
    scene.look()
    assert (scene.codes, scene.memory.left_guests) == ({}, {})


def test_a_guest_that_has_ended_keeps_nothing():
    scene = Scene()
    scene.memory.left_guests |= {NIC: 3, DISK: 4}
    scene.allow(4, AT_DISK)
    assert scene.look() == [4]
    assert (scene.codes, scene.memory.left_guests) == ({DISK: ["guest-leftover"]}, {DISK: 4})


def test_functions_that_linux_does_not_have_are_not_compared():
    scene = Scene([RAWS[1]])
    scene.owners = {NIC: 3}
    scene.allow(3, AT_NIC)
    assert (scene.look(), scene.keys, scene.codes) == ([], 0, {})


def test_while_xen_does_not_tell_nothing_that_was_found_is_forgotten():
    scene = Scene()
    scene.memory.left_guests[NIC] = 3
    scene.allow(3, AT_NIC)
    scene.look()
    scene.xen.fail(Op.KEY, errno.EPERM)
    scene.allow(3)
    assert scene.look() == []
    assert scene.guests.trouble is not None
    assert (scene.codes, scene.memory.left_guests) == ({NIC: ["guest-leftover"]}, {NIC: 3})
    assert scene.look() == [3]
    assert (scene.guests.trouble, scene.codes, scene.memory.left_guests) == (None, {}, {})
