"""Reserved regions follow their devices: the life of a region as Xen lives it, with pcipt beside it.

The first device is a NIC behind a root port, the second a function of its own; one region is for the NIC, one
for both. What the p2m says is judged, not what the engine believes.
"""

import errno

import attrs
import pytest

from pcipt.daemon.settings import Settings
from pcipt.pci import Frames, Gfn
from pcipt.pci.requester import Vendor
from pcipt.remap.plan_reserved import Kept, kept_in
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import EVERYTHING
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.stage import BusStage, Killed, S, compare, dry_run, rests, work_off
from tests.xen.devices import device, port
from tests.xen.truth import mapped_pages

NIC, OTHER, LATE = "02:00.0", "00:06.0", "00:07.0"
ONE, SHARED, HOT = Frames(Gfn(0x7FFF0), 4), Frames(Gfn(0x7FFF8), 2), Frames(Gfn(0x7FFC0), 3)
QUARANTINE, DOM0 = Owner(OwnerKind.QUARANTINE), Owner(OwnerKind.DOMAIN, 0)
IN, OUT = True, False


def guest(number):
    return Owner(OwnerKind.DOMAIN, number)


class Scene(BusStage):
    """`engine` is started anew whenever it is killed."""

    def __init__(self, **more):
        regions = [ReservedRegion(ONE, (S(NIC),)), ReservedRegion(SHARED, (S(NIC), S(OTHER)))]
        regions.append(ReservedRegion(HOT, (S(OTHER), S(LATE))))  # LATE is plugged in later
        raws = [
            device("00:00.0"),
            device(OTHER, (0xFE00_0000, 0x2000)),
            port("00:1c.0", 2, 4, window=(0xFE20, 0xFE90)),
            device(NIC, (0xFE20_0000, 0x2_0000), parent="00:1c.0", driver="e1000e"),
        ]
        super().__init__(raws, reserved=regions, **more)
        self.engine = self.start()
        compare(self.engine)

    def bind(self, address, driver):
        self.files.raws[S(address)] = attrs.evolve(self.files.raws[S(address)], driver=driver)

    def give_away(self, address, owner=QUARANTINE):
        """Do what xl pci-assignable-add does, and tell nobody."""
        self.bind(address, "pciback")
        self.xen.give(S(address), owner)

    def take_back(self, address):
        self.xen.give(S(address), DOM0)
        self.bind(address, "e1000e")

    def told(self, *addresses):
        for address in addresses:
            self.hotplug.push("change", S(address))
        return [
            (o.action.word.removesuffix("-reserved"), o.action.frames, o.result.value)
            for o in self.settle(self.engine)
        ]

    def told_regions(self):
        return [told for told in self.told() if told[0] in ("withdraw", "restore")]

    def mapped(self):
        """Tell which of the three regions dom0 has mapped; a part of one is an error."""
        if self.xen.p2m is None:
            return None
        pages = mapped_pages(self.xen)
        found = []
        for region in (ONE, SHARED, HOT):
            there = {page in pages for page in range(region.start, region.end)}
            assert len(there) == 1
            found.append(there == {True})
        assert self.xen.catastrophe is None
        return tuple(found)

    def remaps(self):
        return [call.op for call in self.xen.calls if call.op in (Op.MAP, Op.UNMAP)]


def test_without_pcipt_xen_keeps_what_was_given_away():
    scene = Scene()
    assert scene.mapped() == (IN, IN, IN)
    scene.give_away(NIC)
    assert scene.mapped() == (IN, IN, IN)
    scene.take_back(NIC)
    scene.xen.kernel_remove(S(NIC))
    assert scene.mapped() == (OUT, IN, IN)


def test_without_pcipt_xen_keeps_what_was_removed_while_it_was_given_away():
    scene = Scene()
    scene.give_away(NIC)
    scene.xen.kernel_remove(S(NIC))
    assert scene.mapped() == (IN, IN, IN)


def test_quarantine_and_back():
    scene = Scene()
    scene.give_away(NIC)
    assert scene.told(NIC) == [("withdraw", ONE, "done")]
    assert scene.mapped() == (OUT, IN, IN)
    assert scene.told(NIC) == []
    scene.give_away(OTHER)
    assert scene.told(OTHER) == [("withdraw", HOT, "done"), ("withdraw", SHARED, "done")]
    assert scene.mapped() == (OUT, OUT, OUT)
    scene.take_back(NIC)
    assert scene.told(NIC) == [("restore", ONE, "done"), ("restore", SHARED, "done")]
    assert scene.mapped() == (IN, IN, OUT)
    scene.take_back(OTHER)
    assert scene.told(OTHER) == [("restore", HOT, "done")]
    assert scene.mapped() == (IN, IN, IN)
    assert scene.engine.findings == []


def test_a_region_is_kept_for_a_device_that_is_back_before_its_message():
    scene = Scene()
    scene.give_away(NIC)
    scene.told(NIC)
    scene.give_away(OTHER)
    scene.take_back(NIC)
    assert ("withdraw", SHARED, "done") not in scene.told(OTHER)
    assert scene.mapped()[1] is IN
    scene.told(NIC)
    assert scene.mapped() == (IN, IN, OUT)
    assert scene.engine.findings == []


def test_a_guest_and_quarantine_are_the_same_to_a_region():
    scene = Scene()
    scene.give_away(NIC)
    scene.told(NIC)
    scene.xen.give(S(NIC), guest(3))
    assert scene.told(*map(str, scene.engine.given_away)) == []
    assert scene.engine.view.owner(S(NIC)) == "guest 3"
    scene.xen.give(S(NIC), guest(4))
    scene.told(NIC)
    assert scene.engine.view.owner(S(NIC)) == "guest 4"
    scene.xen.give(S(NIC), QUARANTINE)
    scene.told(NIC)
    assert scene.engine.view.owner(S(NIC)) == "quarantine"
    assert scene.remaps() == [Op.UNMAP]


def test_without_quarantine_a_function_bound_to_pciback_is_dom0s():
    scene = Scene()
    scene.bind(NIC, "pciback")
    assert scene.told(NIC) == []
    assert scene.mapped() == (IN, IN, IN)


def test_the_owner_lags_behind_the_message_and_is_asked_for_a_few_times():
    scene = Scene()
    scene.bind(NIC, "pciback")
    assert scene.told(NIC) == []
    looks = 0
    while not rests(scene.engine):
        scene.time += scene.engine.next_due()
        looks += 1
        if looks == 2:
            scene.xen.give(S(NIC), QUARANTINE)
        work_off(scene.engine)
        assert scene.time < 8
    assert scene.mapped() == (OUT, IN, IN)
    assert [call.op for call in scene.xen.calls].count(
        Op.KEY
    ) == 4  # the message, two looks, the guard of the withdrawal


def test_a_hand_over_that_was_under_way_at_the_start_is_not_missed():
    scene = Scene()
    scene.bind(NIC, "pciback")
    scene.engine = scene.start()
    assert compare(scene.engine) == []
    scene.xen.give(S(NIC), QUARANTINE)
    scene.time += scene.engine.next_due()
    work_off(scene.engine)
    assert scene.mapped() == (OUT, IN, IN)


def test_looking_again_ends_where_nothing_changes():
    scene = Scene()
    scene.bind(NIC, "pciback")
    scene.told(NIC)
    asked = []
    while not rests(scene.engine):
        scene.time += scene.engine.next_due()
        work_off(scene.engine)
        asked.append([call.op for call in scene.xen.calls].count(Op.KEY))
    assert asked[-1] == 4
    assert scene.time <= 10


def test_xens_list_is_not_dumped_where_nothing_is_given_away():
    scene = Scene()
    scene.told(NIC, OTHER)
    assert not any(call.op is Op.KEY for call in scene.xen.calls)


def test_hot_unplug_of_a_device_that_was_there_at_boot():
    scene = Scene()
    scene.pull(NIC)  # Xen drops its own map of the region with it
    assert ("withdraw", ONE, "done") in scene.told_regions()
    assert scene.mapped() == (OUT, IN, IN)
    scene.pull(OTHER)
    scene.told_regions()
    assert scene.mapped() == (OUT, OUT, OUT)
    assert scene.engine.findings == []


def test_hot_unplug_of_the_last_device_ends_unmapped_although_xen_keeps_a_reference():
    scene = Scene()
    scene.plug(device(LATE))
    scene.told_regions()
    scene.pull(OTHER)
    scene.told_regions()
    scene.pull(LATE)
    assert scene.xen.reserved.references(scene.xen.reserved.regions[2]) == 1
    assert ("withdraw", HOT, "done") in scene.told_regions()
    assert scene.mapped() == (IN, IN, OUT)
    scene.plug(device(LATE))  # Xen counts on, and maps nothing
    assert ("restore", HOT, "done") in scene.told_regions()
    assert scene.mapped() == (IN, IN, IN)


def test_a_reference_that_xen_kept_while_nobody_watched():
    scene = Scene()
    scene.plug(device(LATE))
    scene.told_regions()
    for address in (OTHER, LATE, NIC):
        scene.pull(address)
    assert scene.mapped() == (OUT, OUT, IN)  # the shared one had no device that came later
    scene.engine = scene.start()
    compare(scene.engine)
    assert scene.mapped() == (OUT, OUT, OUT)


def test_quarantined_then_unplugged():
    scene = Scene()
    scene.give_away(NIC)
    scene.told(NIC)
    scene.pull(NIC)
    scene.told_regions()
    assert scene.mapped() == (OUT, IN, IN)


def test_a_claim_restores_a_region_before_its_device_returns():
    scene = Scene()
    scene.give_away(NIC)
    scene.told(NIC)
    regions = scene.engine.views.reserved.of(S(NIC))
    scene.engine.memory.held_regions.update(regions)
    assert scene.told(NIC) == [("restore", ONE, "done")]
    assert scene.mapped() == (IN, IN, IN)
    assert scene.told(NIC) == []
    scene.engine.memory.held_regions.clear()
    assert scene.told(NIC) == [("withdraw", ONE, "done")]  # it did not return
    assert scene.mapped() == (OUT, IN, IN)


@pytest.mark.parametrize("call", range(1, 7))
def test_a_xen_that_tells_only_at_times_has_no_regions_meanwhile(call):
    """What was learned by then is not all: nothing is withdrawn for it."""
    scene = Scene()
    scene.xen.fail(Op.RESERVED, errno.EACCES, call=call)
    scene.engine = scene.start()
    compare(scene.engine)
    scene.give_away(OTHER)
    scene.told(OTHER)
    assert scene.mapped() == (IN, IN, OUT if call == 1 else IN)
    compare(scene.engine)
    assert scene.mapped() == (IN, IN, OUT)


@pytest.mark.parametrize("call", [2, 3, 4, 5, 6])  # the first is about what must not be mapped over
def test_while_a_device_could_not_be_asked_about_nothing_is_withdrawn(call):
    """Any region may be its own as well; it is asked about again, and then all is made up for."""
    scene = Scene()
    scene.xen.fail(Op.RESERVED, errno.ENOMEM, call=call)
    scene.engine = scene.start()
    compare(scene.engine)
    scene.bind(NIC, "pciback")  # dom0's still
    scene.give_away(OTHER)
    scene.xen.fail(Op.RESERVED, errno.ENOMEM)
    assert scene.told(OTHER) == []
    while not rests(scene.engine) and scene.time < 100:
        scene.time += scene.engine.next_due()
        work_off(scene.engine)
    assert scene.mapped() == (IN, IN, OUT)
    assert scene.engine.findings == []


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY, errno.ENOMEM])
@pytest.mark.parametrize("op", [Op.UNMAP, Op.MAP])
def test_a_failing_call_is_tried_again_and_told_meanwhile(op, number):
    scene = Scene()
    scene.give_away(NIC)
    if op is Op.MAP:
        scene.told(NIC)
        scene.take_back(NIC)
    scene.xen.fail(op, number)
    ((_, frames, result),) = scene.told(NIC)
    assert (frames, result) == (ONE, "failed")
    assert kept_in(scene.engine.ledger, ONE) is Kept.DOUBTFUL
    expected = {Op.MAP: "region-missing", Op.UNMAP: "region-left"}[op]
    assert [finding.code for _, finding in scene.engine.findings] == [expected]
    scene.time += 1
    assert [o.result.value for o in work_off(scene.engine)] == ["done"]
    assert scene.mapped() == (op is Op.MAP, IN, IN)
    assert scene.engine.findings == []


def test_observing_reports_and_does_nothing():
    scene = Scene(settings=Settings(mode="observe"))
    scene.give_away(NIC)
    assert scene.told(NIC) == [("withdraw", ONE, "planned")]
    assert scene.told(NIC) == []
    assert scene.mapped() == (IN, IN, IN)


def test_a_dry_run_shows_it():
    scene = Scene()
    scene.give_away(NIC)
    told = [(o.action.word, o.result.value) for o in dry_run(scene.engine)]
    assert told == [("withdraw-reserved", "planned")]
    assert scene.mapped() == (IN, IN, IN)


def test_on_pv_it_is_said_once_and_not_done():
    scene = Scene(dom0="pv")
    scene.give_away(NIC)
    assert scene.told(NIC) == [("withdraw", ONE, "not-applicable")]
    assert scene.told(NIC) == []
    scene.take_back(NIC)
    assert scene.told(NIC) == [("restore", ONE, "not-applicable")]
    assert scene.remaps() == []
    assert scene.engine.findings == []


KILLS = [(when, "a saving", count) for when in ("before", "after") for count in (1, 2)]
KILLS += [(when, "a call", count) for when in ("before", "after") for count in (1, 2, 3)]


@pytest.mark.parametrize(("when", "what", "count"), KILLS)
@pytest.mark.parametrize("back", [False, True])
def test_killed_anywhere_it_heals_at_the_next_start(when, what, count, back):
    scene = Scene()
    scene.give_away(NIC)
    scene.give_away(OTHER)
    if back:
        scene.told(NIC, OTHER)
        scene.take_back(NIC)
        scene.take_back(OTHER)
    if what == "a saving":
        scene.store.die_at, scene.store.die_after = scene.store.saved + count, when == "after"
    else:
        killing(scene.xen, "map_mmio" if back else "unmap_mmio", count, after=when == "after")
    with pytest.raises(Killed):
        scene.told(NIC, OTHER)
    scene.store.die_at = None
    scene.engine = scene.start()
    compare(scene.engine)
    assert scene.mapped() == (back, back, back)
    assert scene.engine.findings == []
    assert compare(scene.engine) == []


def killing(xen, name, count, *, after):
    """Have the daemon killed at the n-th such call, before or after it took effect."""
    call, calls = getattr(xen, name), []

    def dying(frames):
        calls.append(frames)
        if len(calls) != count:
            return call(frames)
        if after:
            call(frames)
        raise Killed

    setattr(xen, name, dying)


ALONE = Frames(Gfn(0x7FFD0), 2)


@pytest.mark.parametrize("version", [(4, minor) for minor in range(17, 23)])
@pytest.mark.parametrize(("vendor", "kept"), [(Vendor.AMD, True), (Vendor.INTEL, False)])
def test_a_region_of_a_device_that_comes_later_is_kept_by_amd_alone(vendor, kept, version):
    """Xen's AMD driver applies an IVMD when its device is added; VT-d has dropped the region at boot."""
    raws = [device("00:00.0"), device(OTHER, (0xFE00_0000, 0x2000))]
    regions = [ReservedRegion(ALONE, (S(LATE),))]
    coverage = attrs.evolve(EVERYTHING, vendor=vendor)
    stage = BusStage(raws, reserved=regions, coverage=coverage, version=version, map_reserved=False)
    engine = stage.start()
    compare(engine)
    pages = set(range(ALONE.start, ALONE.end))

    def settled():
        """Give the actions on regions that the engine makes, and whether the region is mapped."""
        told = [(o.action.word, o.result.value) for o in stage.settle(engine)]
        told += [(o.action.word, o.result.value) for o in work_off(engine)]
        there = pages & mapped_pages(stage.xen)
        assert there in (set(), pages)
        return [each for each in told if "reserved" in each[0]], bool(there)

    assert settled() == ([], False)
    stage.plug(device(LATE, (0xFE10_0000, 0x2000)))
    assert settled() == ([], kept)  # Xen has mapped it, pcipt has nothing to do
    stage.xen.give(S(LATE), QUARANTINE)
    stage.files.raws[S(LATE)] = attrs.evolve(stage.files.raws[S(LATE)], driver="pciback")
    stage.hotplug.push("change", S(LATE))
    assert settled() == ([("withdraw-reserved", "done")] if kept else [], False)
    stage.xen.give(S(LATE), DOM0)
    stage.files.raws[S(LATE)] = attrs.evolve(stage.files.raws[S(LATE)], driver=None)
    stage.hotplug.push("change", S(LATE))
    assert settled() == ([("restore-reserved", "done")] if kept else [], kept)
    assert stage.xen.catastrophe is None


@pytest.mark.parametrize("op", [Op.KNOWN, Op.CUSTODY])
def test_a_service_that_could_not_ask_about_all_devices_withdraws_no_region(op):
    scene = Scene()
    scene.engine = scene.start()
    scene.xen.fail(op, errno.EBUSY)
    compare(scene.engine)  # it fails, and is made up for later
    scene.pull(NIC)
    assert not [told for told in scene.told() if told[0] == "withdraw"]
    assert scene.mapped() == (OUT, IN, IN)  # Xen unmapped the first region
    scene.time += 5
    work_off(scene.engine)
    assert scene.mapped() == (OUT, IN, IN)


def test_a_region_that_xen_unmapped_while_no_service_ran_is_restored():
    scene = Scene(coverage=attrs.evolve(EVERYTHING, vendor=Vendor.AMD))
    hot = scene.xen.reserved.regions[2]
    scene.give_away(OTHER, guest(5))
    scene.told(OTHER)
    assert scene.mapped() == (IN, IN, OUT)
    scene.plug(device(LATE, (0xFE10_0000, 0x1000)))
    scene.take_back(OTHER)
    scene.told(OTHER)
    assert (scene.mapped(), scene.xen.reserved.references(hot)) == ((IN, IN, IN), 1)  # that of LATE alone
    scene.pull(LATE)
    assert scene.mapped() == (IN, IN, OUT)
    scene.hotplug.read()
    scene.engine = scene.start()
    compare(scene.engine)
    assert scene.mapped() == (IN, IN, IN)


def test_a_device_whose_owner_could_not_be_read_at_the_start_loses_its_region_when_it_can():
    scene = Scene()
    scene.give_away(NIC)
    scene.told(NIC)
    assert scene.mapped() == (OUT, IN, IN)
    scene.hotplug.read()
    scene.engine = scene.start()
    scene.xen.fail(Op.CONSOLE, errno.EBUSY)  # dom0 and quarantine cannot be told apart
    compare(scene.engine)
    for _ in range(4):
        scene.time += 30
        work_off(scene.engine)
    assert scene.mapped() == (OUT, IN, IN)
