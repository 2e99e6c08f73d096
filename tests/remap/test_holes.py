"""What is remembered of unmapped pages, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.remap.actions import CheckUnmapped, RestoreReserved, UnmapMmio, WithdrawReserved
from pcipt.remap.holes import CHECKS, SAMPLE, Hole, Holes, finding_of_hole, holes_from, plan_checks, sample_of
from pcipt.remap.ledger import Ledger
from pcipt.remap.life import Event

NIC, DISK = parse_sbdf("01:00.0"), parse_sbdf("02:00.0")
PAGES, REGION = Frames(Gfn(0xC0000), 4), Frames(Gfn(0x7D000), 2)
UNMAP, WITHDRAW = UnmapMmio(NIC, "why", "nic", 0, PAGES), WithdrawReserved(DISK, "why", REGION)


def both():
    holes = Holes()
    holes.made(UNMAP)
    holes.made(WITHDRAW)
    return holes


def checks(holes):
    return plan_checks(holes.functions, holes)


def test_each_hole_is_planned_for_with_its_kind():
    assert [(c.sbdf, c.frames, c.region) for c in checks(both())] == [
        (NIC, PAGES, False), (DISK, REGION, True),
    ]  # fmt: skip
    assert plan_checks([DISK], both()) == checks(both())[1:]


@pytest.mark.parametrize("returned", [0, 3])
def test_a_hole_is_looked_at_three_times_and_on_while_it_comes_back(returned):
    holes = both()
    for _ in range(CHECKS):
        (check,) = plan_checks([NIC], holes)
        holes.checked(check, returned)
    assert bool(plan_checks([NIC], holes)) is bool(returned)
    assert holes.returned == CHECKS * returned
    for check in plan_checks([NIC], holes):
        holes.checked(check, 0)
    assert plan_checks([NIC], holes) == []


@pytest.mark.parametrize("frames", [PAGES, Frames(Gfn(0xC0003), 9), Frames(Gfn(0xBFFFF), 2)])
def test_pages_that_are_needed_again_are_no_hole(frames):
    holes = both()
    holes.filled(frames)
    assert [hole.sbdf for hole in holes] == [DISK]
    assert not holes.holds(CheckUnmapped(NIC, "", PAGES, region=False))
    holes.checked(CheckUnmapped(NIC, "", PAGES, region=False), 1)  # it is not made again by a late answer
    assert holes.functions == {DISK}


def test_pages_beside_a_hole_leave_it():
    holes = both()
    holes.filled(Frames(Gfn(0xC0004), 1))
    holes.filled(Frames(Gfn(0xBFFFF), 1))
    assert holes.functions == {NIC, DISK}


def test_a_new_unmap_over_a_hole_takes_its_place():
    holes = both()
    for check in checks(holes):
        holes.checked(check, 1)
    holes.made(UnmapMmio(NIC, "why", "nic", 0, Frames(Gfn(0xC0002), 4)))
    assert [(hole.frames.start, hole.checks) for hole in holes.of(NIC)] == [(0xC0002, 0)]


def test_a_copy_is_equal_and_its_own():
    holes = both()
    copied = holes.copy()
    assert copied == holes
    copied.filled(PAGES)
    assert copied != holes
    assert holes.functions == {NIC, DISK}


def test_a_ledger_tells_of_withdrawn_regions_only():
    ledger = Ledger("boot")
    assert list(holes_from(ledger)) == []
    ledger.step(WITHDRAW, Event.INTEND)
    assert list(holes_from(ledger)) == []  # it may not have been done
    ledger.step(WITHDRAW, Event.PERFORMED)
    assert list(holes_from(ledger)) == [Hole(DISK, REGION, region=True)]
    ledger.noted(RestoreReserved(DISK, "back", REGION))
    assert list(holes_from(ledger)) == []


def test_a_check_leaves_nothing_in_the_ledger():
    ledger, check = Ledger("boot"), CheckUnmapped(DISK, "why", REGION, region=True)
    ledger.step(check, Event.INTEND)
    assert [entry.word for entry in ledger.entries] == ["check-unmapped"]
    assert ledger.reconciled(frozenset()).entries == ()
    ledger.step(check, Event.PERFORMED)
    assert ledger.entries == ()


def test_only_what_came_back_is_a_finding():
    assert finding_of_hole(Hole(NIC, PAGES, region=False, checks=1)) is None
    for region, word in ((True, "reserved region"), (False, "unmapped memory")):
        told = finding_of_hole(Hole(NIC, PAGES, region=region, checks=1, returned=2))
        assert told.code == "unmap-undone"
        assert word in told.text
        assert "dom0=no-pf-fixup" in told.text


@given(st.integers(0, 1 << 30), st.integers(1, 5000))
def test_the_pages_looked_at_are_few_and_from_the_hole(start, count):
    frames = Frames(Gfn(start), count)
    sample = sample_of(frames)
    assert sample[0].start == start
    assert len(set(sample)) == len(sample) == min(count, SAMPLE)
    assert all(page.count == 1 and frames.start <= page.start < frames.end for page in sample)
