import errno

import attrs
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcipt.daemon.settings import Settings
from pcipt.engine.engine import HISTORY, Engine
from pcipt.engine.queue import EVERYTHING, Reason
from pcipt.errors import UnsupportedError
from pcipt.pci import Finding, Frames, Gfn
from pcipt.pci.requester import Vendor
from pcipt.remap.actions import AddDevice, RemoveDevice
from pcipt.remap.ledger import Entry, Ledger, State
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from pcipt.xen.simulated.model import DOM0
from pcipt.xen.simulated.reserved import ReservedRegion
from tests.engine.stage import (
    BusStage,
    Killed,
    Liar,
    S,
    Stage,
    compare,
    dry_run,
    look,
    reports,
    reread,
    settled,
    told,
    usual_raws,
    work_off,
)
from tests.engine.world import ivrs_of
from tests.machines import function
from tests.xen.devices import device, port
from tests.xen.versions import VERSIONS

NIC = "0000:01:00.0"
ALL = ["00:00.0", "00:1c.0", "01:00.0", "01:00.1"]
SAFE = [version for version in VERSIONS if version >= (4, 19)]  # Xen survives the removal of an orphan
PANICS = [version for version in VERSIONS if version < (4, 19)]


def codes(engine):
    return [(str(sbdf) if sbdf else None, finding.code) for sbdf, finding in engine.findings]


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_a_consistent_machine_is_left_alone(dom0):
    stage = Stage(dom0=dom0)
    engine = stage.start()
    assert compare(engine) == []
    saved = stage.store.saved
    assert saved == (dom0 == "pvh")  # which functions there were
    assert compare(engine) == []
    assert stage.changes == []
    assert stage.store.saved == saved
    assert engine.findings == []


def test_unknown_functions_are_announced_parents_first_and_read_back():
    stage = Stage(known=["00:00.0"])
    engine = stage.start()
    outcomes = compare(engine)
    assert told(outcomes) == [
        ("add-device", "0000:00:1c.0", "done"),
        ("add-device", NIC, "done"),
        ("add-device", "0000:01:00.1", "done"),
    ]
    assert [name for name, _, _ in stage.changes] == ["ADD"] * 3
    assert stage.xen.devices[S("01:00.1")].flags.physfn == S(NIC)
    assert engine.added == [S("00:1c.0"), S(NIC), S("01:00.1")]
    assert engine.findings == []
    assert compare(engine) == []


def test_all_functions_are_asked_about_in_one_batch():
    stage = Stage()
    compare(stage.start())
    assert [call.op for call in stage.xen.calls].count(Op.KNOWN) == 1


def test_a_hot_added_function_is_announced_and_nothing_else_is_touched():
    stage = Stage()
    engine = stage.start()
    compare(engine)
    stage.plug(function("02:00.0", parent="00:1c.0"))
    asked = len(stage.xen.calls)
    assert told(look(engine, [S("02:00.0")])) == [("add-device", "0000:02:00.0", "done")]
    assert {f for call in stage.xen.calls[asked:] for f in call.functions} == {S("02:00.0")}


def test_a_function_the_kernel_announced_is_not_announced_again():
    stage = Stage()
    engine = stage.start()
    stage.plug(function("02:00.0", parent="00:1c.0"))
    stage.xen.kernel_add(S("02:00.0"))
    assert look(engine, [S("02:00.0")]) == []
    assert stage.changes == []


def test_what_left_the_machine_is_removed_from_xen():
    stage = Stage()
    engine = stage.start()
    compare(engine)
    stage.pull("01:00.1")
    stage.pull("01:00.0")
    outcomes = look(engine, [S(NIC), S("01:00.1")])
    assert told(outcomes) == [("remove-device", "0000:01:00.1", "done"), ("remove-device", NIC, "done")]
    assert engine.findings == []


def test_what_left_while_events_were_lost_is_found_by_comparing_everything():
    stage = Stage()
    engine = stage.start()
    compare(engine)
    stage.pull("01:00.1")
    assert told(compare(engine)) == [("remove-device", "0000:01:00.1", "done")]


def test_a_ghost_from_before_is_reported_and_stays():
    stage = Stage(known=[*ALL, "01:00.5"])
    engine = stage.start()
    assert compare(engine) == []
    assert codes(engine) == [("0000:01:00.5", "ghost")]
    assert engine.ghosts == [S("01:00.5")]


def test_a_guests_function_that_vanished_is_not_removed():
    stage = Stage()
    engine = stage.start()
    compare(engine)
    stage.xen.give(S("01:00.1"), Owner(OwnerKind.DOMAIN, 5))
    stage.pull("01:00.1")
    (outcome,) = look(engine, [S("01:00.1")])
    assert (outcome.result.value, outcome.rule) == ("refused", "owned-by-dom0")
    assert "guest 5" in outcome.detail
    assert stage.changes == []
    assert "guest 5" in engine.findings[0][1].text


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_an_orphan_is_announced_again(dom0, version):
    stage = Stage(dom0=dom0, version=version)
    stage.xen.give(S(NIC), Owner(OwnerKind.NOBODY))
    engine = stage.start()
    assert told(compare(engine)) == [("add-device", NIC, "done")]
    assert engine.findings == []


@pytest.mark.parametrize("version", PANICS)
def test_an_orphan_that_left_is_never_removed(version):
    stage = Stage(version=version)
    engine = stage.start()
    compare(engine)
    stage.xen.give(S("01:00.1"), Owner(OwnerKind.NOBODY))
    stage.pull("01:00.1")
    (outcome,) = look(engine, [S("01:00.1")])
    assert outcome.result.value == "refused"
    assert "panic" in outcome.detail
    assert stage.changes == []
    assert stage.xen.catastrophe is None


@pytest.mark.parametrize("version", SAFE)
def test_an_orphan_that_left_is_removed_where_that_is_safe(version):
    stage = Stage(version=version)
    engine = stage.start()
    compare(engine)
    stage.xen.give(S("01:00.1"), Owner(OwnerKind.NOBODY))
    stage.pull("01:00.1")
    (outcome,) = look(engine, [S("01:00.1")])
    assert (outcome.result.value, outcome.detail) == ("done", "Xen listed the function without an owner")
    assert engine.ghosts == []


def orphan_without_hardware(version):
    """Xen made its record of the NIC while nothing answered there: it does not know what the NIC is."""
    stage = Stage([raw for raw in usual_raws() if raw.sbdf != S(NIC)], version=version)
    assert stage.xen.kernel_add(S(NIC)) < 0
    stage.plug(next(raw for raw in usual_raws() if raw.sbdf == S(NIC)))
    return stage


@pytest.mark.parametrize("version", SAFE)
def test_an_orphan_whose_record_is_stale_is_removed_and_added(version):
    stage = orphan_without_hardware(version)
    engine = stage.start()
    assert told(compare(engine)) == [("add-device", NIC, "done")]
    assert [call.op for call in stage.xen.changes] == [Op.ADD, Op.REMOVE, Op.ADD]
    assert (stage.xen.devices[S(NIC)].owner, engine.findings) == (DOM0, [])


@pytest.mark.parametrize("version", PANICS)
def test_an_orphan_whose_record_is_stale_is_never_removed_where_that_panics(version):
    stage = orphan_without_hardware(version)
    engine = stage.start()
    assert told(compare(engine)) == [("add-device", NIC, "failed")]
    assert {call.op for call in stage.xen.changes} == {Op.ADD}
    assert "orphan" in {finding.code for _, finding in engine.findings}


def test_on_pvh_memory_decode_is_off_around_an_uncertain_add():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.1"], dom0="pvh")
    assert told(compare(stage.start())) == [("add-device", NIC, "done")]
    assert stage.host.commands == [(NIC, 0x4), (NIC, 0x6)]


def test_decode_that_cannot_be_switched_off_stops_the_add_and_is_restored():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.1"], dom0="pvh")
    stage.host.stubborn = True
    (outcome,) = compare(stage.start())
    assert outcome.result.value == "failed"
    assert "switched off" in outcome.detail
    assert stage.changes == []
    assert stage.host.commands[-1] == (NIC, 0x6)


def test_a_bus_outside_of_the_boot_time_range_is_refused():
    stage = Stage(dom0="pvh")
    engine = stage.start()
    compare(engine)
    stage.plug(function("09:00.0", command=2))
    (outcome,) = look(engine, [S("09:00.0")])
    assert (outcome.result.value, outcome.rule) == ("refused", "iommu-coverage")
    assert stage.changes == []
    assert "not repaired" in engine.findings[0][1].text


@pytest.mark.parametrize("number", [errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.EFAULT, errno.EINVAL])
def test_a_failing_add_is_told_does_not_stop_the_rest_and_is_retried(number):
    stage = Stage(known=["00:00.0"])
    stage.xen.fail(Op.ADD, number)
    engine = stage.start()
    outcomes = compare(engine)
    assert [o.result.value for o in outcomes] == ["failed", "done", "done"]
    assert errno.errorcode[number] in outcomes[0].detail
    assert stage.store.ledger.find("add-device", S("00:1c.0")).state is State.DOUBTFUL
    assert told(compare(engine)) == [("add-device", "0000:00:1c.0", "done")]
    assert stage.store.ledger.find("add-device", S("00:1c.0")).state is State.HELD


@pytest.mark.parametrize("version", VERSIONS)
def test_an_orphan_that_no_unit_serves_is_announced_once_until_linux_drops_it(version):
    stage = Stage(dom0="pvh", version=version, coverage=Coverage(buses=frozenset({(0, 0), (0, 1)})))
    unserved = function("09:00.0")
    stage.plug(unserved)
    stage.xen.kernel_add(unserved.sbdf)
    engine = stage.start()
    assert told(compare(engine)) == [("add-device", "0000:09:00.0", "failed")]
    (refused,) = compare(engine)
    assert (refused.result.value, refused.rule) == ("refused", "iommu-coverage")
    assert "no IOMMU unit serves it" in refused.detail
    stage.pull("09:00.0")
    look(engine, [unserved.sbdf])
    assert engine.memory.unserved == set()


@pytest.mark.parametrize("version", VERSIONS)
def test_an_address_where_xen_took_a_function_is_served_until_the_next_boot(version):
    """A PVH dom0 cannot read AMD's table: what came later is added only where Xen has taken one before."""
    served = Coverage(buses=frozenset({(0, 0), (0, 9)}), vendor=Vendor.AMD)
    bridge = device("00:00.0", vendor=0x1022, class_code=0x060000)
    stage = BusStage([bridge, port("00:01.0", 9, 9)], version=version, coverage=served)
    engine = stage.start()
    compare(engine)
    here, there = device("09:00.0", command=0), device("09:01.0", command=0)
    for raw in (here, there):
        stage.plug(raw)
        stage.xen.kernel_add(raw.sbdf)
        stage.xen.forget(raw.sbdf)
        if raw is here:
            stage.xen.kernel_add(raw.sbdf)
            look(engine, [raw.sbdf])
            stage.xen.forget(raw.sbdf)
    results = {(str(outcome.action.sbdf), outcome.result.value) for outcome in compare(engine)}
    assert results == {("0000:09:00.0", "done"), ("0000:09:01.0", "refused")}


@pytest.mark.parametrize("version", [version for version in VERSIONS if version >= (4, 19)])
def test_memory_decode_is_on_again_after_an_add_that_failed(version):
    """vPCI switches it off to size the BARs; before 4.19 such an add is made with decode off."""
    raw = device("00:05.0", (0xC000_0000, 0x4000))
    nobody = Coverage(buses=frozenset(), vendor=Vendor.AMD)
    stage = BusStage([device("00:1e.2", vendor=0x1022)], version=version, coverage=nobody)
    engine = stage.start()
    compare(engine)
    stage.plug(raw)
    stage.write("00:05.0", 0x04, 2, 0x2)
    assert ("add-device", "0000:00:05.0", "failed") in told(stage.settle(engine))
    assert stage.hardware.config(S("00:05.0"))[0x04] & 0x2


def test_what_depends_on_a_failed_step_is_not_tried():
    stage = Stage(known=["00:00.0", "00:1c.0"])
    stage.xen.fail(Op.ADD, errno.ENOMEM)
    outcomes = compare(stage.start())
    assert told(outcomes) == [("add-device", NIC, "failed"), ("add-device", "0000:01:00.1", "refused")]


@pytest.mark.parametrize("op", [Op.KNOWN, Op.CUSTODY])
def test_when_xen_cannot_be_asked_nothing_is_done_and_it_is_said(op):
    stage = Stage(known=["00:00.0"])
    stage.xen.fail(op, errno.EACCES if op is Op.KNOWN else errno.EPERM)
    engine = stage.start()
    assert compare(engine) == []
    assert stage.changes == []
    assert codes(engine) == [(None, "xen-not-asked")]
    assert len(compare(engine)) == 3
    assert codes(engine) == []


def test_success_that_did_nothing_is_a_failure():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    stage.xen = Liar(stage.xen)
    (outcome,) = compare(stage.start())
    assert outcome.result.value == "failed"
    assert "does not list the function" in outcome.detail


@pytest.mark.parametrize(
    "chosen", [Settings("observe"), Settings("enforce", {"add-device": False, "remove-device": True})]
)
def test_what_the_settings_forbid_is_planned_and_not_done(chosen):
    stage = Stage(known=["00:00.0"], settings=chosen)
    engine = stage.start()
    outcomes = compare(engine)
    assert {o.result.value for o in outcomes} == {"planned", "refused"}
    assert stage.changes == []
    assert stage.store.saved == 0
    assert len(engine.findings) == 3


def test_a_dry_run_shows_the_plan_and_leaves_no_trace():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    engine = stage.start()
    assert told(dry_run(engine)) == [("add-device", "0000:01:00.1", "planned")]
    assert stage.changes == []
    assert list(engine.records) == []
    assert codes(engine) == [("0000:01:00.1", "unknown-to-xen")]  # which it has found out


def test_the_ledger_is_written_before_the_hypercall_and_after_it():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    order = []
    append, add = stage.store.append, stage.xen.add_device
    stage.store.append = lambda steps: (order.append([step.event.value for step in steps]), append(steps))
    stage.xen.add_device = lambda f, flags: (order.append("hypercall"), add(f, flags))
    compare(stage.start())
    assert order == [["intend"], "hypercall", ["performed"]]


def test_intentions_of_many_are_written_together_and_bounded():
    raws = [function(f"00:{number:02x}.{fn}") for number in range(16) for fn in range(8)]
    stage = Stage(raws, known=[])
    order = []
    append, add = stage.store.append, stage.xen.add_device
    stage.store.append = lambda steps: (order.append(len(steps)), append(steps))
    stage.xen.add_device = lambda f, flags: (order.append("call"), add(f, flags))
    assert len(compare(stage.start())) == 128
    assert order == [64, *["call"] * 64, 64] * 2


def test_a_ledger_that_cannot_be_written_prevents_the_hypercall():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    stage.store.fails = OSError(errno.ENOSPC, "No space left on device")
    (outcome,) = compare(stage.start())
    assert outcome.result.value == "failed"
    assert "ledger" in outcome.detail
    assert stage.changes == []


def test_a_full_disk_is_a_finding_and_everything_else_goes_on():
    stage = Stage()
    stage.store.snapshot = None
    stage.store.ledger = Ledger("boot", (Entry("add-device", S("01:00.0"), State.INTENDED, "cut short"),))
    stage.store.fails = OSError(errno.ENOSPC, "No space left on device")
    engine = stage.start()
    assert compare(engine) == []
    assert {finding.code for _, finding in engine.findings} == {"boot-snapshot-unsaved", "ledger-unsaved"}
    stage.store.fails = None
    compare(engine)
    assert engine.findings == []
    assert stage.store.snapshot is not None
    assert [entry.state for entry in stage.store.ledger.entries] == [State.HELD]


def test_what_xen_was_told_before_the_disk_was_full_is_known():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    engine = stage.start()
    append = stage.store.append

    def once(steps):
        append(steps)
        stage.store.fails = OSError(errno.ENOSPC, "No space left on device")

    stage.store.append = once
    (outcome,) = compare(engine)
    assert outcome.result.value == "done"
    assert "the ledger cannot be written" in outcome.detail
    assert outcome.action.sbdf in engine.view.known


@pytest.mark.parametrize("die_at", range(1, 5))
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_any_point_and_started_again_it_ends_right(die_at, after):
    stage = Stage(known=["00:00.0"])
    stage.store.die_at, stage.store.die_after = die_at, after
    with pytest.raises(Killed):
        compare(stage.start())
    again = stage.start()
    compare(again)
    stage.time += 5
    work_off(again)
    assert set(stage.xen.devices) == {S(a) for a in ALL}
    assert again.findings == []
    assert {entry.state for entry in stage.store.ledger.entries} == {State.HELD}
    changes = stage.changes
    assert compare(stage.start()) == []
    assert stage.changes == changes


def test_a_new_boot_starts_with_an_empty_ledger_and_a_new_snapshot():
    stage = Stage(known=["00:00.0"])
    compare(stage.start())
    stage.host.boot_id = "next"
    stage.store.snapshot = None
    engine = stage.start()
    compare(engine)
    assert engine.added == []
    assert stage.store.snapshot.boot_id == "next"


def test_trouble_of_the_keeper_is_a_finding():
    stage = Stage()
    stage.store.findings = [Finding("ledger-damaged", "kept aside")]
    engine = stage.start()
    compare(engine)
    assert codes(engine) == [(None, "ledger-damaged")]


def test_a_function_of_another_world_is_a_note_and_no_fault():
    stage = Stage([*usual_raws(), function("10000:00:00.0")])
    engine = stage.start()
    assert compare(engine) == []
    assert engine.findings == []
    assert any(f.code == "segment-not-in-xen" for _, f in engine.machine.findings)


def test_unsupported_owner_lists_leave_the_owner_unnamed():
    stage = Stage()
    stage.xen.give(S(NIC), Owner(OwnerKind.DOMAIN, 3))

    def refuse():
        raise UnsupportedError("key Q", "no console")

    stage.xen.owners = refuse
    engine = stage.start()
    compare(engine)
    assert engine.view.elsewhere == {S(NIC): "an owner that Xen does not name"}


def test_rereading_asks_only_whether_xen_still_lists_what_is_different():
    stage = Stage()
    engine = stage.start()
    compare(engine)
    asked = len(stage.xen.calls)
    reread(engine, [S(NIC)])
    assert len(stage.xen.calls) == asked
    stage.plug(function("01:00.0", parent="00:1c.0", command=0x2))
    reread(engine, [S(NIC)])
    assert engine.machine.functions[S(NIC)].command == 0x2
    assert [(call.op, call.functions[0]) for call in stage.xen.calls[asked:]] == [(Op.KNOWN, S(NIC))]


def test_xens_list_is_not_dumped_again_for_a_guests_function():
    stage = Stage()
    stage.xen.give(S(NIC), Owner(OwnerKind.DOMAIN, 3))
    engine = stage.start()
    compare(engine)
    for _ in range(5):
        look(engine, [S(NIC)])
    assert [call.op for call in stage.xen.calls].count(Op.KEY) == 1
    assert engine.view.elsewhere == {S(NIC): "guest 3"}
    stage.xen.give(S(NIC), Owner(OwnerKind.DOMAIN, 0))
    look(engine, [S(NIC)])
    assert engine.view.elsewhere == {}


ADDRESSES = [S(f"{bus:02x}:00.{fn}") for bus in (0, 1, 2, 9) for fn in range(3)]
EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["plug", "pull", "forget", "orphan", "guest", "rescan"]), st.sampled_from(ADDRESSES)
    ),
    max_size=12,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    events=EVENTS,
    known=st.sets(st.sampled_from(ADDRESSES)),
    present=st.sets(st.sampled_from(ADDRESSES)),
    decoding=st.booleans(),
    dom0=st.sampled_from(["pv", "pvh"]),
    version=st.sampled_from(VERSIONS),
    vendor=st.sampled_from(Vendor),
)
def test_whatever_happens_the_host_survives_and_an_orphan_is_never_made(
    events, known, present, decoding, dom0, version, vendor
):
    command = 2 if decoding else 0
    unit = [function("00:1e.2", vendor=0x1022, class_code=0x080600)] if vendor is Vendor.AMD else []
    raws = [*unit, *(function(str(sbdf), command=command) for sbdf in sorted(present))]
    covered = Coverage(functions=frozenset(present), vendor=vendor)
    known = sorted(str(raw.sbdf) for raw in unit) + sorted(map(str, known))
    stage = Stage(raws, known=known, dom0=dom0, version=version, coverage=covered)
    if unit and dom0 == "pv":  # a PVH dom0 cannot read the table
        stage.host.tables = [ivrs_of(covered)]
    orphans = set()
    engine = stage.start()
    compare(engine)
    for what, sbdf in events:
        if what == "plug":
            stage.plug(function(str(sbdf), command=command))
        elif what == "pull":
            stage.host.raws.pop(sbdf, None)
        elif what == "forget":
            stage.xen.forget(sbdf)
            orphans.discard(sbdf)
        elif what == "orphan":
            stage.xen.give(sbdf, Owner(OwnerKind.NOBODY))
            orphans.add(sbdf)
        elif what == "guest":
            stage.xen.give(sbdf, Owner(OwnerKind.DOMAIN, 7))
            orphans.discard(sbdf)
        compare(engine) if what == "rescan" else look(engine, [sbdf])
        nobodys = {s for s, d in stage.xen.devices.items() if d.owner.kind is OwnerKind.NOBODY}
        assert stage.xen.catastrophe is None
        assert nobodys <= orphans
    compare(engine)
    quiet = len(stage.xen.changes)
    compare(engine)
    assert stage.xen.changes[quiet:] == ()


def test_an_interrupted_reconciliation_stops_between_two_actions():
    stage = Stage(known=["00:00.0"])
    engine = stage.start()
    engine.interrupted = lambda: len(stage.changes) == 1
    assert told(compare(engine)) == [("add-device", "0000:00:1c.0", "done")]
    engine.interrupted = lambda: False
    assert len(compare(engine)) == 2


# Work


def reasons(engine):
    keys = [sbdf for sbdf in engine.machine.functions if engine.queue.reasons_of(sbdf)]
    return {str(sbdf)[5:]: set(engine.queue.reasons_of(sbdf)) for sbdf in keys}


def test_everything_is_due_when_the_service_starts():
    engine = Stage().start()
    assert engine.next_due() == 0.0
    assert [work.key for work in engine.take().work] == [EVERYTHING]


def test_the_time_until_work_is_due_is_never_less_than_none():
    stage = Stage()
    engine = settled(stage)
    engine.add(S(NIC), Reason.OWNER, quiet=0.25)
    assert engine.next_due() == 0.25
    stage.time += 0.2
    assert engine.next_due() == pytest.approx(0.05)
    stage.time += 1
    assert engine.next_due() == 0.0


def test_a_message_that_nobody_says_must_be_quiet_is_due_at_once():
    engine = settled(Stage())
    engine.add(S(NIC), Reason.OWNER)
    assert engine.next_due() == 0.0
    reports(engine)
    engine.add_everything(Reason.LOST)
    assert engine.next_due() == 0.0


def test_without_everything_only_functions_are_worked_off():
    stage = Stage()
    engine = settled(stage)
    engine.add_everything(Reason.LOST, quiet=0.5)
    assert engine.next_due() == 0.5
    stage.time += 1
    engine.add(S(NIC), Reason.REQUESTED)
    (report,) = reports(engine, whole=False)
    assert report.read == {S(NIC)}
    assert engine.take(whole=False).work == ()
    assert len(engine.take().work) == 1


def test_an_interrupted_engine_works_nothing_off_beyond_what_was_begun():
    engine = settled(Stage())
    engine.add(S(NIC), Reason.REQUESTED)
    engine.take_messages = lambda: engine.add(S("00:00.0"), Reason.REQUESTED)
    engine.interrupted = lambda: True
    assert len(reports(engine)) == 1


def test_the_engine_records_what_came_of_the_latest_actions():
    stage = Stage(known=["00:00.0"])
    engine = stage.start()
    outcomes = compare(engine)
    assert [record.outcome for record in engine.records] == outcomes
    assert {record.when for record in engine.records} == {"2026-01-01T00:00:00Z"}
    engine.records.extend([engine.records[0]] * 500)
    assert len(engine.records) == HISTORY == 200


def test_the_engine_knows_since_when_it_runs():
    stage = Stage()
    times = iter(["then", "now", "later"])
    engine = Engine(stage.host, stage.xen, stage.store, stage.settings, lambda: next(times), lambda: 0.0)
    assert (engine.since, engine.now()) == ("then", "now")


# Questions


def test_what_an_explanation_finds_different_becomes_work():
    stage = Stage()
    engine = settled(stage)
    assert engine.explain(S(NIC)).function.command == 0x6
    assert (reasons(engine), engine.next_due()) == ({}, None)
    stage.plug(function("01:00.0", parent="00:1c.0", command=0x2))
    assert engine.explain(S(NIC)).function.command == 0x2
    assert (reasons(engine), engine.next_due()) == ({"01:00.0": {Reason.DIFFERENT}}, 0.0)


def test_an_explanation_that_xen_was_not_asked_for_is_made_up_for():
    stage = Stage()
    engine = settled(stage)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    engine.explain(S(NIC))
    assert (reasons(engine), engine.next_due()) == ({"01:00.0": {Reason.NOT_ASKED}}, 1.0)


def test_a_function_that_the_machine_does_not_have_cannot_be_explained():
    engine = settled(Stage())
    with pytest.raises(KeyError):
        engine.explain(S("09:00.0"))


def test_an_explanation_says_what_xen_says_now():
    stage = Stage()
    engine = settled(stage)
    stage.xen.give(S(NIC), Owner(OwnerKind.DOMAIN, 5))
    explained = engine.explain(S(NIC))
    assert (explained.known, explained.owner) == (True, "guest 5")
    stage.xen.forget(S(NIC))
    explained = engine.explain(S(NIC))
    assert explained.known is False
    assert [step.action.word for step in explained.steps] == ["add-device"]


def test_what_a_dry_run_finds_different_becomes_work():
    stage = Stage()
    engine = settled(stage)
    stage.plug(function("01:00.0", parent="00:1c.0", command=0x2))
    engine.views.different.add(S("00:00.0"))
    assert dry_run(engine) == []
    assert reasons(engine) == {"01:00.0": {Reason.DIFFERENT}, "00:00.0": {Reason.DIFFERENT}}
    assert engine.next_due() == 0.0
    assert engine.views.different == set()


@pytest.mark.parametrize("taken", [False, True])
def test_what_a_dry_run_finds_different_is_no_work_while_everything_waits(taken):
    stage = Stage()
    engine = settled(stage)
    stage.plug(function("01:00.0", parent="00:1c.0", command=0x2))
    engine.add_everything(Reason.LOST, quiet=0.5)
    if taken:
        stage.time += 1
        assert len(engine.take().work) == 1
    dry_run(engine)
    assert reasons(engine) == {}


def test_a_dry_run_is_done_slice_by_slice(monkeypatch):
    monkeypatch.setattr("pcipt.engine.round.SLICE", 2)
    stage = Stage(known=["00:00.0"])
    engine = stage.start()
    one_slice, reports = engine.rehearse(), []
    while not reports or not reports[-1].finished:
        assert codes(engine) == []
        reports.append(one_slice())
    assert len(reports) > 3
    assert [o.result.value for report in reports for o in report.outcomes] == ["planned"] * 3
    assert {code for _, code in codes(engine)} == {"unknown-to-xen"}
    assert stage.changes == []


# What is told


def test_the_engine_is_unsettled_while_work_is_due():
    stage = Stage()
    engine = settled(stage)
    assert engine.unsettled() is False
    engine.add(S(NIC), Reason.OWNER, quiet=0.5)
    assert engine.unsettled() is False
    stage.time += 0.5
    assert engine.unsettled() is True


def test_the_engine_is_unsettled_while_xen_could_not_be_asked():
    stage = Stage()
    engine = settled(stage)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    look(engine, [S(NIC)])
    assert (engine.next_due(), engine.unsettled()) == (1.0, True)
    stage.time += 1
    work_off(engine)
    assert engine.unsettled() is False


def test_the_engine_is_unsettled_while_the_console_could_not_be_read_for_owners():
    raws = [attrs.evolve(raw, driver="pciback") if str(raw.sbdf) == NIC else raw for raw in usual_raws()]
    stage = Stage(raws)
    engine = stage.start()
    stage.xen.fail(Op.KEY, errno.EBUSY)
    compare(engine)
    assert engine.unsettled() is True
    stage.time += 1
    work_off(engine)
    assert engine.unsettled() is False


@pytest.mark.parametrize(("reason", "must"), [(Reason.LOST, True), (Reason.REQUESTED, False)])
def test_everything_must_be_read_from_a_loss_until_it_is_finished(reason, must, monkeypatch):
    monkeypatch.setattr("pcipt.engine.round.SLICE", 2)
    stage = Stage()
    engine = settled(stage)
    engine.add_everything(reason, quiet=5.0)
    assert engine.must_read_everything is must
    stage.time += 1
    engine.reconcile(engine.take())
    assert (engine.must_read_everything, engine.unsettled()) == (must, True)
    reports(engine)
    assert (engine.must_read_everything, engine.unsettled()) == (False, False)


def test_the_engine_is_unsettled_after_a_loss_though_nothing_is_due():
    engine = settled(Stage())
    engine.add_everything(Reason.LOST, quiet=0.5)
    assert engine.next_due() == 0.5
    assert engine.unsettled() is True


def test_the_functions_that_xen_lists_are_counted():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.5"], settings=Settings("observe"))
    engine = stage.start()
    compare(engine)
    assert engine.known_functions == 2
    assert (engine.ghosts, engine.added) == ([S("01:00.5")], [])
    assert engine.finding_count == len(engine.findings) == 3


def test_a_function_at_its_new_address_is_no_ghost():
    engine = settled(Stage(known=[*ALL, "01:00.5"]))
    engine.views.state.renumbered[S(NIC)] = S("01:00.5")
    assert engine.ghosts == []


def test_news_are_told_once_and_have_the_services_own():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"], settings=Settings("observe"))
    engine = stage.start()
    compare(engine)
    new, gone = engine.news()
    assert [(str(sbdf), finding.code, gone) for sbdf, finding in new] == [
        ("0000:01:00.1", "unknown-to-xen", [])
    ]
    assert engine.news() == ([], [])
    own = Finding("watch-unavailable", "no")
    engine.service_findings.append(own)
    assert engine.news() == ([(None, own)], [])
    engine.service_findings.clear()
    assert engine.findings == new
    assert engine.news() == ([], [(None, own)])


def test_the_functions_given_away_are_those_of_pciback():
    raws = [attrs.evolve(raw, driver="pciback") if str(raw.sbdf) == NIC else raw for raw in usual_raws()]
    engine = Stage(raws).start()
    compare(engine)
    assert engine.given_away == [S(NIC)]
    assert engine.raws[S(NIC)] == raws[2]


def test_the_store_is_written_and_closed_at_the_end():
    stage = Stage()
    engine = settled(stage)
    called = []
    stage.store.save = called.append
    stage.store.close = lambda: called.append("closed")
    engine.save()
    engine.close()
    assert called == [engine.ledger, "closed"]


def test_the_settings_decide_what_is_performed():
    engine = settled(Stage(settings=Settings(actions={"add-device": False})))
    add, remove = AddDevice(S(NIC), ""), RemoveDevice(S(NIC), "")
    assert (engine.allows(add), engine.allows(remove)) == (False, True)


def test_messages_are_taken_when_the_reconciliation_asks_for_them():
    engine = settled(Stage())
    taken = []
    engine.take_messages = lambda: taken.append(1)
    engine.collect()
    assert taken == [1]


def test_an_explanation_has_ignored_writes_and_reserved_regions():
    raws = [device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000), driver="pciback")]
    region = ReservedRegion(Frames(Gfn(0x7FFF0), 2), (S("00:06.0"),))
    stage = BusStage(raws, settings=Settings("observe"), reserved=[region])
    engine = stage.start()
    compare(engine)
    stage.write("00:06.0", 0x10, 4, 0xFE10_0000)
    stage.intake.take_writes()
    steps = [step.action.word for step in engine.explain(S("00:06.0")).steps]
    assert "rewrite-bar" in steps
    stage.xen.give(S("00:06.0"), Owner(OwnerKind.DOMAIN, 3))
    look(engine, [S("00:06.0")])
    assert "withdraw-reserved" in [step.action.word for step in engine.explain(S("00:06.0")).steps]


def test_a_comparison_ends_the_findings_of_functions_that_nobody_has_any_more():
    stage = Stage(known=[*ALL, "01:00.5"])
    engine = stage.start()
    compare(engine)
    assert codes(engine) == [("0000:01:00.5", "ghost")]
    stage.xen.forget(S("01:00.5"))
    compare(engine)
    assert codes(engine) == []


def test_a_comparison_ends_the_open_actions_of_functions_that_nobody_has_any_more():
    stage = Stage()
    engine = stage.start()
    compare(engine)
    stage.xen.give(S("01:00.1"), Owner(OwnerKind.DOMAIN, 5))
    stage.pull("01:00.1")
    (first,) = look(engine, [S("01:00.1")])
    stage.xen.forget(S("01:00.1"))
    compare(engine)
    assert engine.findings == []
    stage.xen.give(S("01:00.1"), Owner(OwnerKind.DOMAIN, 5))
    engine.memory.removed.add(S("01:00.1"))
    assert look(engine, [S("01:00.1")]) == [first]  # it is news again
