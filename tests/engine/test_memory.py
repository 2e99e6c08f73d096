"""What a dry run shares with the memory, and what it has for itself."""

import copy

import attrs
import pytest

from pcipt.engine.memory import Memory
from pcipt.firmware.coverage import snapshot_from_machine
from pcipt.pci import Address, Frames, Gfn, Range, decode_machine, parse_sbdf
from pcipt.remap.actions import AddDevice, MapMmio
from pcipt.remap.ledger import Ledger
from pcipt.remap.life import Event
from pcipt.remap.vpci.trapped import Trapped, Unread

NIC, DISK = parse_sbdf("01:00.0"), parse_sbdf("02:00.0")
PAGES = Frames(Gfn(0xC0000), 2)
SPAN = Range(Address(0xC000_0000), 0x2000)


def memory():
    return Memory(
        Ledger("boot"),
        boot=snapshot_from_machine("boot", decode_machine([])),
        removed={NIC},
        unserved={DISK},
        vacated={"nic": NIC},
        bridge_numbers={"port": (2, 4)},
        conventional={"port"},
        outside_window={"nic": frozenset({1})},
        given_up={"port"},
        trapped=Trapped({"nic": {0: SPAN}}, {"nic": {1}}, {"nic": {2: SPAN}}, {"new": Unread(DISK)}),
        left_guests={NIC: 3},
        faulted={PAGES: {"nic"}},
        unproven={"nic"},
    )


def test_the_mapped_pages_are_those_of_the_ledger():
    held = memory()
    held.ledger.noted(MapMmio(NIC, "", "nic", 0, PAGES), "now")
    assert held.mapped is held.ledger.mapped
    assert [run.frames for run in held.mapped] == [PAGES]


def test_a_copy_is_equal():
    held = memory()
    held.ledger.messages_lost = "yesterday"
    assert held.copy() == held
    assert held.copy().ledger.messages_lost == "yesterday"


def test_what_a_copy_does_to_the_ledger_stays_with_the_copy():
    held = memory()
    copied = held.copy()
    copied.ledger.step(AddDevice(DISK, ""), Event.INTEND)
    copied.ledger.noted(MapMmio(NIC, "", "nic", 0, PAGES), "now")
    assert (held.ledger.entries, len(held.mapped)) == ((), 0)
    assert (len(copied.ledger.entries), len(copied.mapped)) == (1, 1)


@pytest.mark.parametrize("name", ["vacated", "outside_window", "unproven", "faulted"])
def test_what_a_copy_forgets_stays_in_the_memory(name):
    held = memory()
    before = copy.copy(getattr(held, name))
    getattr(held.copy(), name).clear()
    assert getattr(held, name) == before
    assert before


@pytest.mark.parametrize(
    "name", ["boot", "intents", "removed", "unserved", "bridge_numbers", "left_guests", "held_regions"]
)
def test_what_only_readings_write_is_shared_with_a_copy(name):
    held = memory()
    assert getattr(held.copy(), name) is getattr(held, name)


def test_what_a_copy_notes_of_vpci_stays_with_the_copy():
    held = memory()
    copied = held.copy().trapped
    assert copied == memory().trapped
    for noted in (copied.counted, copied.unmapped["nic"], copied.mapped["nic"], copied.unread):
        noted.clear()
    assert held.trapped == memory().trapped


def test_a_new_memory_holds_a_ledger_and_nothing_else():
    fresh = Memory(Ledger("boot"))
    assert fresh.boot is None
    for field in attrs.fields(Memory):
        if field.name not in ("ledger", "boot", "inherited"):
            held = getattr(fresh, field.name)
            assert held == 0 if isinstance(held, int) else len(held) == 0, field.name
