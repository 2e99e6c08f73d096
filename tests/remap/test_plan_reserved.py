"""What is withdrawn and restored: each row of the life of a region, as Xen's rules have it."""

import attrs
import pytest

from pcipt.pci import decode_machine, parse_sbdf
from pcipt.remap.actions import RestoreReserved, WithdrawReserved
from pcipt.remap.ledger import Event, Ledger
from pcipt.remap.ledger_json import ledger_from_json, ledger_to_json
from pcipt.remap.plan_reserved import Kept, Locations, kept_in, plan_reserved
from tests.machines import function
from tests.remap.devices import S, frames, known

NIC, OTHER = S("01:00.0"), S("00:06.0")
ONE, SHARED = frames(0x7FFF_0000, 4), frames(0x7FFF_8000, 2)
SCOPES = {ONE: frozenset({NIC}), SHARED: frozenset({NIC, OTHER})}
INTENDED, DONE, FAILED = (Event.INTEND,), (Event.INTEND, Event.PERFORMED), (Event.INTEND, Event.FAILED)


def withdraw(region, sbdf=NIC):
    return WithdrawReserved(sbdf, "", region)


def withdraw_uncounted(region):
    return attrs.evolve(withdraw(region), counted=False)


def restore(region, sbdf=NIC):
    return RestoreReserved(sbdf, "", region)


def ledger(*steps):
    made = Ledger("boot")
    for action, events in steps:
        for event in events:
            made.step(action, event)
    return made


def machine(**drivers):
    raws = [function("01:00.0"), function("00:06.0")]
    return decode_machine([attrs.evolve(r, driver=drivers.get(f"f{r.sbdf.bus:x}")) for r in raws])


BOTH = machine()
GIVEN = machine(f1="pciback")
NEITHER = decode_machine([])
DOM0S = known("01:00.0", "00:06.0")
QUARANTINED = attrs.evolve(DOM0S, quarantined=frozenset({NIC}))
ALL_QUARANTINED = attrs.evolve(DOM0S, quarantined=frozenset({NIC, OTHER}))
GUESTS = attrs.evolve(DOM0S, elsewhere={NIC: "guest 3"})
OUT = ((withdraw(ONE), DONE), (withdraw(SHARED), DONE))

#   machine, Xen's view, ledger, what is planned: word and region
CASES = [
    (BOTH, DOM0S, ledger(), []),  # as Xen has it at boot
    (GIVEN, DOM0S, ledger(), []),  # bound to pciback, but still dom0's (iommu=no-quarantine)
    (GIVEN, QUARANTINED, ledger(), [("withdraw", ONE)]),  # the shared one stays for the other device
    (GIVEN, GUESTS, ledger(), [("withdraw", ONE)]),
    (GIVEN, ALL_QUARANTINED, ledger(), [("withdraw", ONE), ("withdraw", SHARED)]),
    (GIVEN, QUARANTINED, ledger((withdraw(ONE), DONE)), []),  # said once
    (GIVEN, QUARANTINED, ledger((withdraw(ONE), INTENDED)), [("withdraw", ONE)]),  # killed in between
    (GIVEN, QUARANTINED, ledger((withdraw(ONE), FAILED)), [("withdraw", ONE)]),
    (GIVEN, QUARANTINED, ledger(OUT[0], (restore(ONE), INTENDED)), [("withdraw", ONE)]),
    (GIVEN, QUARANTINED, ledger(OUT[0], (restore(ONE), DONE)), [("withdraw", ONE)]),  # it left once more
    (BOTH, DOM0S, ledger(*OUT), [("restore", ONE), ("restore", SHARED)]),
    (BOTH, DOM0S, ledger((withdraw(ONE), INTENDED)), [("restore", ONE)]),  # nobody knows: mapping is harmless
    (BOTH, DOM0S, ledger(OUT[0], (restore(ONE), FAILED)), [("restore", ONE)]),
    (BOTH, DOM0S, ledger(OUT[0], (restore(ONE), DONE)), []),
    (GIVEN, QUARANTINED, ledger(*OUT), [("restore", SHARED)]),  # the other one came back first
    (
        NEITHER,
        known(),
        ledger(),
        [("withdraw", ONE), ("withdraw", SHARED)],
    ),  # unplugged: a reference may stay
    (NEITHER, known("01:00.0"), ledger(), []),  # a ghost: Xen has it for dom0 still
    (BOTH, known(), ledger(), []),  # Xen was made to forget what Linux has: a doubt
    (BOTH, known("01:00.0", "00:06.0", orphans=frozenset({NIC})), ledger(), []),  # likewise
    (GIVEN, known("00:06.0"), ledger(), [("withdraw", ONE)]),  # given away, and unknown to Xen
    (BOTH, DOM0S, ledger((withdraw_uncounted(ONE), DONE)), [("restore", ONE)]),
    (GIVEN, QUARANTINED, ledger((withdraw_uncounted(ONE), DONE)), [("withdraw", ONE)]),  # Xen may have mapped
    (NEITHER, known(), ledger((withdraw_uncounted(ONE), DONE)), [("withdraw", SHARED)]),
]


@pytest.mark.parametrize(("there", "view", "held", "planned"), CASES)
def test_what_is_planned(there, view, held, planned):
    plan = plan_reserved(SCOPES, there, view, held)
    assert [(action.word.removesuffix("-reserved"), action.frames) for action in plan] == planned


def test_what_is_claimed_comes_back_before_its_device_does_and_stays():
    (action,) = plan_reserved({ONE: frozenset({NIC})}, GIVEN, QUARANTINED, ledger(*OUT), claimed=[ONE])
    assert isinstance(action, RestoreReserved)
    assert "about to return" in action.reason
    held = ledger(OUT[0], (restore(ONE), DONE))
    assert plan_reserved({ONE: frozenset({NIC})}, GIVEN, QUARANTINED, held, claimed=[ONE]) == ()


def test_a_region_of_which_no_device_is_known_is_left_alone():
    assert plan_reserved({ONE: frozenset()}, BOTH, DOM0S, ledger()) == ()
    (action,) = plan_reserved({ONE: frozenset(), SHARED: SCOPES[SHARED]}, NEITHER, known(), ledger())
    assert action.frames == SHARED


@pytest.mark.parametrize(("changed", "about"), [((), "00:06.0"), ([NIC], "01:00.0"), ([OTHER], "00:06.0")])
def test_a_region_that_comes_back_is_about_a_device_that_needs_it(changed, about):
    (action,) = plan_reserved({SHARED: SCOPES[SHARED]}, BOTH, DOM0S, ledger(OUT[1]), changed=changed)
    assert (action.sbdf, action.reason) == (
        parse_sbdf(about),
        f"0000:{about} is dom0's again and needs the region",
    )
    (action,) = plan_reserved(
        {SHARED: SCOPES[SHARED]}, GIVEN, QUARANTINED, ledger(OUT[1]), changed=[NIC]
    )  # NIC has changed, and OTHER alone needs it
    assert action.sbdf == OTHER


def test_a_region_with_one_device_has_left_with_it():
    (action,) = plan_reserved({ONE: frozenset({NIC})}, NEITHER, known(), ledger())
    assert action.reason == f"its only device has left dom0: {NIC} has left the machine"


@pytest.mark.parametrize(
    ("there", "view", "words"),
    [
        (GIVEN, ALL_QUARANTINED, f"the last of its devices has left dom0: {NIC} belongs to quarantine"),
        (GIVEN, attrs.evolve(ALL_QUARANTINED, elsewhere={NIC: "guest 3"}, quarantined={OTHER}), "guest 3"),
        (NEITHER, known(), f"{NIC} has left the machine"),
    ],
)
def test_a_withdrawal_is_about_the_device_that_left(there, view, words):
    (action,) = plan_reserved({SHARED: SCOPES[SHARED]}, there, view, ledger(), changed={NIC})
    assert action.sbdf == NIC
    assert words in action.reason


AWAY = Locations(moves={NIC: S("02:00.0")})
HOME = Locations(lambda sbdf: S("00:06.0") if sbdf == NIC else sbdf)


@pytest.mark.parametrize(
    ("there", "view", "held", "where", "planned"),
    [
        (BOTH, known("02:00.0"), ledger(), AWAY, [(NIC, False)]),  # its bus was renumbered
        (BOTH, known("01:00.0", "02:00.0"), ledger(), AWAY, []),  # Xen has forgotten nothing yet
        (BOTH, known(), ledger(), AWAY, []),  # its DMA is stopped
        (BOTH, known("02:00.0"), ledger((restore(ONE), DONE)), AWAY, [(NIC, False)]),
        (BOTH, known("02:00.0"), ledger((attrs.evolve(restore(ONE), counted=False), DONE)), AWAY, []),
        (BOTH, known("00:06.0"), ledger(), HOME, [(OTHER, False)]),  # Linux has found it at another number
    ],
)
def test_what_xen_has_unmapped_is_restored_for_a_device_that_xen_has_elsewhere(
    there, view, held, where, planned
):
    scopes = {ONE: frozenset({NIC})}
    plan = plan_reserved(scopes, there, view, held, where=where)
    assert [(action.sbdf, action.counted) for action in plan if action.word == "restore-reserved"] == planned
    assert plan_reserved(scopes, there, view, held, where=where, pvh=False) == ()


def test_another_device_at_the_address_does_not_need_it():
    where = Locations(lambda _sbdf: None)
    (action,) = plan_reserved({ONE: frozenset({NIC})}, BOTH, DOM0S, ledger(), where=where)
    assert (action.word, action.counted) == ("withdraw-reserved", True)
    assert "does not need the region" in action.reason


def test_the_count_of_a_withdrawn_region_is_forgotten_once():
    held = ledger((withdraw(ONE), DONE))
    assert kept_in(held, ONE) is Kept.WITHDRAWN
    assert [held.forget_count(ONE), held.forget_count(ONE), held.forget_count(SHARED)] == [True, False, False]
    assert (kept_in(held, ONE), kept_in(held, ONE, listed=False)) == (Kept.DOUBTFUL, Kept.WITHDRAWN)
    again = ledger_from_json(ledger_to_json(held))
    assert kept_in(again, ONE) is Kept.DOUBTFUL


@pytest.mark.parametrize(
    ("held", "kept"),
    [
        (ledger(), Kept.BY_XEN),
        (ledger((withdraw(ONE), DONE)), Kept.WITHDRAWN),
        (ledger((withdraw(ONE), FAILED)), Kept.DOUBTFUL),
        (ledger((withdraw(ONE), DONE), (restore(ONE), INTENDED)), Kept.DOUBTFUL),
        (ledger((withdraw(ONE), DONE), (restore(ONE), DONE)), Kept.RESTORED),
        (ledger((withdraw(ONE), DONE), (restore(ONE), DONE), (withdraw(ONE), INTENDED)), Kept.DOUBTFUL),
        (ledger((restore(ONE), FAILED)), Kept.DOUBTFUL),
    ],
)
def test_what_the_ledger_says(held, kept):
    assert kept_in(held, ONE) is kept
