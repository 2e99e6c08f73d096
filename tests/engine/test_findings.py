"""Findings kept by function: what is new, what is gone, how many."""

from hypothesis import given
from hypothesis import strategies as st

from pcipt.engine.findings import Findings
from pcipt.pci import Finding, parse_sbdf

NIC, DISK = parse_sbdf("01:00.0"), parse_sbdf("02:00.0")
ONE, OTHER = Finding("ghost", "one"), Finding("orphan", "other")


def test_the_services_own_come_first_then_addresses():
    held = Findings()
    held.put(DISK, [ONE])
    held.put(NIC, [OTHER])
    held.put(None, [ONE])
    assert held.all() == [(None, ONE), (NIC, OTHER), (DISK, ONE)]
    assert len(held) == 3


def test_news_are_told_once():
    held = Findings()
    held.put(NIC, [ONE])
    assert held.news() == ([(NIC, ONE)], [])
    held.put(NIC, [ONE])
    assert held.news() == ([], [])
    held.put(NIC, [OTHER])
    assert held.news() == ([(NIC, OTHER)], [(NIC, ONE)])


def test_what_came_and_went_between_two_questions_is_no_news():
    held = Findings()
    held.put(NIC, [ONE])
    held.put(NIC, [])
    assert held.news() == ([], [])
    assert len(held) == 0


@given(st.lists(st.tuples(st.sampled_from([None, NIC, DISK]), st.lists(st.sampled_from([ONE, OTHER])))))
def test_news_add_up_to_what_is_held(changes):
    held, told = Findings(), set()
    for number, (subject, findings) in enumerate(changes):
        held.put(subject, findings)
        if number % 3 == 0:
            new, gone = held.news()
            told = told - set(gone) | set(new)
    new, gone = held.news()
    assert told - set(gone) | set(new) == set(held.all())
    assert len(held) == len(held.all())
