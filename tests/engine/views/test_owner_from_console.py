"""Who has a function: what was said before, what Xen answers silently, what its list says, what follows."""

import errno

import pytest

from pcipt.engine.views.owner_from_console import ask_owners
from pcipt.pci import parse_sbdf
from pcipt.remap.view import XenView
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import SimulatedHardware

NIC = parse_sbdf("01:00.0")
GUEST, DOM0 = Owner(OwnerKind.DOMAIN, 3), Owner(OwnerKind.DOMAIN, 0)
QUARANTINE, XEN, NOBODY = (Owner(kind) for kind in (OwnerKind.QUARANTINE, OwnerKind.XEN, OwnerKind.NOBODY))
KNOWN = frozenset({NIC})
WITH_GUEST_2 = XenView(KNOWN, elsewhere={NIC: "guest 2"})
QUARANTINED = XenView(KNOWN, quarantined=KNOWN)
ORPHAN = XenView(KNOWN, orphans=KNOWN)

#   owner in Xen, before, bound to pciback, handed over, what is said, whether the list was dumped
CASES = [
    (DOM0, XenView(), False, True, "dom0", False),
    (DOM0, XenView(), True, False, "dom0", False),
    (DOM0, XenView(), True, True, "dom0", True),
    (QUARANTINE, XenView(), True, True, "quarantine", True),
    (QUARANTINE, QUARANTINED, True, False, "quarantine", False),  # Xen answers it as dom0's: memory counts
    (QUARANTINE, QUARANTINED, False, False, "quarantine", False),  # also when it was unbound
    (QUARANTINE, QUARANTINED, False, True, "quarantine", True),
    (DOM0, QUARANTINED, False, True, "dom0", True),
    (QUARANTINE, WITH_GUEST_2, True, False, "quarantine", True),  # it is nobody's that was said before
    (GUEST, QUARANTINED, True, False, "guest 3", True),
    (GUEST, XenView(), False, False, "guest 3", True),
    (GUEST, WITH_GUEST_2, True, False, "guest 2", False),  # what was said counts until it is handed over
    (GUEST, WITH_GUEST_2, True, True, "guest 3", True),
    (DOM0, QUARANTINED, True, True, "dom0", True),
    (XEN, XenView(), False, False, "Xen itself", True),
    (NOBODY, XenView(), False, False, "nobody (orphan)", True),
    (NOBODY, ORPHAN, False, False, "nobody (orphan)", False),
    (GUEST, ORPHAN, True, True, "guest 3", True),
]


@pytest.mark.parametrize(("owner", "before", "bound", "handed", "said", "dumped"), CASES)
def test_who_has_it(owner, before, bound, handed, said, dumped):
    xen = SimulatedXen(SimulatedHardware([NIC]))
    xen.give(NIC, owner)
    view = ask_owners(xen, [NIC], before, [NIC] if bound else [], handed=handed)
    assert view.owner(NIC) == said
    assert any(call.op is Op.KEY for call in xen.calls) is dumped


@pytest.mark.parametrize(
    ("owner", "before", "said"),
    [
        (GUEST, XenView(), "an owner that Xen does not name"),
        (GUEST, WITH_GUEST_2, "guest 2"),
        (QUARANTINE, XenView(), "dom0"),  # and nothing is withdrawn
        (QUARANTINE, QUARANTINED, "quarantine"),
    ],
)
@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_a_list_that_cannot_be_had_leaves_it_at_what_was_said(owner, before, said, number):
    xen = SimulatedXen(SimulatedHardware([NIC]))
    xen.give(NIC, owner)
    xen.fail(Op.KEY, number)
    assert ask_owners(xen, [NIC], before, [NIC], handed=True).owner(NIC) == said


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
def test_what_left_pciback_is_dom0s_if_the_list_cannot_be_had(number):
    """Its driver may be bound already, and would fault where a reserved region is missing."""
    xen = SimulatedXen(SimulatedHardware([NIC]))
    xen.give(NIC, QUARANTINE)
    xen.fail(Op.KEY, number)
    assert ask_owners(xen, [NIC], QUARANTINED, [], handed=True).owner(NIC) == "dom0"


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("owner", [DOM0, QUARANTINE])
def test_what_the_list_alone_tells_is_not_told_without_it(owner, number):
    """The hypercall has one answer for dom0 and for quarantine."""
    xen = SimulatedXen(SimulatedHardware([NIC]))
    xen.give(NIC, owner)
    xen.fail(Op.KEY, number)
    view = ask_owners(xen, [NIC], XenView(), [NIC], handed=True)
    assert not view.is_owner_told(NIC)
    if number == errno.ENOSYS:  # what failed once is asked for again at once, what is not there is not
        again = ask_owners(xen, [NIC], view, [NIC], handed=False)
        assert not again.is_owner_told(NIC)
    assert ask_owners(xen, [NIC], view, [NIC], handed=True).is_owner_told(NIC)


def test_without_an_iommu_nobody_tells_and_nothing_is_dumped():
    xen = SimulatedXen(SimulatedHardware([NIC]), iommu=None)
    view = ask_owners(xen, [NIC], XenView(), [NIC], handed=True)
    assert not view.custody_told
    assert not any(call.op is Op.KEY for call in xen.calls)
