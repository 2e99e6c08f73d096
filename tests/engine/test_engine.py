import errno

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pcipt.daemon.settings import Settings
from pcipt.errors import UnsupportedError
from pcipt.pci import Finding
from pcipt.remap.ledger import Entry, Ledger, State
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from tests.engine.stage import Killed, S, Stage, compare, dry_run, look, reread, told, usual_raws, work_off
from tests.machines import function

NIC = "0000:01:00.0"
ALL = ["00:00.0", "00:1c.0", "01:00.0", "01:00.1"]


def codes(engine):
    return [(str(sbdf) if sbdf else None, finding.code) for sbdf, finding in engine.findings]


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_a_consistent_machine_is_left_alone(dom0):
    stage = Stage(dom0=dom0)
    engine = stage.start()
    assert compare(engine) == []
    assert compare(engine) == []
    assert stage.changes == []
    assert stage.store.saved == 0
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


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_an_orphan_is_announced_again(dom0):
    stage = Stage(dom0=dom0)
    stage.xen.give(S(NIC), Owner(OwnerKind.NOBODY))
    engine = stage.start()
    assert told(compare(engine)) == [("add-device", NIC, "done")]
    assert engine.findings == []


def test_an_orphan_that_left_is_never_removed():
    stage = Stage()
    engine = stage.start()
    compare(engine)
    stage.xen.give(S("01:00.1"), Owner(OwnerKind.NOBODY))
    stage.pull("01:00.1")
    (outcome,) = look(engine, [S("01:00.1")])
    assert outcome.result.value == "refused"
    assert "panic" in outcome.detail
    assert stage.changes == []
    assert stage.xen.catastrophe is None


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
    assert "not mended" in engine.findings[0][1].text


@pytest.mark.parametrize(
    "number", [errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.ENODEV, errno.EFAULT, errno.EINVAL]
)
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
    class Liar:
        def __init__(self, xen):
            self._xen = xen

        def __getattr__(self, name):
            return getattr(self._xen, name)

        def add_device(self, _function, _flags):
            return None

    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    stage.xen = Liar(stage.xen)
    (outcome,) = compare(stage.start())
    assert outcome.result.value == "failed"
    assert "does not list it" in outcome.detail


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
    version=st.sampled_from([(4, 17), (4, 18), (4, 19), (4, 20)]),
)
def test_whatever_happens_the_host_survives_and_an_orphan_is_never_made(
    events, known, present, decoding, dom0, version
):
    command = 2 if decoding else 0
    raws = [function(str(sbdf), command=command) for sbdf in sorted(present)]
    covered = Coverage(functions=frozenset(present))
    stage = Stage(raws, known=sorted(map(str, known)), dom0=dom0, version=version, coverage=covered)
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
    assert len(stage.xen.changes) == quiet


def test_an_interrupted_reconciliation_stops_between_two_actions():
    stage = Stage(known=["00:00.0"])
    engine = stage.start()
    engine.interrupted = lambda: len(stage.changes) == 1
    assert told(compare(engine)) == [("add-device", "0000:00:1c.0", "done")]
    engine.interrupted = lambda: False
    assert len(compare(engine)) == 2
