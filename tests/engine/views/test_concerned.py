"""Which functions the guards of an action look at."""

import struct

import attrs
import pytest

from pcipt.engine.memory import Memory
from pcipt.engine.views.concerned import addresses_of, concerned_functions
from pcipt.engine.views.machine_state import MachineState
from pcipt.pci import Address, Frames, Gfn
from pcipt.remap.actions import (
    AddDevice,
    CheckUnmapped,
    MapMmio,
    RemoveDevice,
    RestoreReserved,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)
from pcipt.remap.ledger import Ledger
from tests.engine.stage import S
from tests.machines import bridge
from tests.remap.devices import device, with_vfs

PORT, SWITCH, NIC, BELOW, PF, VF, NEAR, AWAY = map(
    S, ("00:1c.0", "02:00.0", "02:01.0", "03:00.0", "00:05.0", "00:06.0", "00:07.0", "07:00.0")
)
NEXT_TO_IT = Frames(Gfn(0xFE000), 1)
REGION, EMPTY = Frames(Gfn(0x7FFF0), 2), Frames(Gfn(0x7FFE0), 1)
SCOPES = {REGION: frozenset({NIC, AWAY}), EMPTY: frozenset()}


def passing(raw, base, limit):
    """Give a bridge a memory window: the upper 16 bits of its first and its last address."""
    config = bytearray(raw.config)
    struct.pack_into("<HH", config, 0x20, base, limit)
    return attrs.evolve(raw, config=bytes(config))


@pytest.fixture(name="state")
def the_state():
    state = MachineState(Memory(Ledger("boot")))
    state.load(
        [
            passing(bridge(str(PORT), 2, 4), 0xFE00, 0xFE10),
            passing(bridge(str(SWITCH), 3, 3, parent=str(PORT)), 0xFE10, 0xFE10),
            device(str(NIC), [(0xFE00_0000, 0x800)], parent=str(PORT)),
            device(str(BELOW), [(0xFE10_0000, 0x1000)], parent=str(SWITCH)),
            with_vfs(device(str(PF), [(0xFE20_0000, 0x1000)]), 0xFE30_0000, 0x1000),
            device(str(VF), physfn=str(PF), vendor=0xFFFF),
            device(str(NEAR), [(0xFE00_0800, 0x800), (0x7FFF_1000, 0x1000)]),
        ]
    )
    return state


def pages(kind, sbdf, frames=NEXT_TO_IT):
    return kind(sbdf, "why", "place", 0, frames)


#   action, the functions beside its own
CONCERNED = [
    (AddDevice(NIC, "why"), set()),
    (AddDevice(VF, "why", physfn=PF), {PF}),
    (AddDevice(AWAY, "why", moved_from=BELOW), {BELOW, SWITCH, PORT}),
    (AddDevice(AWAY, "why", moved_from=NIC, physfn=PF), {NIC, PORT, PF}),
    (RemoveDevice(PF, "why"), {VF}),
    (RemoveDevice(NIC, "why"), {AWAY}),
    (pages(MapMmio, NIC), {NEAR}),
    (pages(UnmapMmio, NIC), {NEAR}),
    (pages(UnmapMmio, AWAY), {NIC, NEAR}),
    (pages(MapMmio, VF, Frames(Gfn(0xFE300), 1)), {PF}),
    (pages(MapMmio, NIC, Frames(Gfn(0xFE400), 1)), set()),
    (WithdrawReserved(NIC, "why", REGION), {AWAY, NEAR}),
    (RestoreReserved(NIC, "why", REGION), {AWAY, NEAR}),
    (WithdrawReserved(NIC, "why", EMPTY), set()),
    (WithdrawReserved(NIC, "why", Frames(Gfn(0x10), 1)), set()),
    (CheckUnmapped(NIC, "why", REGION, region=True), {AWAY, NEAR}),
    (CheckUnmapped(AWAY, "why", Frames(Gfn(REGION.end - 1), 1), region=False), {NIC, NEAR}),
    (CheckUnmapped(NIC, "why", Frames(Gfn(0x10), 1), region=False), set()),
    (RewriteBar(PORT, "why", 0, Address(0), Address(0x1000)), {SWITCH, NIC, BELOW}),
    (RewriteBar(SWITCH, "why", 0, Address(0), Address(0x1000)), {BELOW}),
    (RewriteBar(NIC, "why", 0, Address(0), Address(0x1000)), set()),
    (RewriteBar(NIC, "why", 0, Address(0), Address(0xFE00_0800), 0x800), {SWITCH}),
    (RewriteBar(NIC, "why", 0, Address(0), Address(0xFE10_0800), 0x800), {SWITCH, BELOW}),
    (RewriteBar(BELOW, "why", 0, Address(0), Address(0xFE10_0800), 0x800), set()),
]


@pytest.mark.parametrize(("action", "others"), CONCERNED)
def test_an_action_concerns_its_function_and_those_that_can_speak_against_it(state, action, others):
    assert concerned_functions(action, state, SCOPES) == {action.sbdf, *others}


@pytest.mark.parametrize(
    ("action", "addresses"),
    [
        (AddDevice(NIC, ""), {NIC}),
        (AddDevice(AWAY, "", moved_from=NIC, physfn=PF), {AWAY, NIC}),
        (RemoveDevice(NIC, "", moved_to=AWAY), {AWAY, NIC}),
        (RemoveDevice(NIC, ""), {NIC}),
        (pages(MapMmio, NIC), {NIC}),
    ],
)
def test_an_action_names_the_addresses_of_linux_and_of_xen(action, addresses):
    assert addresses_of(action) == addresses
