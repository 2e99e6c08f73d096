"""What Xen says of reserved regions: asked once, asked again where it could not be asked."""

import errno

import pytest

from pcipt.engine.views.reserved import Reserved
from pcipt.errors import UnsupportedError
from pcipt.pci import Frames, Gfn
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import SimulatedHardware
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.stage import S

NIC, DISK, LATE, STRANGE = map(S, ("01:00.0", "02:00.0", "03:00.0", "10000:00:00.0"))
ONE, SHARED = Frames(Gfn(0x7FFF0), 4), Frames(Gfn(0x7FFF8), 2)


def begun(*, regions=True):
    reserved = [ReservedRegion(ONE, (NIC,)), ReservedRegion(SHARED, (NIC, DISK))] if regions else []
    xen = SimulatedXen(SimulatedHardware([NIC, DISK]), reserved=reserved)
    return xen, Reserved(xen)


def asked(xen):
    return [call.functions for call in xen.calls if call.op is Op.RESERVED]


def test_each_region_has_its_devices_and_each_device_its_regions():
    xen, reserved = begun()
    reserved.read([DISK, NIC, LATE])
    assert reserved.scopes == {ONE: {NIC}, SHARED: {NIC, DISK}}
    assert (reserved.of(NIC), reserved.of(DISK), reserved.of(LATE)) == ((ONE, SHARED), (SHARED,), ())
    assert (set(reserved.open), reserved.trouble) == (set(), None)
    assert asked(xen) == [(), (NIC,), (DISK,), (LATE,)]


def test_the_regions_of_some_functions_come_with_all_their_devices():
    _, reserved = begun()
    reserved.read([DISK, NIC])
    assert reserved.about([DISK]) == {SHARED: {NIC, DISK}}
    assert reserved.about([LATE]) == {}
    assert reserved.about([DISK, NIC]) == {ONE: {NIC}, SHARED: {NIC, DISK}}


def test_a_function_is_asked_about_when_it_is_seen_first():
    xen, reserved = begun()
    reserved.read([DISK])
    assert reserved.scopes == {ONE: frozenset(), SHARED: {DISK}}
    reserved.learn([NIC, DISK, LATE])
    assert reserved.scopes == {ONE: {NIC}, SHARED: {NIC, DISK}}
    reserved.learn([NIC, DISK, LATE])
    assert asked(xen) == [(), (DISK,), (NIC,), (LATE,)]


def test_before_all_functions_were_asked_about_a_region_may_have_other_devices():
    xen, reserved = begun()
    reserved.learn([NIC])
    assert reserved.scopes == {ONE: {NIC}, SHARED: {NIC}}
    assert not reserved.complete
    reserved.plan_again = True  # who plans now
    xen.fail(Op.RESERVED, errno.EBUSY, call=3)
    reserved.read([NIC, DISK])
    assert not reserved.complete
    assert not reserved.plan_again  # all is planned after a reading
    reserved.plan_again = True
    reserved.learn([])
    assert reserved.complete
    assert reserved.plan_again  # what was planned before it was known


def test_a_function_that_xen_cannot_name_is_not_asked_about():
    xen, reserved = begun()
    reserved.read([STRANGE, NIC])
    reserved.learn([STRANGE])
    assert asked(xen) == [(), (NIC,)]
    assert set(reserved.open) == set()


def test_a_reading_forgets_what_was_said_before():
    xen, reserved = begun()
    reserved.read([NIC, DISK])
    reserved.read([DISK])
    assert reserved.scopes == {ONE: frozenset(), SHARED: {DISK}}
    assert reserved.of(NIC) == ()
    assert asked(xen) == [(), (NIC,), (DISK,), (), (DISK,)]


def test_where_there_is_no_region_no_function_is_asked_about():
    xen, reserved = begun(regions=False)
    reserved.read([NIC, DISK])
    assert (asked(xen), set(reserved.open), reserved.scopes) == ([()], set(), {})
    reserved.learn([LATE])
    assert (asked(xen), set(reserved.open)) == ([()], set())


@pytest.mark.parametrize(
    ("call", "left", "scopes"),
    [
        (1, {NIC, DISK}, {}),
        (2, {NIC, DISK}, {ONE: frozenset(), SHARED: frozenset()}),
        (3, {DISK}, {ONE: {NIC}, SHARED: {NIC}}),
    ],
)
def test_what_could_not_be_asked_is_open_and_asked_with_the_next_question(call, left, scopes):
    xen, reserved = begun()
    xen.fail(Op.RESERVED, errno.EBUSY, call=call)
    reserved.read([NIC, DISK])
    assert (set(reserved.open), reserved.scopes) == (left, scopes)
    assert reserved.trouble.code == "regions-not-asked"
    assert reserved.trouble.text.endswith(
        ": pcipt does not know which devices need which reserved region, and withdraws none"
    )
    reserved.learn([])
    assert (set(reserved.open), reserved.trouble) == (set(), None)
    assert reserved.scopes == {ONE: {NIC}, SHARED: {NIC, DISK}}


def test_a_xen_that_cannot_tell_has_no_regions():
    xen, reserved = begun()
    reserved.read([NIC])
    answer, told = xen.reserved_regions, []

    def refuse(function=None):
        told.append(function)
        raise UnsupportedError("regions", "not there")

    xen.reserved_regions = refuse
    reserved.read([NIC, DISK])
    assert (reserved.scopes, reserved.of(NIC), set(reserved.open)) == ({}, (), set())
    assert reserved.trouble is None
    reserved.learn([LATE])
    assert told == [None]  # it is not asked again
    xen.reserved_regions = answer
    reserved.learn([LATE])
    assert reserved.scopes == {}
    reserved.read([NIC])
    assert reserved.of(NIC) == (ONE, SHARED)
