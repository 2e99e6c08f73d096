"""What Xen is asked, and what is kept of its answers."""

import errno

import pytest

from pcipt.engine.views import xen_questions
from pcipt.engine.views.xen_questions import Questions, candidate_buses, ghost_candidates
from pcipt.errors import UnsupportedError
from pcipt.pci import decode_machine
from pcipt.remap.view import XenView
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import SimulatedHardware
from tests.engine.stage import S
from tests.machines import bridge, function

NIC, DISK, OTHER, GONE = map(S, ("01:00.0", "02:00.0", "03:00.0", "04:00.0"))
QUARANTINE, GUEST, NOBODY = Owner(OwnerKind.QUARANTINE), Owner(OwnerKind.DOMAIN, 3), Owner(OwnerKind.NOBODY)


def begun(*, iommu=True):
    more = {} if iommu else {"iommu": None}
    xen = SimulatedXen(SimulatedHardware([NIC, DISK, OTHER]), **more)
    return xen, Questions(xen)


def ops(xen):
    return [call.op for call in xen.calls]


def test_before_a_question_nothing_is_known():
    _, questions = begun()
    assert questions.view == XenView(set(), set(), {}, True, set())
    assert questions.trouble is None


def test_each_kind_of_owner_is_kept():
    xen, questions = begun()
    xen.give(NIC, QUARANTINE)
    xen.give(DISK, GUEST)
    xen.give(OTHER, NOBODY)
    assert questions.ask_everything([NIC, DISK, OTHER, GONE], given=[NIC]) is True
    view = questions.view
    assert (view.known, view.orphans) == ({NIC, DISK, OTHER}, {OTHER})
    assert (view.quarantined, view.elsewhere) == ({NIC}, {DISK: "guest 3"})
    assert view.custody_told is True


def test_a_question_about_some_leaves_the_answers_about_others():
    xen, questions = begun()
    for sbdf, owner in ((NIC, QUARANTINE), (DISK, GUEST), (OTHER, NOBODY)):
        xen.give(sbdf, owner)
    questions.ask_everything([NIC, DISK, OTHER], given=[NIC])
    view = questions.view
    for sbdf in (NIC, DISK, OTHER):
        xen.forget(sbdf)
    assert questions.ask([NIC]) is True
    assert questions.view is view  # it changes in place
    assert (view.known, view.quarantined) == ({DISK, OTHER}, set())
    assert (view.elsewhere, view.orphans) == ({DISK: "guest 3"}, {OTHER})
    questions.ask([DISK])
    assert (view.known, view.elsewhere) == ({OTHER}, {})
    questions.ask([OTHER, GONE])
    assert (view.known, view.orphans) == (set(), set())


def test_a_question_about_everything_ends_all_answers_of_before():
    xen, questions = begun()
    for sbdf, owner in ((NIC, QUARANTINE), (DISK, GUEST), (OTHER, NOBODY)):
        xen.give(sbdf, owner)
    questions.ask_everything([NIC, DISK, OTHER], given=[NIC])
    questions.ask_everything([GONE])
    view = questions.view
    assert (view.known, view.orphans, view.quarantined, view.elsewhere) == (set(), set(), set(), {})


@pytest.mark.parametrize(("handed", "owner"), [(False, "guest 3"), (True, "guest 4")])
def test_the_owner_is_asked_for_again_only_if_it_may_have_changed(handed, owner):
    xen, questions = begun()
    xen.give(NIC, GUEST)
    questions.ask([NIC], [NIC], handed=True)
    xen.give(NIC, Owner(OwnerKind.DOMAIN, 4))
    questions.ask([NIC], [NIC], handed=handed)
    assert questions.view.owner(NIC) == owner


@pytest.mark.parametrize(("everything", "owner"), [(False, "guest 3"), (True, "guest 4")])
def test_a_question_about_everything_trusts_no_answer_of_before(everything, owner):
    xen, questions = begun()
    xen.give(NIC, GUEST)
    questions.ask([NIC])
    xen.give(NIC, Owner(OwnerKind.DOMAIN, 4))
    assert questions.ask_everything([NIC]) if everything else questions.ask([NIC])
    assert questions.view.owner(NIC) == owner


@pytest.mark.parametrize("op", [Op.KNOWN, Op.CUSTODY])
@pytest.mark.parametrize("everything", [False, True])
def test_while_xen_cannot_be_asked_the_view_stays_and_it_is_said(op, everything):
    xen, questions = begun()
    questions.ask_everything([NIC, DISK])
    xen.forget(NIC)
    ask = questions.ask_everything if everything else questions.ask
    xen.fail(op, errno.EPERM)
    assert ask([NIC, DISK]) is False
    assert questions.view.known == {NIC, DISK}
    assert questions.trouble.code == "xen-not-asked"
    assert questions.trouble.text.endswith(
        "; pcipt still watches hardware and Linux, but cannot compare them with Xen"
    )
    assert ask([NIC, DISK]) is True
    assert (questions.view.known, questions.trouble) == ({DISK}, None)


@pytest.mark.parametrize("ask", ["ask", "ask_everything", "ask_if_listed"])
def test_a_xen_that_does_not_support_the_question_is_trouble(ask):
    xen, questions = begun()

    def refuse(_functions):
        raise UnsupportedError("list", "too old")

    xen.known = refuse
    assert getattr(questions, ask)([NIC]) in (False, None)
    assert questions.trouble.code == "xen-not-asked"


def test_xen_is_asked_only_whether_it_lists_functions():
    xen, questions = begun()
    questions.ask_everything([NIC, DISK])
    xen.forget(NIC)
    xen.calls.clear()
    assert questions.ask_if_listed([NIC, DISK, OTHER, GONE]) == {NIC, OTHER}
    assert [(call.op, call.functions) for call in xen.calls] == [(Op.KNOWN, (NIC, DISK, OTHER, GONE))]
    assert questions.view.known == {NIC, DISK}  # which is for the next question to change


def test_a_list_that_cannot_be_asked_for_is_no_answer():
    xen, questions = begun()
    xen.fail(Op.KNOWN, errno.EBUSY)
    assert questions.ask_if_listed([NIC]) is None
    assert questions.trouble.code == "xen-not-asked"
    assert questions.ask_if_listed([]) == frozenset()


def test_without_an_iommu_xen_tells_no_owner_and_a_function_it_does_not_list_changes_nothing():
    _, questions = begun(iommu=False)
    view = questions.view
    questions.ask([NIC])
    assert questions.view is not view
    assert questions.view.custody_told is False
    questions.ask([GONE])
    assert questions.view.custody_told is False
    assert questions.view.known == {NIC}


def test_that_owners_are_told_again_is_seen():
    xen, questions = begun(iommu=False)
    questions.ask_everything([NIC])
    assert questions.view.custody_told is False
    questions.ask_everything([GONE])  # where nothing is asked about nothing is missing
    assert questions.view.custody_told is True
    assert Op.KEY not in ops(xen)


def test_an_owner_that_could_not_be_read_is_missing_until_the_function_is_asked_about_again():
    xen, questions = begun()
    questions.ask_everything([NIC, DISK])
    xen.give(NIC, Owner(OwnerKind.QUARANTINE))
    xen.give(DISK, Owner(OwnerKind.DOMAIN, 3))
    xen.fail(Op.KEY, errno.EBUSY)
    questions.ask([NIC], [NIC], handed=True)
    assert questions.view.unread == {NIC}
    questions.ask([DISK], [DISK], handed=True)  # the console can be read again
    assert questions.view.unread == {NIC}
    questions.ask([NIC], [NIC])
    assert (questions.view.unread, questions.view.quarantined) == (set(), {NIC})


def test_an_owner_that_could_not_be_read_is_not_missing_when_dom0_has_the_function_without_pciback():
    xen, questions = begun()
    questions.ask_everything([NIC])
    xen.give(NIC, Owner(OwnerKind.QUARANTINE))
    xen.fail(Op.KEY, errno.EBUSY)
    questions.ask([NIC], [NIC], handed=True)
    xen.give(NIC, Owner(OwnerKind.DOMAIN, 0))
    xen.calls.clear()
    questions.ask([NIC])
    assert questions.view.unread == set()
    assert Op.KEY not in ops(xen)


def test_many_functions_are_asked_about_in_batches(monkeypatch):
    monkeypatch.setattr(xen_questions, "BATCH", 2)
    xen, questions = begun()
    questions.ask_everything(iter([NIC, DISK, OTHER, GONE, S("05:00.0")]))
    assert [len(call.functions) for call in xen.calls if call.op is Op.KNOWN] == [2, 2, 1]
    assert questions.view.known == {NIC, DISK, OTHER}


def test_what_appeared_was_asked_about_before_and_is_listed_now():
    xen, questions = begun()
    xen.forget(NIC)
    questions.ask_everything([NIC, DISK], buses={(0, 1)})
    assert questions.appeared == set()
    xen.kernel_add(NIC)
    questions.ask([NIC, OTHER])  # nobody knows since when Xen lists OTHER
    assert questions.appeared == {NIC}


def test_a_batch_is_as_large_as_one_call_of_xen():
    assert xen_questions.BATCH == 16_384


@pytest.mark.parametrize(
    ("raws", "buses"),
    [
        ([function("05:00.0")], [(0, 5)]),
        ([bridge("00:1c.0", 2, 4)], [(0, 0), (0, 2), (0, 3), (0, 4)]),
        ([bridge("00:1c.0", 4, 2)], [(0, 0), (0, 4)]),  # its numbers make no sense: the first alone counts
        ([bridge("00:1c.0", 2, 2), function("02:00.0", parent="00:1c.0")], [(0, 0), (0, 2)]),
        ([function("0001:03:00.0"), function("00:00.0")], [(0, 0), (1, 3)]),
        ([function("10000:00:00.0")], []),  # Xen has no name for it
        ([], []),
    ],
)
def test_ghosts_are_looked_for_on_each_bus_in_use(raws, buses):
    found = list(ghost_candidates(candidate_buses(decode_machine(raws))))
    assert len(found) == 256 * len(buses)
    assert list(dict.fromkeys((sbdf.segment, sbdf.bus) for sbdf in found)) == buses
    assert {(sbdf.device, sbdf.function) for sbdf in found} == (
        {(device, number) for device in range(32) for number in range(8)} if buses else set()
    )
