"""Findings kept by function: what is new, what is gone, how many."""

from hypothesis import given
from hypothesis import strategies as st

from pcipt.engine.findings import Complaints
from pcipt.pci import Finding, parse_sbdf

NIC, DISK = parse_sbdf("01:00.0"), parse_sbdf("02:00.0")
ONE, OTHER = Finding("ghost", "one"), Finding("orphan", "other")


def test_the_services_own_come_first_then_addresses():
    complaints = Complaints()
    complaints.put(DISK, [ONE])
    complaints.put(NIC, [OTHER])
    complaints.put(None, [ONE])
    assert complaints.all() == [(None, ONE), (NIC, OTHER), (DISK, ONE)]
    assert len(complaints) == 3


def test_news_are_told_once():
    complaints = Complaints()
    complaints.put(NIC, [ONE])
    assert complaints.news() == ([(NIC, ONE)], [])
    complaints.put(NIC, [ONE])
    assert complaints.news() == ([], [])
    complaints.put(NIC, [OTHER])
    assert complaints.news() == ([(NIC, OTHER)], [(NIC, ONE)])


def test_what_came_and_went_between_two_questions_is_no_news():
    complaints = Complaints()
    complaints.put(NIC, [ONE])
    complaints.put(NIC, [])
    assert complaints.news() == ([], [])
    assert len(complaints) == 0


@given(st.lists(st.tuples(st.sampled_from([None, NIC, DISK]), st.lists(st.sampled_from([ONE, OTHER])))))
def test_news_add_up_to_what_is_held(changes):
    complaints, told = Complaints(), set()
    for number, (subject, findings) in enumerate(changes):
        complaints.put(subject, findings)
        if number % 3 == 0:
            new, gone = complaints.news()
            told = told - set(gone) | set(new)
    new, gone = complaints.news()
    assert told - set(gone) | set(new) == set(complaints.all())
    assert len(complaints) == len(complaints.all())
