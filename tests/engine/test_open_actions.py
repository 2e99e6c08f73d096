"""Actions that are planned and not done: kept by function, told once, found by their pages."""

import pytest

from pcipt.engine.open_actions import OpenActions, finding_of_action, key_of, subject_of
from pcipt.pci import Address, Finding, Frames, Gfn, parse_sbdf
from pcipt.remap.actions import (
    AddDevice,
    MapMmio,
    Outcome,
    RemoveDevice,
    RestoreReserved,
    Result,
    RewriteBar,
    UnmapMmio,
    WithdrawReserved,
)

NIC, DISK, AWAY = map(parse_sbdf, ("01:00.0", "02:00.0", "05:00.0"))
LOW, HIGH, MIDDLE = Frames(Gfn(0xC0000), 2), Frames(Gfn(0xC0004), 2), Frames(Gfn(0xC0001), 4)
ADD, REMOVE = AddDevice(NIC, "why"), RemoveDevice(NIC, "why")
FOLLOW, LEAVE = AddDevice(AWAY, "why", moved_from=NIC), RemoveDevice(NIC, "why", moved_to=AWAY)
MAP, UNMAP = MapMmio(NIC, "why", "nic", 0, LOW), UnmapMmio(NIC, "why", "nic", 1, HIGH)
REWRITE = RewriteBar(NIC, "why", 2, before=Address(0x1000), address=Address(0xC000_0000))
WITHDRAW, RESTORE = WithdrawReserved(NIC, "why", LOW), RestoreReserved(NIC, "why", LOW)
OPEN, OVER = [Result.REFUSED, Result.FAILED, Result.PLANNED], [Result.DONE, Result.NOT_APPLICABLE]


def outcome(action, result=Result.REFUSED, detail="no"):
    return Outcome(action, result, detail)


def put(held, *outcomes, scope=(NIC, DISK), listed=None, planned=()):
    actions = [*planned, *(each.action for each in outcomes)]
    return held.replace(actions, outcomes, scope, listed=listed)


@pytest.mark.parametrize(
    ("action", "key"),
    [
        (ADD, ("add-device", NIC, -1, -1)),
        (REMOVE, ("remove-device", NIC, -1, -1)),
        (MAP, ("map-mmio", NIC, 0, LOW.start)),
        (UNMAP, ("unmap-mmio", NIC, 1, HIGH.start)),
        (REWRITE, ("rewrite-bar", NIC, 2, 0xC000_0000)),
        (WITHDRAW, ("withdraw-reserved", NIC, -1, LOW.start)),
        (RESTORE, ("restore-reserved", NIC, -1, LOW.start)),
    ],
)
def test_the_key_of_an_action_names_what_it_is_about(action, key):
    assert key_of(action) == key


@pytest.mark.parametrize(
    ("action", "subject"), [(ADD, NIC), (FOLLOW, NIC), (REMOVE, NIC), (LEAVE, NIC), (MAP, NIC)]
)
def test_the_subject_of_an_action_is_the_address_that_linux_has(action, subject):
    assert subject_of(action) == subject


#   action, result, code, words of the finding
FINDINGS = [
    (MAP, Result.REFUSED, "not-mapped", f"BAR 0 decodes at {LOW} and is not mapped: no"),
    (MAP, Result.FAILED, "not-mapped", f"BAR 0 decodes at {LOW} and is not mapped: no"),
    (UNMAP, Result.REFUSED, "stale-mapping", f"{HIGH} is still mapped for BAR 1: no"),
    (UNMAP, Result.FAILED, "stale-mapping", f"{HIGH} is still mapped for BAR 1: no"),
    (
        RESTORE,
        Result.REFUSED,
        "region-missing",
        f"the reserved region {LOW} is not mapped, so DMA of its devices may be refused: no",
    ),
    (
        WITHDRAW,
        Result.REFUSED,
        "region-left",
        f"the reserved region {LOW} is still mapped, though no device in dom0 needs it: no",
    ),
    (
        WITHDRAW,
        Result.FAILED,
        "region-left",
        f"the reserved region {LOW} may still be mapped, though no device in dom0 needs it: no",
    ),
]


@pytest.mark.parametrize(("action", "result", "code", "text"), FINDINGS)
def test_pages_that_are_not_as_they_should_be_are_a_finding(action, result, code, text):
    assert finding_of_action(outcome(action, result)) == Finding(code, text)


@pytest.mark.parametrize("action", [ADD, REMOVE, REWRITE])
@pytest.mark.parametrize("result", [Result.REFUSED, Result.FAILED])
def test_what_has_a_finding_of_its_own_elsewhere_has_none_here(action, result):
    assert finding_of_action(outcome(action, result)) is None


@pytest.mark.parametrize("action", [MAP, ADD, REMOVE, REWRITE])
def test_what_may_not_be_needed_is_no_finding_while_the_settings_forbid_it(action):
    assert finding_of_action(outcome(action, Result.PLANNED)) is None


@pytest.mark.parametrize(
    ("action", "code"), [(UNMAP, "stale-mapping"), (WITHDRAW, "region-left"), (RESTORE, "region-missing")]
)
def test_what_is_wrong_is_a_finding_also_if_the_settings_forbid_to_mend_it(action, code):
    finding = finding_of_action(outcome(action, Result.PLANNED))
    assert finding.code == code
    assert finding.text.endswith(": the settings of pcipt do not allow it (mode, actions)")


@pytest.mark.parametrize("result", OPEN)
def test_an_action_that_is_not_done_stays_open_and_is_told_once(result):
    held = OpenActions()
    first = outcome(MAP, result)
    assert put(held, first) == [first]
    assert (held.of(NIC), held.subjects) == ([first], [NIC])
    assert put(held, outcome(MAP, result)) == []
    assert put(held, outcome(MAP, result, "for another reason")) != []


@pytest.mark.parametrize("result", OVER)
def test_an_action_that_is_over_is_told_and_not_kept(result):
    held = OpenActions()
    put(held, outcome(MAP))
    assert put(held, outcome(MAP, result)) == [outcome(MAP, result)]
    assert (held.of(NIC), held.subjects) == ([], [])
    assert held.places_over([LOW]) == {}
    assert put(held, outcome(MAP, result)) == [outcome(MAP, result)]  # done twice is told twice


def test_the_same_reason_with_another_result_is_news():
    held = OpenActions()
    put(held, outcome(MAP, Result.REFUSED))
    assert put(held, outcome(MAP, Result.FAILED)) == [outcome(MAP, Result.FAILED)]
    assert held.of(NIC) == [outcome(MAP, Result.FAILED)]


def test_what_is_not_planned_any_more_lapses():
    held = OpenActions()
    put(held, outcome(MAP), outcome(UNMAP))
    assert put(held, outcome(UNMAP)) == []
    assert held.of(NIC) == [outcome(UNMAP)]
    assert held.places_over([LOW]) == {}


def test_what_is_planned_again_and_was_not_begun_stays_open():
    held = OpenActions()
    put(held, outcome(MAP), outcome(UNMAP))
    assert put(held, planned=[MAP]) == []
    assert held.of(NIC) == [outcome(MAP)]
    assert held.places_over([LOW]) == {"nic": NIC}


def test_open_actions_are_in_the_order_of_the_last_plan():
    """The first reason explains a disagreement, so it must not depend on which action was open before."""
    held, again = OpenActions(), outcome(LEAVE, detail="not there yet")
    put(held, outcome(LEAVE))
    put(held, outcome(FOLLOW), again)
    assert held.of(NIC) == [outcome(FOLLOW), again]


def test_functions_outside_of_the_scope_keep_what_is_open():
    held = OpenActions()
    put(held, outcome(MAP))
    assert put(held, scope=[DISK]) == []
    assert held.of(NIC) == [outcome(MAP)]
    put(held, scope=[NIC])
    assert held.of(NIC) == []


@pytest.mark.parametrize("announcement", [ADD, REMOVE])
@pytest.mark.parametrize(("listed", "stays"), [(set(), True), ({DISK}, True), ({NIC}, False), (None, False)])
def test_an_announcement_lapses_only_if_announcements_were_planned(announcement, listed, stays):
    held = OpenActions()
    put(held, outcome(announcement), outcome(MAP))
    put(held, listed=listed)
    assert held.of(NIC) == ([outcome(announcement)] if stays else [])
    assert held.subjects == ([NIC] if stays else [])
    assert held.places_over([LOW]) == {}


def test_an_announcement_that_stayed_is_told_again_only_if_it_is_different():
    held = OpenActions()
    put(held, outcome(ADD))
    put(held, listed=set())
    assert put(held, outcome(ADD), listed={NIC}) == []


def test_a_renumbered_function_has_its_open_actions_at_the_address_of_linux():
    held = OpenActions()
    put(held, outcome(FOLLOW))
    assert (held.of(NIC), held.of(AWAY)) == ([outcome(FOLLOW)], [])
    put(held, scope=[NIC])
    assert held.subjects == []


def test_places_are_found_by_the_pages_of_their_open_actions():
    held = OpenActions()
    other = MapMmio(DISK, "why", "disk", 0, HIGH)
    put(held, outcome(MAP), outcome(other), outcome(WITHDRAW), outcome(ADD))
    assert held.places_over([LOW]) == {"nic": NIC}
    assert held.places_over([HIGH]) == {"disk": DISK}
    assert held.places_over([MIDDLE]) == {"nic": NIC, "disk": DISK}
    assert held.places_over([LOW, HIGH]) == {"nic": NIC, "disk": DISK}
    assert held.places_over([Frames(Gfn(0xC0002), 2)]) == {}
    assert held.places_over([]) == {}


@pytest.mark.parametrize(
    ("action", "places"),
    [
        (MAP, {"nic": NIC}),
        (UNMAP, {"nic": NIC}),
        (WITHDRAW, {}),
        (RESTORE, {}),
        (ADD, {}),
        (REMOVE, {}),
        (REWRITE, {}),
    ],
)
def test_places_are_found_by_functions_with_open_actions_on_pages(action, places):
    held = OpenActions()
    put(held, outcome(action))
    assert held.places_of([NIC]) == places
    assert held.places_of([DISK]) == {}


@pytest.mark.parametrize(
    ("action", "announces"),
    [(ADD, True), (REMOVE, True), (MAP, False), (UNMAP, False), (WITHDRAW, False), (REWRITE, False)],
)
def test_functions_are_found_by_open_announcements(action, announces):
    held = OpenActions()
    put(held, outcome(action))
    assert held.announcements_among([NIC, DISK]) == ({NIC} if announces else set())
    assert held.announcements_among([DISK]) == set()


def test_an_announcement_is_found_beside_other_open_actions():
    held = OpenActions()
    put(held, outcome(MAP), outcome(ADD))
    assert held.announcements_among([NIC]) == {NIC}


def test_an_open_action_that_comes_again_for_other_pages_is_found_by_those_alone():
    """The first page is the same, so the key is: it is the same action."""
    held = OpenActions()
    longer = MapMmio(NIC, "why", "nic", 0, Frames(LOW.start, 8))
    put(held, outcome(MAP))
    held.replace([longer], [outcome(longer)], [DISK], listed=None)
    assert held.of(NIC) == [outcome(longer)]
    assert held.places_over([HIGH]) == {"nic": NIC}
    held.replace([], [], [NIC], listed=None)
    assert held.places_over([LOW, HIGH]) == {}


def test_an_action_without_pages_that_comes_again_takes_no_pages_away():
    held = OpenActions()
    put(held, outcome(ADD), outcome(MAP))
    held.replace([ADD], [outcome(ADD, detail="still")], [DISK], listed=None)
    assert held.places_over([LOW]) == {"nic": NIC}
    assert held.of(NIC) == [outcome(ADD, detail="still"), outcome(MAP)]


FOUND = Finding("unknown-to-xen", "Xen does not know it")


@pytest.mark.parametrize(
    ("outcomes", "text"),
    [
        ([], "Xen does not know it"),
        ([outcome(ADD)], "Xen does not know it; not repaired: no"),
        ([outcome(REMOVE, detail="a guest has it")], "Xen does not know it; not repaired: a guest has it"),
        ([outcome(ADD, Result.PLANNED, "")], "Xen does not know it"),
        ([outcome(MAP)], "Xen does not know it"),
        ([outcome(MAP, detail="over RAM"), outcome(ADD)], "Xen does not know it; not repaired: no"),
        (
            [outcome(ADD, detail="one"), outcome(REMOVE, detail="two")],
            "Xen does not know it; not repaired: one",
        ),
    ],
)
def test_a_disagreement_is_explained_by_the_announcement_that_was_not_made(outcomes, text):
    held = OpenActions()
    put(held, *outcomes)
    assert held.explained(NIC, FOUND) == Finding("unknown-to-xen", text)
    assert held.explained(DISK, FOUND) == FOUND


@pytest.mark.parametrize(("action", "pages"), [(MAP, LOW), (UNMAP, HIGH)])
def test_pages_to_map_and_pages_to_unmap_are_found_and_forgotten_alike(action, pages):
    held = OpenActions()
    put(held, outcome(action))
    assert held.places_over([pages]) == {"nic": NIC}
    put(held)
    assert held.places_over([pages]) == {}


def test_relatives_are_looked_for_only_if_others_may_have_an_open_action():
    one, other = parse_sbdf("00:06.0"), parse_sbdf("00:07.0")
    actions = OpenActions()
    assert not actions.concern_others([])
    assert not actions.concern_others([one])
    assert actions.concern_others([one, other])
    action = AddDevice(one, "why")
    actions.replace([action], [Outcome(action, Result.REFUSED, "no")], [one], listed=None)
    assert not actions.concern_others([one])
    assert actions.concern_others([other])
