"""DMA that an IOMMU refuses: told with its device, owner and place, believed only from Xen, and cured."""

import errno

import attrs
import pytest

from pcipt.daemon.settings import Settings
from pcipt.engine.queue import CONSOLE, DELAYS, Reason
from pcipt.errors import UnsupportedError
from pcipt.pci import Frames, Gfn
from pcipt.pci.requester import Vendor
from pcipt.xen.dma_faults import There
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.releases import NEWEST, parse_version
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.stage import BusStage, S, compare, dry_run, reports
from tests.xen.devices import device
from tests.xen.truth import mapped_pages

NIC, OTHER = "00:05.0", "00:06.0"  # the region is for the first; the other uses it without being named
REGION = Frames(Gfn(0x7FFF0), 4)
AT, HOLE, RAM = REGION.range.start, 0x9000_0000, 0x20_0000
QUARANTINE, DOM0 = Owner(OwnerKind.QUARANTINE), Owner(OwnerKind.DOMAIN, 0)
ON = Settings(restore_on_fault=True, list_s=0)
RELEASES = [f"{branch}.{patch}" for branch, patch in NEWEST.items()]
BOTH = [Vendor.INTEL, Vendor.AMD]


class Scene(BusStage):
    """A machine with a reserved region; `faults` are those that were told."""

    def __init__(self, *, vendor=Vendor.INTEL, release="4.17.7", settings=None, **more):
        raws = [
            device("00:00.0"),
            device(NIC, (0xFE00_0000, 0x2000), command=6, driver="edu"),
            device(OTHER, (0xFE10_0000, 0x1000), command=6, driver="edu"),
        ]
        super().__init__(
            raws, reserved=[ReservedRegion(REGION, (S(NIC),))], version=tuple(parse_version(release)[:3]),
            coverage=Coverage(segments=range(1), vendor=vendor),
            settings=settings or Settings(), **more,
        )  # fmt: skip
        self.faults = []
        self.begin()

    def begin(self):
        self.engine = self.start()
        compare(self.engine)
        self.rest()

    def work(self):
        """Do what is due now; give what was done to regions."""
        self.intake.take_writes()
        self.intake.take_messages()
        found = reports(self.engine)
        self.faults += [fault for report in found for fault in report.faults]
        outcomes = [outcome for report in found for outcome in report.outcomes]
        return [(o.action.word.removesuffix("-reserved"), o.result.value) for o in outcomes
                if o.action.word.endswith("-reserved")]  # fmt: skip

    def rest(self, seconds=61):
        """Let time pass, and do what is due meanwhile."""
        done = []
        for _ in range(seconds):
            self.time += 1
            self.xen.dma.seconds = self.time
            done += self.work()
        return done

    def bind(self, address, driver):
        self.files.raws[S(address)] = attrs.evolve(self.files.raws[S(address)], driver=driver)

    def release(self, address=NIC):
        """Give a function to quarantine, as xl does; the message comes."""
        self.bind(address, "pciback")
        self.xen.give(S(address), QUARANTINE)
        self.hotplug.push("change", S(address))
        return self.work()

    def accesses(self, address, at, *, write=True, times=1):
        return [self.xen.dma.access(S(address), at, write=write) for _ in range(times)]

    def told(self, address=None):
        subject = None if address is None else S(address)
        return {finding.code: finding.text for of, finding in self.engine.findings if of == subject}

    def has_region(self):
        return REGION.start in mapped_pages(self.xen)


@pytest.mark.parametrize("vendor", BOTH)
@pytest.mark.parametrize("release", RELEASES)
def test_a_refused_access_is_told_within_a_minute(vendor, release):
    scene = Scene(vendor=vendor, release=release)
    assert scene.accesses(OTHER, HOLE) == [False]
    scene.rest()
    (fault,) = scene.faults
    assert (fault.sbdf, fault.owner, fault.access, fault.at) == (S(OTHER), "dom0", "write", HOLE)
    assert (fault.there, fault.what, fault.count) == (There.NOTHING, "nothing", 1)
    assert scene.engine.memory.fault_counts[There.NOTHING] == 1
    assert "0x90000000" in scene.told(OTHER)["dma-fault"]
    assert "dma-fault" not in scene.told(NIC)
    scene.rest()
    assert len(scene.faults) == 1  # once
    compare(scene.engine)
    assert scene.told(OTHER) == {}


@pytest.mark.parametrize("vendor", BOTH)
def test_it_is_not_told_any_more_as_soon_as_the_region_is_back(vendor):
    """The region is another device's: its return is what makes the finding about this one go."""
    scene = Scene(vendor=vendor)
    scene.release()
    scene.accesses(OTHER, AT)
    scene.rest(1)
    assert "dma-fault" in scene.told(OTHER)
    scene.bind(NIC, "edu")
    scene.xen.give(S(NIC), Owner(OwnerKind.DOMAIN, 0))
    scene.hotplug.push("change", S(NIC))
    assert ("restore", "done") in scene.rest(2)
    assert scene.has_region()
    assert scene.told(OTHER) == {}


@pytest.mark.parametrize("vendor", BOTH)
def test_a_region_that_was_withdrawn_is_named_with_its_time_and_stays_away(vendor):
    scene = Scene(vendor=vendor)
    assert scene.accesses(OTHER, AT) == [True]
    assert scene.release() == [("withdraw", "done")]
    assert scene.accesses(OTHER, AT) == [False]
    assert scene.accesses(NIC, AT) == [True]  # in quarantine its owner keeps it
    assert scene.rest(1) == []  # a second after a withdrawal the console is read
    (fault,) = scene.faults
    assert (fault.there, fault.region) == (There.WITHDRAWN, REGION)
    assert fault.what == "reserved region 0x7fff0000-0x7fff3fff, which pcipt withdrew at 2026-01-01T00:00:00Z"
    text = scene.told(OTHER)["dma-fault"]
    for words in ("withdrew at 2026-01-01", "pcipt reclaim", "restore_on_fault", "belongs to dom0"):
        assert words in text
    assert scene.rest() == []
    assert not scene.has_region()


@pytest.mark.parametrize("vendor", BOTH)
@pytest.mark.parametrize("release", RELEASES)
def test_with_the_setting_the_region_is_restored_and_stays(vendor, release):
    scene = Scene(vendor=vendor, release=release, settings=ON)
    scene.release()
    scene.accesses(OTHER, AT)
    assert scene.rest(2) == [("restore", "done")]
    assert scene.has_region()
    assert scene.accesses(OTHER, AT) == [True]
    assert "dma-fault" not in scene.told(OTHER)  # it is cured
    assert scene.faults[0].there is There.WITHDRAWN  # and was told
    compare(scene.engine)
    assert scene.rest(120) == []  # the plan does not take it away again
    (record,) = [
        r.outcome.action for r in scene.engine.records if r.outcome.action.word == "restore-reserved"
    ]
    assert "0000:00:06.0 is dom0's, and its DMA to the region was refused" in record.reason


def test_what_was_restored_leaves_with_the_device_that_needed_it():
    scene = Scene(settings=ON)
    scene.release()
    scene.accesses(OTHER, AT)
    scene.rest(2)
    assert scene.has_region()
    assert scene.release(OTHER) == [("withdraw", "done")]
    assert not scene.has_region()
    assert scene.engine.memory.faulted == {}


def test_a_device_that_is_unplugged_needs_nothing_any_more():
    scene = Scene(settings=ON)
    scene.release()
    scene.accesses(OTHER, AT)
    scene.rest(2)
    scene.pull(OTHER)
    assert ("withdraw", "done") in scene.work()
    assert not scene.has_region()
    assert S(OTHER) not in scene.engine.memory.faults


def test_switching_the_setting_on_and_off_later():
    scene = Scene()
    scene.release()
    scene.accesses(OTHER, AT)
    assert scene.rest(2) == []
    scene.engine.use(ON)
    scene.engine.add_everything(Reason.SETTINGS)
    assert scene.work() == [("restore", "done")]
    scene.engine.use(Settings())
    scene.engine.add_everything(Reason.SETTINGS)
    assert scene.work() == [("withdraw", "done")]


def test_observing_only_plans_the_restoring():
    scene = Scene(settings=ON)
    scene.release()
    scene.engine.use(Settings(restore_on_fault=True, mode="observe"))
    scene.accesses(OTHER, AT)
    assert scene.rest(2) == [("restore", "planned")]
    assert not scene.has_region()


def test_the_switch_of_the_action_holds():
    actions = {**Settings().actions, "restore-reserved": False}
    scene = Scene(settings=Settings(restore_on_fault=True, actions=actions))
    scene.release()
    scene.accesses(OTHER, AT)
    assert scene.rest(2) == [("restore", "planned")]
    assert not scene.has_region()


@pytest.mark.parametrize("owner", [QUARANTINE, Owner(OwnerKind.DOMAIN, 3)])
def test_a_device_that_is_not_dom0s_needs_nothing_of_dom0(owner):
    """Its DMA goes through another table, so a region in dom0's would not help."""
    scene = Scene(settings=ON)
    scene.release()
    scene.release(OTHER)
    scene.xen.give(S(OTHER), owner)
    scene.hotplug.push("change", S(OTHER))
    scene.work()
    scene.accesses(OTHER, AT)
    assert scene.rest() == []
    assert scene.faults[0].there is (There.QUARANTINE if owner == QUARANTINE else There.GUEST)
    assert scene.engine.memory.faulted == {}


@pytest.mark.parametrize("vendor", BOTH)
def test_on_a_pv_dom0_nothing_is_withdrawn_and_refused_dma_is_told(vendor):
    scene = Scene(vendor=vendor, dom0="pv", settings=ON)
    assert scene.release() == [("withdraw", "not-applicable")]
    assert scene.accesses(OTHER, AT) == [True]
    scene.accesses(OTHER, HOLE)
    assert scene.rest() == []
    assert [fault.there for fault in scene.faults] == [There.NOTHING]
    assert "dma-fault" in scene.told(OTHER)
    scene.xen.prints(f"[VT-D]DMAR:[DMA Read] Request device [0000:{OTHER}] fault addr {AT:x}")
    assert scene.rest() == []  # nobody would map it on PV
    assert [fault.there for fault in scene.faults] == [There.NOTHING, There.REGION]


#  where, what is said of it
PLACES = [
    (0xFE00_0000, There.BAR, "BAR 0 of 0000:00:05.0"),
    (0x3FFF_F000, There.RAM, "RAM"),
    (0xFEC0_0000, There.PLATFORM, "IO-APIC"),
    (AT, There.REGION, "reserved region 0x7fff0000-0x7fff3fff"),
    (HOLE, There.NOTHING, "nothing"),
    ((1 << 64) - 4096, There.NOTHING, "nothing"),
]


@pytest.mark.parametrize(("at", "there", "words"), PLACES)
def test_what_lies_there(at, there, words):
    scene = Scene()
    scene.xen.prints(f"AMD-Vi: IO_PAGE_FAULT: 0000:{OTHER} d0 addr {at:016x} flags 0x20 RW")
    scene.rest()
    (fault,) = scene.faults
    assert fault.there is there
    assert words in fault.what
    assert words in scene.told(OTHER)["dma-fault"]


def test_a_device_without_an_entry_is_told_so():
    scene = Scene()
    scene.xen.prints(f"[VT-D]DMAR:[DMA Read] Request device [0000:{OTHER}] fault addr {AT:x}")
    scene.xen.prints("[VT-D]DMAR: reason 02 - x")
    scene.rest()
    assert [fault.there for fault in scene.faults] == [There.NO_ENTRY]
    assert "no valid entry" in scene.told(OTHER)["dma-fault"]


def test_a_requester_that_linux_does_not_have():
    scene = Scene()
    scene.xen.prints(f"[VT-D]DMAR:[DMA Read] Request device [0000:09:1f.7] fault addr {AT:x}")
    scene.rest()
    assert "requester 0000:09:1f.7" in scene.told()["dma-fault"]
    assert scene.faults[0].owner == "unknown to Xen"


def test_a_device_on_a_renumbered_bus_is_told_at_linuxs_address():
    scene = Scene()
    scene.engine.views.state.renumbered[S(OTHER)] = S("00:1f.0")
    scene.xen.prints(f"[VT-D]DMAR:[DMA Read] Request device [0000:00:1f.0] fault addr {HOLE:x}")
    scene.rest()
    assert [(fault.sbdf, fault.owner) for fault in scene.faults] == [(S(OTHER), "unknown to Xen")]
    assert "dma-fault" in scene.told(OTHER)


# What is believed.

FORGED = [
    "(d1) [VT-D]DMAR:[DMA Write] Request device [0000:00:06.0] fault addr 7fff0000",
    "(d1) (XEN) [VT-D]DMAR:[DMA Write] Request device [0000:00:06.0] fault addr 7fff0000",
    "(XEN) d1v0 [VT-D]DMAR:[DMA Write] Request device [0000:00:06.0] fault addr 7fff0000",
    "[VT-D]DMAR:[DMA Write] Request device [0000:00:06.0] fault addr 7fff0000",
    "(d1) AMD-Vi: IO_PAGE_FAULT: 0000:00:06.0 d0 addr 000000007fff0000 flags 0x20 RW",
]


@pytest.mark.parametrize("line", FORGED)
def test_what_guests_print_restores_nothing(line):
    scene = Scene(settings=ON)
    scene.release()
    scene.xen._printed.append(f"{line}\n")
    assert scene.rest() == []
    assert (scene.faults, scene.engine.memory.fault_counts.total()) == ([], 0)
    assert scene.told(OTHER) == {}


@pytest.mark.parametrize("line", ["console_to_ring", "console=com1 console_to_ring=on"])
def test_with_console_to_ring_no_line_is_believed_and_that_is_told(line):
    scene = Scene(settings=ON, command_line=line)
    assert "dma-faults-not-heard" in scene.told()
    scene.release()
    scene.accesses(OTHER, AT)
    assert scene.rest() == []
    assert scene.faults == []
    assert "console_to_ring" in scene.told()["dma-faults-not-believed"]
    compare(scene.engine)
    assert "dma-faults-not-believed" not in scene.told()


def test_a_xen_that_hides_its_command_line_is_not_believed():
    scene = Scene(settings=ON)
    for number in (1, 2):
        scene.xen.fail(Op.COMMAND_LINE, errno.EPERM, call=number)
    scene.begin()
    scene.accesses(OTHER, HOLE)
    scene.rest()
    assert scene.faults == []
    assert "does not tell its command line" in scene.told()["dma-faults-not-believed"]


@pytest.mark.parametrize(("vendor", "heard"), [(Vendor.INTEL, False), (Vendor.AMD, True)])
def test_a_level_that_hides_vtds_lines_is_told_to_who_relies_on_them(vendor, heard):
    scene = Scene(vendor=vendor, settings=ON, command_line="guest_loglvl=none")
    if vendor is Vendor.AMD:  # the machine's host bridge tells the vendor
        raws = [attrs.evolve(raw, config=b"\x22\x10" + raw.config[2:]) for raw in scene.files.raws.values()]
        scene.files.raws = {raw.sbdf: raw for raw in raws}
    scene.accesses(OTHER, HOLE)
    scene.rest()
    assert bool(scene.faults) is heard


def test_who_does_not_rely_on_the_lines_is_not_told():
    scene = Scene(command_line="console_to_ring guest_loglvl=none")
    assert scene.told() == {}


def test_a_console_that_cannot_be_read_has_no_timer_and_is_told():
    scene = Scene(settings=ON)
    for number in range(1, 9):
        scene.xen.fail(Op.CONSOLE, errno.EACCES, call=number)
    compare(scene.engine)
    scene.rest(130)
    assert not scene.engine.queue.holds(CONSOLE, Reason.LISTEN)
    assert "cannot be read" in scene.told()["dma-faults-not-heard"]
    scene.xen.heal()
    compare(scene.engine)
    assert "dma-faults-not-heard" not in scene.told()
    assert scene.engine.queue.holds(CONSOLE, Reason.LISTEN)


def test_a_xen_without_libxenctrl_is_not_heard():
    scene = Scene(settings=ON)

    def refuse():
        raise UnsupportedError("Xen's toolstack interface", "no libxenctrl")

    scene.xen.console = refuse
    scene.begin()
    assert "cannot be read" in scene.told()["dma-faults-not-heard"]
    assert scene.engine.next_due() is None


# Storms.


@pytest.mark.parametrize("count", [10_000])
def test_a_storm_fills_neither_what_is_told_nor_the_memory_nor_the_loop(count):
    scene = Scene()
    for number in range(count):
        at = number * 0x1000 + HOLE
        scene.xen.prints(f"AMD-Vi: IO_PAGE_FAULT: 0000:{OTHER} d0 addr {at:016x} flags 0x20 RW")
    calls = len(scene.xen.calls)
    scene.rest()
    assert scene.engine.memory.fault_counts[There.NOTHING] == count
    (fault,) = scene.faults
    assert (fault.count, fault.at) == (count, HOLE)
    assert len(scene.engine.memory.faults[S(OTHER)]) == 1
    assert "10000 times or more" in scene.told(OTHER)["dma-fault"]
    assert len(scene.xen.calls) - calls < 12


def test_a_storm_that_goes_on_is_told_again_at_each_tenfold():
    scene = Scene()
    for _ in range(12):
        for _ in range(10):
            scene.xen.prints(f"AMD-Vi: IO_PAGE_FAULT: 0000:{OTHER} d0 addr {HOLE:016x} flags 0x20 RW")
        scene.rest()
    assert [fault.count for fault in scene.faults] == [10, 100]
    new, gone = scene.engine.news()
    assert len(new) + len(gone) <= 6  # a finding does not change with each refusal


def test_a_device_that_tries_everything_does_not_fill_the_memory():
    scene = Scene()
    for number in range(2000):
        bus, devfn = divmod(number, 256)
        who = f"0000:{bus + 1:02x}:{devfn >> 3:02x}.{devfn & 7}"
        scene.xen.prints(f"AMD-Vi: IO_PAGE_FAULT: {who} d0 addr {HOLE:016x} flags 0")
    scene.rest()
    assert len(scene.engine.memory.faults) == 256
    assert len(scene.faults) == 256
    assert scene.engine.memory.fault_counts.total() == 2000


def test_bus_mastering_that_went_off_is_a_finding_of_its_own_until_the_driver_is_bound_anew():
    scene = Scene()
    scene.accesses(OTHER, HOLE, times=12)
    scene.rest()
    text = scene.told(OTHER)["bus-master-off"]
    assert "the driver edu" in text
    assert "bind it again" in text
    scene.hardware.write(S(OTHER), 4, 2, 6)  # its driver does that when it is bound
    scene.hotplug.push("bind", S(OTHER))
    scene.rest(2)
    assert "bus-master-off" not in scene.told(OTHER)


def test_bus_mastering_that_is_off_without_refused_dma_or_a_driver_is_none():
    scene = Scene()
    scene.hardware.write(S(NIC), 4, 2, 2)
    scene.bind(OTHER, None)
    scene.accesses(OTHER, HOLE, times=12)
    scene.rest()
    compare(scene.engine)
    assert "bus-master-off" not in {**scene.told(NIC), **scene.told(OTHER)}


def test_a_guests_device_that_stands_still_is_told_with_its_guest():
    scene = Scene()
    scene.release(OTHER)
    scene.xen.give(S(OTHER), Owner(OwnerKind.DOMAIN, 3))
    scene.hotplug.push("change", S(OTHER))
    scene.work()
    scene.accesses(OTHER, HOLE, times=12)
    scene.rest()
    assert "guest 3" in scene.told(OTHER)["bus-master-off"]


# When the console is read.


def readings(scene):
    return [call.op for call in scene.xen.calls].count(Op.CONSOLE)


@pytest.mark.parametrize(("pause", "expected"), [(60, 10), (300, 2), (0, 0)])
def test_an_idle_service_reads_the_console_as_often_as_the_setting_says(pause, expected):
    scene = Scene(settings=Settings(list_s=0, faults_s=pause))
    scene.rest(pause)
    before, calls = readings(scene), len(scene.xen.calls)
    scene.rest(600)
    assert readings(scene) - before == expected
    assert len(scene.xen.calls) - calls == expected  # and asks nothing else
    if not pause:
        assert scene.engine.next_due() is None


def test_after_a_withdrawal_it_is_read_soon_and_then_slowly():
    scene = Scene(settings=Settings(list_s=0, faults_s=3600, owners_s=3600))
    scene.release()
    pauses = DELAYS[CONSOLE, Reason.WITHDRAWN].pauses
    scene.rest(6)
    before = readings(scene)
    scene.rest(int(sum(pauses)))
    assert readings(scene) - before == 1  # the last of three
    before = readings(scene)
    scene.rest(600)
    assert readings(scene) == before


def test_the_looks_after_a_withdrawal_go_on_when_xen_can_be_asked_again():
    scene = Scene(settings=Settings(list_s=0, faults_s=0, owners_s=1))
    scene.release()
    scene.accesses(OTHER, AT)
    scene.xen.fail(Op.KNOWN, errno.EAGAIN)
    scene.rest(1)  # the console waits, because the question about owners in the same round failed
    assert scene.engine.queue.holds(CONSOLE, Reason.WITHDRAWN)
    scene.rest(3)
    assert len(scene.faults) == 1


@pytest.mark.parametrize("vendor", BOTH)
def test_what_is_refused_while_a_round_acts_is_told_with_that_round(vendor):
    """The reading after an action, which looks for complaints about it, loses no line about DMA."""
    scene = Scene(vendor=vendor, settings=ON)
    unmap = scene.xen.unmap_mmio

    def unmap_in_use(frames):
        unmap(frames)
        scene.xen.unmap_mmio = unmap
        scene.accesses(OTHER, AT)

    scene.xen.unmap_mmio = unmap_in_use
    assert scene.release() == [("withdraw", "done"), ("restore", "done")]
    (fault,) = scene.faults
    assert (fault.sbdf, fault.there, fault.count) == (S(OTHER), There.WITHDRAWN, 1)
    assert scene.has_region()
    assert scene.rest(120) == []
    assert len(scene.faults) == 1


def test_a_dry_run_leaves_refused_dma_to_the_next_reading():
    scene = Scene(settings=ON)
    scene.release()
    scene.accesses(OTHER, AT)
    dry_run(scene.engine)
    assert scene.engine.memory.faults == {}
    assert scene.rest(2) == [("restore", "done")]
    assert len(scene.faults) == 1


def test_what_was_refused_before_the_start_is_over():
    scene = Scene()
    scene.accesses(OTHER, HOLE)
    scene.begin()
    scene.rest()
    assert scene.faults == []


def test_after_a_restart_the_region_is_withdrawn_and_restored_once_more():
    scene = Scene(settings=ON)
    scene.release()
    scene.accesses(OTHER, AT)
    scene.rest(2)
    scene.engine = scene.start()
    assert scene.work() == [("withdraw", "done")]
    scene.accesses(OTHER, AT)
    assert scene.rest(10) == [("restore", "done")]
    assert "before the service started" not in scene.faults[-1].what
