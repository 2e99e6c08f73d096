"""Looking again, on a clock of the test."""

from pcipt.engine.handovers import LOOKS, PAUSES, Handovers
from pcipt.pci import parse_sbdf

NIC, DISK = parse_sbdf("01:00.0"), parse_sbdf("02:00.0")


def run(handovers, owners, clinging=()):
    """Look whenever it is due, as long as it is; gives when."""
    looks = []
    while handovers.due is not None:
        looks.append(handovers.due)
        handovers.looked(owners, clinging, handovers.due)
    return looks


def test_an_owner_that_stays_is_looked_at_three_times_within_two_seconds():
    handovers = Handovers()
    handovers.begin({NIC: "dom0"}, [], 0.0)
    looks = run(handovers, {NIC: "dom0"})
    assert len(looks) == LOOKS
    assert looks[-1] < 2
    assert handovers.waiting == set()


def test_it_ends_when_the_owner_has_changed_or_the_function_is_bound_to_another_driver():
    for owners in ({NIC: "quarantine"}, {}):
        handovers = Handovers()
        handovers.begin({NIC: "dom0"}, [], 0.0)
        assert len(run(handovers, owners)) == 1


def test_the_first_owner_counts_and_looking_begins_anew():
    handovers = Handovers()
    handovers.begin({NIC: "guest 3"}, [], 0.0)
    handovers.looked({NIC: "guest 3"}, [], 0.2)
    handovers.begin({NIC: "quarantine", DISK: "quarantine"}, [], 0.3)
    assert handovers.due == 0.3 + PAUSES[0]
    handovers.looked({NIC: "quarantine", DISK: "quarantine"}, [], 0.5)
    assert handovers.waiting == {DISK}


def test_what_a_guest_clings_to_is_looked_at_longer():
    handovers = Handovers()
    handovers.begin({}, [NIC], 0.0)
    assert run(handovers, {}, [NIC])[-1] == sum(PAUSES)
    handovers.begin({}, [NIC], 100.0)
    assert len(run(handovers, {})) == 1


def test_nothing_to_wait_for():
    handovers = Handovers()
    handovers.begin({}, [], 0.0)
    assert handovers.due is None
