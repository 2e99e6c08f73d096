"""What an entry means on a machine: the expected function, or nothing."""

import attrs

from pcipt.pci import Ids, PciPath, Sbdf
from pcipt.pci.identity import NO_SERIAL
from pcipt.pci.policy.entries import Entry, insisted_on
from pcipt.pci.policy.resolve import State, findings_of, mismatch_text, resolve
from tests.pci.policy.identities import IDS, NIC, PATH, SERIAL, identity

ENTRY = Entry(insisted_on(identity()), "web")
OTHER_PATH = PciPath(0, ((0, 0x1D, 0), (0, 0, 0)))


def one(machine, entry=ENTRY):
    (found,) = resolve([entry], machine)
    return found


def test_the_expected_function_is_found_at_any_address():
    for bus in (3, 4, 0x80):
        found = one({Sbdf(0, bus, 0, 0): identity(), Sbdf(0, 9, 0, 0): identity(OTHER_PATH, serial=1)})
        assert (found.state, found.kept) == (State.PRESENT, Sbdf(0, bus, 0, 0))


def test_another_device_at_the_place_is_bound_by_nobody():
    for other in (
        identity(ids=Ids(0x8086, 0x10D3)),
        identity(ids=attrs.evolve(IDS, revision=4)),
        identity(serial=7),
        identity(serial=None),
        identity(serial=NO_SERIAL),
    ):
        found = one({NIC: other})
        assert (found.state, found.sbdf, found.kept) == (State.MISMATCH, NIC, None)
        assert [code for _, (code, _) in ((s, (f.code, f.text)) for s, f in findings_of([found]))] == [
            "policy-mismatch"
        ]


def test_a_card_without_a_number_is_not_one_with_a_number():
    entry = Entry(insisted_on(identity(serial=NO_SERIAL)))
    assert one({NIC: identity(serial=NO_SERIAL)}, entry).kept == NIC
    for serial in (SERIAL, None):
        assert one({NIC: identity(serial=serial)}, entry).state is State.MISMATCH


def test_nothing_is_at_the_place():
    for machine in (
        {},
        {NIC: identity(OTHER_PATH)},
        {NIC: identity(None)},
        {NIC: identity(root="\\_SB_.PC01")},
    ):
        found = one(machine)
        assert (found.state, found.kept, findings_of([found])) == (State.ABSENT, None, [])


def test_a_host_bridge_with_another_number_is_followed_by_its_name():
    moved = identity(PciPath(0, ((0x40, 0x1C, 0), (0, 0, 0))))
    usurper = identity(PATH, "\\_SB_.PC01", serial=None)
    assert one({Sbdf(0, 0x43, 0, 0): moved, NIC: usurper}).kept == Sbdf(0, 0x43, 0, 0)
    unnamed = Entry(attrs.evolve(ENTRY.expected, root=None, serial=None))
    assert one({Sbdf(0, 0x43, 0, 0): moved}, unnamed).state is State.ABSENT


def test_two_functions_at_one_place_are_not_chosen_between():
    assert one({NIC: identity(), Sbdf(0, 9, 0, 0): identity()}).kept is None


def test_a_swap_is_told_with_the_new_place_of_the_expected_card():
    machine = {NIC: identity(serial=7), Sbdf(0, 5, 0, 0): identity(OTHER_PATH)}
    found = one(machine)
    assert (found.state, found.kept, found.moved) == (State.MISMATCH, None, Sbdf(0, 5, 0, 0))
    text = mismatch_text(found)
    assert "0000:05:00.0" in text
    assert "another serial number" in text
    assert "00-1b" not in text
    assert "00-1b-21-ff-ff-30-4c-d8" in mismatch_text(found, secret=True)
    assert one({Sbdf(0, 5, 0, 0): identity(OTHER_PATH)}).moved == Sbdf(0, 5, 0, 0)
    assert one({Sbdf(0, 5, 0, 1): identity(OTHER_PATH)}).moved is None  # another function of the card


def test_both_identities_are_told():
    text = mismatch_text(one({NIC: identity(ids=Ids(0x1AF4, 0x1000, None, 1))}))
    assert "8086:1533, subsystem 15d9:1533, revision 03" in text
    assert "1af4:1000, revision 01" in text
    assert "guest web" in text
    assert SERIAL.to_bytes(8, "big").hex("-") not in text
