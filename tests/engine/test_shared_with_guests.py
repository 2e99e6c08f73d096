"""Two functions share a page and one of them is a guest's: in each order of messages the end is the same.

vPCI spares a page for the other functions of dom0, not for those of a guest; who has them is asked of Xen.
"""

import itertools

import pytest

from pcipt.daemon.control.status import health_of
from pcipt.engine.queue import Reason
from pcipt.remap.life import State
from pcipt.xen.outcome import Op
from tests.engine.test_laws import ONE, OTHER, PVH, S, Telling
from tests.xen.truth import mapped_pages
from tests.xen.versions import EACH_RELEASE

each_release = pytest.mark.parametrize("version", EACH_RELEASE)
PAGE = 0xC0010  # of both
STOPS = [("decode", ONE, False), ("move", ONE, 0)]


def ends(version, *history):
    """Yield the world after a history, for each order of the messages of the last batch."""
    *before, last = history
    for order in itertools.permutations(range(2)):
        world = Telling(**{**PVH, "version": version}).told(before)
        for event in last:
            world.happen(event)
        first, *others = dict.fromkeys(world.hear())
        messages = [first, others[-1]]
        for number in order:
            world.deliver([messages[number]])
        world.rest()
        yield world


def run_of(world, place):
    (run,) = [run for run in world.engine.ledger.mapped.of(place) if run.bar == 0]
    return run


@each_release
@pytest.mark.parametrize("stops", STOPS)
def test_a_page_of_a_given_function_is_in_doubt_when_another_one_stops_to_decode_there(version, stops):
    one, other = ends(version, [stops, ("give", OTHER, 0)])
    assert one.state() == other.state()
    assert {run_of(world, "00_04.0").state for world in (one, other)} <= {State.DOUBTFUL, State.STALE}


@each_release
@pytest.mark.parametrize("stops", STOPS)
def test_such_a_page_is_mapped_when_the_function_is_back(version, stops):
    one, other = ends(version, [("give", OTHER, 1)], [stops, ("take back", None, 0)])
    assert one.state() == other.state()
    assert PAGE in mapped_pages(one.xen)
    assert one.mistakes() == other.mistakes() == ([], [])


@pytest.fixture(params=[(1, False), (1, True), (2, False), (2, True), None], ids=str)
def stop(request):
    """Give a way to tell a world of events: the service is killed at a saving, or was stopped before."""

    def told(world, *events):
        for event in events:
            world.happen(event)
        heard = world.hear()
        if request.param is None:
            world.start()
        else:
            saving, late = request.param
            world.store.die_at, world.store.die_after = world.store.saved + saving, late
            world.deliver_each(heard)
            world.store.die_at = None
        world.rest()
        return world

    return told


@each_release
@pytest.mark.parametrize("stops", STOPS)
def test_such_a_page_is_mapped_by_a_service_that_did_not_see_the_function_return(version, stops, stop):
    world = Telling(**{**PVH, "version": version}).told([[("give", OTHER, 1)]])
    stop(world, stops, ("take back", None, 0))
    assert PAGE in mapped_pages(world.xen)
    assert world.mistakes() == ([], [])


@each_release
@pytest.mark.parametrize("stops", STOPS)
@pytest.mark.parametrize("owner", [0, 1])
def test_such_a_page_is_mapped_if_nobody_saw_the_function_away(version, stops, owner, stop):
    """It is given away and back between two readings, or while the service is stopped."""
    world = Telling(**{**PVH, "version": version})
    stop(world, ("give", OTHER, owner), stops, ("take back", None, 0))
    assert PAGE in mapped_pages(world.xen)
    assert world.mistakes() == ([], [])
    assert health_of(world.engine) == "healthy"


@pytest.mark.parametrize("version", [version for version in EACH_RELEASE if version < (4, 19)])
def test_such_a_page_that_cannot_be_mapped_is_a_doubt(version):
    world = Telling(**{**PVH, "version": version})
    world.xen.fail(Op.MAP, 16)
    for event in [("give", OTHER, 1), ("decode", ONE, False), ("take back", None, 0)]:
        world.happen(event)
    world.deliver(world.hear())
    assert PAGE not in mapped_pages(world.xen)
    assert run_of(world, "00_04.0").state is State.DOUBTFUL
    assert health_of(world.engine) == "degraded"
    world.xen.heal()
    world.rest()
    assert (world.mistakes(), health_of(world.engine)) == (([], []), "healthy")


@each_release
def test_a_message_about_the_owner_maps_only_pages_that_are_shared(version):
    """And only where vPCI keeps its record of a function that is away: Xen 4.17 and 4.18."""
    world = Telling(**{**PVH, "version": version})
    before = len(world.xen.changes)
    world.deliver([(Reason.OWNER, OTHER), (Reason.OWNER, S("00:02.0"))])
    mapped = [call.frames.start for call in world.xen.changes[before:] if call.op is Op.MAP]
    assert mapped == ([PAGE] if version < (4, 19) else [])


@each_release
def test_a_lost_bar_that_was_a_guests_is_written_back_by_a_service_that_was_stopped(version, stop):
    away = [("move", OTHER, 0), ("reset", OTHER, 0), ("give", OTHER, 0)]
    back = [("take back", None, 0)]
    expected = Telling(**{**PVH, "version": version}).told([away, back])
    world = Telling(**{**PVH, "version": version})
    for events in (away, back):
        stop(world, *events)
    assert world.state() == expected.state()
    assert "reset-behind-vpci" not in {code for _, code, _ in world.state()["findings"]}


@each_release
def test_a_lost_bar_beside_a_guests_is_not_written_back_in_any_order(version):
    one, other = ends(version, [("reset", OTHER, 0), ("give", ONE, 0)])
    assert one.state() == other.state()
    ((code, text),) = [finding[1:] for finding in one.state()["findings"] if finding[0] == str(OTHER)]
    assert code == "reset-behind-vpci"
    assert f"pcipt does not do this: BAR 0 of {ONE}" in text
    for world in (one, other):
        world.happen(("take back", None, 0))
        world.deliver(world.hear())
        world.rest()
        assert world.state()["findings"] == []
        assert world.mistakes() == ([], [])


@each_release
def test_a_lost_bar_is_not_written_back_over_a_bar_that_has_moved_there(version):
    """Also where no message has told yet that it has moved."""
    one, other = ends(version, [("move", ONE, 0)], [("reset", ONE, 0), ("move", OTHER, 0)])
    assert one.state() == other.state()
    assert [code for about, code, _ in one.state()["findings"] if about == str(ONE)] == ["reset-behind-vpci"]


@pytest.mark.parametrize("killed", [False, True])
@each_release
def test_what_a_function_stopped_to_decode_right_before_it_left_dom0_is_in_doubt(version, killed):
    """It is mapped when the function is back and decodes, whoever has switched decode on meanwhile."""
    world = Telling(**{**PVH, "version": version})
    alone = S("00:02.0")
    pages = [run.frames for run in world.engine.ledger.mapped.of("00_02.0")]
    assert pages
    for event in [("decode", alone, False), ("give", alone, 0)]:
        world.happen(event)
    heard = world.hear()
    if killed:
        world.start()
    else:
        world.deliver(heard)
    world.rest()
    runs = world.engine.ledger.mapped.of("00_02.0")
    assert {run.state for run in runs} <= {State.DOUBTFUL, State.STALE}
    world.hardware.write(alone, 0x04, 2, 0x6)  # the guest
    world.happen(("take back", None, 0))
    world.deliver_each(world.hear())
    world.rest()
    assert world.mistakes()[0] == []
