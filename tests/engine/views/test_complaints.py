"""Xen's complaints become findings of the functions concerned, and end."""

import errno

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.settings import Settings
from pcipt.engine.memory import Memory
from pcipt.engine.queue import Reason
from pcipt.engine.views.complaints import KEPT, forget_bars
from pcipt.errors import UnsupportedError
from pcipt.remap.ledger import Ledger
from pcipt.xen.complaints import Code, parse_complaints
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.releases import NEWEST, parse_version
from tests.engine.stage import BusStage, S, compare, dry_run, look, work_off
from tests.xen.devices import device

NIC, DISK = "00:06.0", "00:07.0"
FAULT = "[VT-D]INTR-REMAP: Request device [0000:00:06.0] fault index {:x}"
RELEASES = [*(f"{branch}.{patch}" for branch, patch in NEWEST.items()), "4.19.3", "4.20.1", "4.21.0"]


def versioned(release):
    return {"version": tuple(parse_version(release)[:3])}


def stage_of(*raws, **more):
    raws = raws or (device(NIC, (0xFE00_0000, 0x2000)), device(DISK, (0xFE10_0000, 0x1000)))
    stage = BusStage([device("00:00.0"), *raws], **more)
    stage.engine = stage.start()
    compare(stage.engine)
    return stage


def told(stage, address=None):
    """Give the findings of Xen's console about a function, or with None about no function."""
    subject = None if address is None else S(address)
    return [f for of, f in stage.engine.findings if of == subject and f.text.startswith("Xen's console")]


def codes(stage, address=None):
    return [finding.code for finding in told(stage, address)]


def hears(stage, address):
    stage.hotplug.push("change", S(address))
    stage.settle(stage.engine)


def readings(stage):
    return [call.op for call in stage.xen.calls].count(Op.CONSOLE)


def test_a_fault_is_told_with_its_function_and_counted():
    stage = stage_of()
    for at in (0x1000, 0x2000, 0x3000):
        stage.xen.prints(FAULT.format(at))
    hears(stage, NIC)
    (finding,) = told(stage, NIC)
    assert finding.code == "interrupt-fault"
    assert "0x3000" in finding.text
    assert "3 times" in finding.text
    assert told(stage, DISK) == told(stage) == []


def test_what_was_printed_before_the_start_is_told_at_the_start():
    stage = stage_of()
    stage.xen.prints("setup 0000:00:07.0 for d0 failed (-19)")
    stage.xen.prints("d1: assign (0000:00:07.0) failed (-1)")  # that is over
    stage.engine = stage.start()
    compare(stage.engine)
    assert codes(stage, DISK) == ["setup-failed"]


def test_a_service_that_starts_again_reads_what_the_ring_holds():
    stage = stage_of()
    stage.xen.prints("d0 0000:00:06.0: init legacy cap 17 fail rc=-17, mask it")
    compare(stage.engine)
    stage.xen.reconnect()
    stage.engine = stage.start()
    compare(stage.engine)
    assert codes(stage, NIC) == ["capability-hidden"]
    assert stage.xen.console() == ""


@pytest.mark.parametrize("release", RELEASES)
def test_pages_of_a_hidden_msix_structure_are_trapped_where_xen_does_not_clean_up(release):
    stage = stage_of(**versioned(release))
    stage.xen.prints("d0 0000:00:06.0: init legacy cap 17 fail rc=-17, mask it")
    stage.xen.prints("d0 0000:00:07.0: init legacy cap 5 fail rc=-17, mask it")  # MSI
    compare(stage.engine)
    traps = release.startswith("4.21.")
    assert stage.engine.views.complaints.hidden_msix == ({S(NIC)} if traps else set())


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("d0 0000:00:06.0: init legacy cap 17 fail rc=-17, mask it", "capability-hidden"),
        ("d0 0000:00:06.0: hide legacy cap 17 fail rc=-2", "capability-not-hidden"),
        ("setup 0000:00:06.0 for d0 failed (-22)", "setup-failed"),
        ("DEVICE BUG: 0000:00:06.0: MSI-X PBA table at invalid BAR1 with type 0", "msix-refused"),
    ],
)
def test_what_lasts_outlives_the_console_and_ends_with_the_function(line, code):
    """Later lines, such as those of pcipt's own questions, push it out of the ring."""
    stage = stage_of(**versioned("4.21.0"))
    stage.xen.prints(line)
    compare(stage.engine)
    (before,) = told(stage, NIC)
    untrapped, hidden = stage.engine.views.complaints.untrapped, stage.engine.views.complaints.hidden_msix
    for _ in range(2):
        stage.engine = stage.start()
        compare(stage.engine)
        assert told(stage, NIC) == [before]
        assert before.code == code
        assert stage.engine.views.complaints.untrapped == untrapped
        assert stage.engine.views.complaints.hidden_msix == hidden
    stage.xen.prints(line)
    stage.engine = stage.start()
    compare(stage.engine)
    assert told(stage, NIC) == [before]  # said once, though it is kept and heard
    stage.pull(NIC)
    stage.settle(stage.engine)
    stage.plug(device(NIC, (0xFE00_0000, 0x2000)))
    stage.settle(stage.engine)
    stage.engine = stage.start()
    compare(stage.engine)
    assert codes(stage, NIC) == []


def test_a_moment_ends_with_the_next_comparison_and_what_lasts_stays():
    stage = stage_of()
    stage.xen.prints(FAULT.format(0))
    stage.xen.prints("d0 0000:00:06.0: init legacy cap 17 fail rc=-17, mask it")
    compare(stage.engine)
    assert codes(stage, NIC) == ["interrupt-fault", "capability-hidden"]
    dry_run(stage.engine)
    assert codes(stage, NIC) == ["interrupt-fault", "capability-hidden"]
    compare(stage.engine)
    assert codes(stage, NIC) == ["capability-hidden"]
    stage.pull(NIC)
    stage.settle(stage.engine)
    stage.plug(device(NIC, (0xFE00_0000, 0x2000)))
    stage.settle(stage.engine)
    assert codes(stage, NIC) == []


def test_a_failed_assignment_is_told_until_owners_are_asked_again():
    stage = stage_of()
    stage.xen.prints("d1: assign (0000:00:06.0) failed (-1)")
    hears(stage, NIC)
    assert codes(stage, NIC) == ["assign-failed"]
    hears(stage, NIC)
    assert codes(stage, NIC) == []


def test_a_failed_map_is_told_of_the_functions_with_bars_there():
    stage = stage_of()
    stage.xen.prints("Failed to map [fe100 fe100] -> [fe100 fe101] for d0: -12")
    stage.xen.prints("Failed to unmap [fe800 fe801] -> [fe800 fe802] for d0: -22")
    compare(stage.engine)
    assert codes(stage, DISK) == codes(stage) == ["vpci-map-failed"]
    assert "0xfe100" in told(stage, DISK)[0].text
    assert codes(stage, NIC) == []


def test_a_function_that_linux_does_not_have_is_none():
    stage = stage_of()
    stage.xen.prints("IOMMU: add 0000:05:00.0 failed (-19)")
    compare(stage.engine)
    assert codes(stage) == ["iommu-failed"]


def test_a_write_that_was_dropped_is_told_only_while_it_shows():
    stage = stage_of()
    stage.xen.prints("d0v0 0000:00:06.0: ignored BAR 0 write while mapped")
    hears(stage, NIC)
    assert codes(stage, NIC) == []  # hardware and Linux agree
    raw = stage.files.raws[S(NIC)]
    moved = device(NIC, (0xFE20_0000, 0x2000))
    stage.files.raws[S(NIC)] = attrs.evolve(raw, resources=moved.resources)
    hears(stage, NIC)
    assert codes(stage, NIC) == ["bar-write-dropped"]


def test_the_simulated_xen_prints_what_it_drops():
    stage = stage_of()
    stage.xen.console()
    stage.write(NIC, 0x10, 4, 0xFE20_0000)
    assert stage.xen.console() == "(XEN) d0v0 0000:00:06.0: ignored BAR 0 write while mapped\n"
    stage.write(NIC, 0x10, 4, 0xFE00_0000)
    assert stage.xen.console() == ""  # it is there already


@pytest.mark.parametrize("release", RELEASES)
def test_a_hidden_capability_on_each_release(release):
    """An MSI-X structure in a BAR that is not there: hidden from 4.21 on, before refused or taken."""
    stage = stage_of(device(NIC, (0xFE00_0000, 0x2000), msix=(3, 0, 0x800)), **versioned(release))
    found = codes(stage, NIC)
    assert ("capability-hidden" in found) is (release >= "4.21")
    if release >= "4.21":
        (hidden,) = (finding for finding in told(stage, NIC) if finding.code == "capability-hidden")
        assert "Message Control" in hidden.text
    assert ("vpci-missing" in codes(stage)) is (release in ("4.19.6", "4.20.4"))


@pytest.mark.parametrize("release", RELEASES)
def test_an_add_that_vpci_refuses_on_each_release(release):
    """Linux announces a function before its BARs have addresses: its MSI-X table seems to lie in RAM."""
    stage = stage_of(**versioned(release))
    stage.plug(device("00:08.0", (0, 0x2000), msix=(0, 0, 0x800)))
    stage.settle(stage.engine)
    refused = release in ("4.19.6", "4.20.4")
    assert "vpci-missing" not in codes(stage)  # Xen's line names no function, the orphan does
    assert ("orphan" in {finding.code for _, finding in stage.engine.findings}) is refused
    assert ("capability-hidden" in codes(stage, "00:08.0")) is (release == "4.21.0")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("reason", [Reason.WRITTEN, Reason.OWNER])
def test_what_xen_says_while_pcipt_adds_a_function_is_told_at_once(release, reason):
    """Whichever message lets pcipt see that Xen has forgotten the function."""
    stage = stage_of(**versioned(release))
    faulty = device(NIC, (0xFE00_0000, 0x2000), msix=(0, 0x1000, 0x8000))  # pending bits behind the BAR
    stage.xen.forget(S(NIC))
    stage.files.raws[S(NIC)] = faulty
    stage.hardware.pull(S(NIC))
    stage.hardware.plug(faulty)
    look(stage.engine, [S(NIC)], reason)
    assert ("capability-hidden" in codes(stage, NIC)) is (release >= "4.21")


def test_what_xen_says_of_another_function_meanwhile_is_told_as_well():
    stage = stage_of()
    stage.xen.forget(S(NIC))
    stage.xen.prints("IOMMU: add 0000:00:07.0 failed (-19)")
    look(stage.engine, [S(NIC)], Reason.DIFFERENT)
    assert stage.changes[-1][0] == "ADD"
    assert codes(stage, DISK) == ["iommu-failed"]


def test_a_failed_assignment_is_told_in_a_round_that_adds_the_function():
    stage = stage_of()
    stage.xen.forget(S(NIC))
    stage.xen.prints("d1: assign (0000:00:06.0) failed (-1)")
    hears(stage, NIC)
    assert stage.changes[-1][0] == "ADD"
    assert codes(stage, NIC) == ["assign-failed"]


def test_the_console_is_read_when_owners_are_asked_and_by_no_timer_but_that_of_faults():
    stage = stage_of(settings=Settings(list_s=0, faults_s=0))
    before = readings(stage)
    stage.engine.add(S(NIC), Reason.WRITTEN)
    stage.time += 1
    work_off(stage.engine)
    for _ in range(5):
        stage.time += 60
        work_off(stage.engine)
    assert readings(stage) == before
    hears(stage, NIC)
    assert readings(stage) == before + 1
    compare(stage.engine)
    assert readings(stage) == before + 2


def test_what_the_timer_hears_is_told_and_a_failed_assignment_is_kept_until_owners_are_asked():
    stage = stage_of(settings=Settings(list_s=0, faults_s=10))
    stage.xen.prints("d1: assign (0000:00:06.0) failed (-1)")
    stage.xen.prints("IOMMU: add 0000:00:07.0 failed (-19)")
    for _ in range(3):
        stage.time += 10
        work_off(stage.engine)
        assert (codes(stage, NIC), codes(stage, DISK)) == (["assign-failed"], ["iommu-failed"])
    hears(stage, NIC)
    assert codes(stage, NIC) == []


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EACCES])
def test_a_console_that_cannot_be_read_changes_nothing(number):
    stage = stage_of()
    stage.xen.prints(FAULT.format(0))
    hears(stage, NIC)
    stage.xen.fail(Op.CONSOLE, number)
    compare(stage.engine)
    assert codes(stage, NIC) == ["interrupt-fault"]
    assert "xen-not-asked" not in [finding.code for _, finding in stage.engine.findings]


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
@pytest.mark.parametrize("release", RELEASES)
def test_a_console_that_cannot_be_read_is_told_where_xen_hides_capabilities(release, dom0):
    """Xen hides an MSI-X structure that lies in no BAR, and nothing that dom0 can read shows it."""
    hides = dom0 == "pvh" and release >= "4.21"
    msix = (1, 0, 0x800) if hides else None  # earlier versions refuse such a function
    stage = stage_of(device(NIC, (0xFE00_0000, 0x2000), msix=msix), dom0=dom0, **versioned(release))
    for number in range(1, 9):
        stage.xen.fail(Op.CONSOLE, errno.EACCES, call=number)
    compare(stage.engine)
    assert codes(stage) == ["console-unread"] * hides
    if hides:
        assert health_of(stage.engine) == "degraded"
    stage.xen.heal()
    compare(stage.engine)
    assert codes(stage) == []


def test_a_device_that_faults_in_any_way_does_not_fill_the_memory():
    stage = stage_of()
    for number in range(KEPT + 50):
        stage.xen.prints(f"0000:00:06.0: not mapping BAR [{number:x}, {number:x}] invalid position")
    compare(stage.engine)
    assert len(codes(stage, NIC)) == KEPT
    stage.xen.prints(FAULT.format(0))
    hears(stage, NIC)
    assert "interrupt-fault" not in codes(stage, NIC)
    compare(stage.engine)
    assert codes(stage, NIC) == []


def test_a_xen_without_libxenctrl_has_no_complaints():
    stage = stage_of()

    def refuse():
        raise UnsupportedError("Xen's toolstack interface", "no libxenctrl")

    stage.xen.console = refuse
    compare(stage.engine)
    assert codes(stage) == codes(stage, NIC) == []


def test_the_owner_of_a_fault_does_not_matter():
    stage = stage_of()
    stage.xen.give(S(NIC), Owner(OwnerKind.DOMAIN, 3))
    stage.xen.prints(FAULT.format(0))
    compare(stage.engine)
    assert codes(stage, NIC) == ["interrupt-fault"]


def test_what_vpci_did_with_bars_is_forgotten_with_its_record():
    memory = Memory(Ledger("boot"))
    said = list(
        parse_complaints(
            f"(XEN) d0v0 0000:{NIC}: ignored BAR 0 write while mapped\n(XEN) {FAULT.format(0x1000)}\n"
        )
    )
    assert {each.code for each in said} == {Code.DROPPED, Code.INTERRUPT}
    for address in (NIC, DISK):
        memory.complaints[S(address)] = dict.fromkeys(said, 1)
    copied = memory.copy()
    forget_bars(copied, [S(NIC), S("00:08.0")])
    assert {each.code for each in copied.complaints[S(NIC)]} == {Code.INTERRUPT}
    assert len(copied.complaints[S(DISK)]) == 2
    forget_bars(copied, [S(NIC)])
    assert len(memory.complaints[S(NIC)]) == 2  # a dry run forgets nothing
    memory.complaints[S(NIC)] = {each: 1 for each in said if each.code is Code.DROPPED}
    forget_bars(memory, [S(NIC)])
    assert list(memory.complaints) == [S(DISK)]


@pytest.mark.parametrize("release", RELEASES)
def test_when_xen_forgets_a_function_what_vpci_did_is_told_no_more(release):
    stage = stage_of(**versioned(release))
    stage.xen.prints(f"0000:{NIC}: not mapping BAR [fe000, fe001] invalid position")
    hears(stage, NIC)
    assert codes(stage, NIC) == ["bar-not-mapped"]
    stage.xen.kernel_remove(S(NIC))
    hears(stage, NIC)
    assert codes(stage, NIC) == []
