"""Performing actions: batches, the ledger around each call, the second look, what is read back."""

import errno

import attrs
import pytest

from pcipt.daemon.settings import Settings
from pcipt.engine import performer
from pcipt.engine.calls import Tools
from pcipt.engine.performer import Performer, Rehearsal
from pcipt.engine.registers import Registers
from pcipt.pci import Address, Frames, Gfn
from pcipt.remap.actions import AddDevice, MapMmio, RemoveDevice, Result, RewriteBar, UnmapMmio
from pcipt.remap.desired import By
from pcipt.remap.ledger import State
from pcipt.remap.mapped_pages import MappedRun
from pcipt.xen.interface import DeviceFlags
from pcipt.xen.outcome import Op
from tests.engine.stage import BusStage, Liar, S, Stage, compare, dry_run, told, usual_raws
from tests.machines import function
from tests.xen.devices import device

HOST, PORT, NIC, VF = map(S, ("00:00.0", "00:1c.0", "01:00.0", "01:00.1"))
FULL = OSError(errno.ENOSPC, "No space left on device")
OBSERVED = Settings("observe")


def add(sbdf, **more):
    return AddDevice(sbdf, "why", **more)


def read_engine(stage, settings=None):
    """Give an engine that has read everything and done nothing."""
    wanted, stage.settings = stage.settings, OBSERVED
    engine = stage.start()
    compare(engine)
    engine.settings = stage.settings = settings or wanted
    return engine


def perform(engine, *actions):
    return list(engine._performer.perform(actions, engine.views))


def results(batches):
    return [[outcome.result.value for outcome in batch] for batch in batches]


def unknown_functions(count):
    stage = Stage([function(f"00:{number:02x}.0") for number in range(count)], known=[])
    return stage, read_engine(stage)


def test_a_batch_has_as_many_actions_as_are_allowed_and_no_more(monkeypatch):
    monkeypatch.setattr(performer, "BATCH", 3)
    stage, engine = unknown_functions(7)
    steps = []
    append = stage.store.append
    stage.store.append = lambda batch: (steps.append([step.event.value for step in batch]), append(batch))
    done = perform(engine, *(add(sbdf) for sbdf in engine.machine.functions))
    assert results(done) == [["done"] * 3, ["done"] * 3, ["done"]]
    assert steps == [[word] * count for count in (3, 3, 1) for word in ("intend", "performed")]


def test_a_batch_has_at_most_sixty_four_actions():
    assert performer.BATCH == 64


def test_an_action_that_a_guard_refuses_ends_the_batch_before_it_and_is_judged_alone():
    stage, engine = unknown_functions(4)
    functions = sorted(engine.machine.functions)
    actions = [add(functions[0]), add(S("09:00.0")), add(functions[1]), add(functions[2])]
    done = perform(engine, *actions)
    assert results(done) == [["done"], ["refused"], ["done", "done"]]
    assert [each.action for batch in done for each in batch] == actions
    assert done[1][0].rule == "hardware-answers"
    assert [name for name, _, _ in stage.changes] == ["ADD"] * 3


def test_what_the_settings_forbid_is_planned_and_the_rest_is_done():
    stage = Stage(known=["00:00.0", "00:1c.0"])
    engine = read_engine(stage, Settings(actions={"remove-device": False}))
    stage.xen.give(S("01:00.5"), stage.xen.devices[HOST].owner)
    engine.views.ask([S("01:00.5")])
    done = perform(engine, add(NIC), RemoveDevice(S("01:00.5"), "why"), add(VF, physfn=NIC))
    assert results(done) == [["done"], ["planned"], ["done"]]
    assert engine.ledger.find("remove-device", S("01:00.5")) is None


def test_what_the_settings_forbid_is_refused_where_a_guard_refuses_it():
    engine = read_engine(Stage(known=["00:00.0"]), OBSERVED)
    assert results(perform(engine, add(S("09:00.0")), add(PORT))) == [["refused"], ["planned"]]


def test_an_action_that_is_allowed_when_it_is_looked_at_again_is_done():
    stage = Stage(known=["00:00.0", "00:1c.0"])
    engine = read_engine(stage)
    stage.plug(function("02:00.0", parent="00:1c.0"))  # which is not read yet: by what is known it is refused
    assert results(perform(engine, add(S("02:00.0")))) == [["done"]]
    assert engine.ledger.find("add-device", S("02:00.0")).state is State.HELD
    assert engine.views.different == {S("02:00.0")}


def test_an_action_that_is_not_allowed_when_it_is_looked_at_again_is_not_done():
    stage = Stage(known=["00:00.0", "00:1c.0"])
    engine = read_engine(stage)
    stage.pull("01:00.0")
    ((outcome,),) = perform(engine, add(NIC))
    assert (outcome.result, outcome.rule) == (Result.REFUSED, "hardware-answers")
    assert stage.changes == []
    assert engine.ledger.find("add-device", NIC).state is State.DOUBTFUL


def test_nothing_is_begun_after_the_service_is_told_to_stop():
    stage, engine = unknown_functions(3)
    engine.interrupted = lambda: True
    assert perform(engine, *(add(sbdf) for sbdf in engine.machine.functions)) == []
    assert (stage.changes, stage.store.saved) == ([], 0)


def test_a_batch_stops_between_two_actions_and_the_rest_counts_as_not_begun():
    stage, engine = unknown_functions(4)
    engine.interrupted = lambda: len(stage.changes) == 2
    actions = [add(sbdf) for sbdf in engine.machine.functions]
    done = perform(engine, *actions)
    assert results(done) == [["done", "done"]]
    states = {entry.sbdf: entry.state for entry in stage.store.ledger.entries}
    first, second, third, fourth = (action.sbdf for action in actions)
    assert states == {first: State.HELD, second: State.HELD, third: State.DOUBTFUL, fourth: State.DOUBTFUL}


def test_what_cannot_be_intended_on_disk_fails_and_no_call_is_made():
    stage, engine = unknown_functions(3)
    stage.store.fails = FULL
    done = perform(engine, *(add(sbdf) for sbdf in engine.machine.functions))
    assert results(done) == [["failed"] * 3]
    assert {each.detail for each in done[0]} == {f"the ledger cannot be written: {FULL}"}
    assert (stage.changes, engine.ledger.entries) == ([], ())


def test_what_was_done_is_done_though_it_cannot_be_written():
    stage, engine = unknown_functions(2)
    first, second = engine.machine.functions
    append = stage.store.append
    stage.store.append = lambda steps: (append(steps), setattr(stage.store, "fails", FULL))
    stage.xen.fail(Op.ADD, errno.EBUSY)
    (batch,) = perform(engine, add(first), add(second))
    assert [each.result.value for each in batch] == ["failed", "done"]
    assert batch[0].detail.endswith(f"; the ledger cannot be written: {FULL}")
    assert batch[1].detail == f"the ledger cannot be written: {FULL}"
    assert engine.ledger.find("add-device", second).state is State.HELD


def test_a_failure_of_xen_has_its_number_and_keeps_no_other_action_from_being_tried():
    stage, engine = unknown_functions(3)
    stage.xen.fail(Op.ADD, errno.EBUSY, call=2)
    (batch,) = perform(engine, *(add(sbdf) for sbdf in engine.machine.functions))
    assert [each.result.value for each in batch] == ["done", "failed", "done"]
    assert [each.errno for each in batch] == [None, errno.EBUSY, None]
    assert "EBUSY" in batch[1].detail


def test_when_xen_cannot_be_asked_right_before_an_action_it_fails():
    stage, engine = unknown_functions(1)
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    ((outcome,),) = perform(engine, add(HOST))
    assert outcome.result is Result.FAILED
    assert "cannot compare them with Xen" in outcome.detail
    assert stage.changes == []


def test_an_announcement_is_read_back():
    stage, engine = unknown_functions(2)
    first, second = engine.machine.functions
    ((outcome,),) = perform(engine, add(first))
    assert (outcome.detail, engine.view.known) == ("", {first})
    stage.xen.fail(Op.ADD, errno.EBUSY, performed=True)  # it fails and is done all the same
    ((outcome,),) = perform(engine, add(second))
    assert (outcome.result, engine.view.known) == (Result.FAILED, {first, second})


def test_a_removal_is_read_back():
    stage = Stage()
    engine = read_engine(stage)
    stage.pull("01:00.1")
    engine.views.read([VF])
    ((outcome,),) = perform(engine, RemoveDevice(VF, "why"))
    assert (outcome.result, outcome.detail) == (Result.DONE, "")
    assert VF not in engine.view.known
    assert VF not in engine.memory.removed


def test_a_refused_action_is_not_read_back():
    stage = Stage()
    engine = read_engine(stage)
    perform(engine, add(S("09:00.0")))
    asked = [call.functions for call in stage.xen.calls if call.op is Op.KNOWN]
    perform(engine, add(S("09:00.0")))
    again = [call.functions for call in stage.xen.calls if call.op is Op.KNOWN][len(asked) :]
    assert len(again) == 1  # by the guard alone


def test_success_that_is_none_fails():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0", "01:00.5"])
    engine = read_engine(stage)
    tools = Tools(Liar(stage.xen), Registers(stage.host), stage.store.append, engine, stage.host.probe)
    gone = S("01:00.5")
    actions = [add(VF, physfn=NIC), RemoveDevice(gone, "why")]
    done = [each for batch in Performer(tools).perform(actions, engine.views) for each in batch]
    assert [each.result.value for each in done] == ["failed", "failed"]
    assert done[0].detail == "add-device: Xen reported success, but does not list the function"
    assert done[1].detail == "remove-device: Xen reported success, but still lists the function"


def test_an_addition_has_the_flags_of_its_function():
    stage = Stage(known=["00:00.0", "00:1c.0", "01:00.0"])
    engine = read_engine(stage)
    given = []
    call = stage.xen.add_device
    stage.xen.add_device = lambda sbdf, flags: (given.append((sbdf, flags)), call(sbdf, flags))
    perform(engine, add(VF, physfn=NIC), add(S("09:00.0"), extended=True))
    assert given == [(VF, DeviceFlags(extended=False, physfn=NIC))]
    again = Stage([*usual_raws(), function("02:00.0", parent="00:1c.0")], known=[])
    engine = read_engine(again)
    call_again = again.xen.add_device
    again.xen.add_device = lambda sbdf, flags: (given.append((sbdf, flags)), call_again(sbdf, flags))
    perform(engine, add(S("02:00.0"), extended=True))
    assert given[-1] == (S("02:00.0"), DeviceFlags(extended=True, physfn=None))


# Pages


UNTRAPPED = S("00:06.0")
AT, FREE = Frames(Gfn(0xFE000), 2), Frames(Gfn(0xFE100), 2)


def unannounced():
    stage = BusStage(
        [device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))],
        known=["00:00.0"],
        settings=Settings(actions={"add-device": False}),
    )
    return stage, read_engine(stage)


def place(engine, sbdf=UNTRAPPED):
    return engine.views.state.place_at(sbdf)


def test_pages_are_mapped_and_unmapped():
    stage, engine = unannounced()
    action = MapMmio(UNTRAPPED, "why", place(engine), 0, AT)
    ((outcome,),) = perform(engine, action)
    assert (outcome.result, outcome.detail) == (Result.DONE, "")
    assert [run.state for run in engine.ledger.mapped] == [State.HELD]
    stage.hardware.write(UNTRAPPED, 0x04, 2, 0)
    engine.views.read([UNTRAPPED])
    ((outcome,),) = perform(engine, UnmapMmio(UNTRAPPED, "why", place(engine), 0, AT))
    assert (outcome.result, outcome.detail, list(engine.ledger.mapped)) == (Result.DONE, "", [])
    assert [call.op for call in stage.xen.changes] == [Op.MAP, Op.UNMAP]


@pytest.mark.parametrize(
    ("number", "result"), [(errno.EINVAL, "done"), (errno.EBUSY, "failed"), (errno.ENOMEM, "failed")]
)
def test_unmapping_what_is_not_mapped_is_done(number, result):
    stage, engine = unannounced()
    engine.memory.mapped.put(MappedRun(place(engine), UNTRAPPED, 0, FREE, By.US, "then"))
    stage.xen.fail(Op.UNMAP, number)
    ((outcome,),) = perform(engine, UnmapMmio(UNTRAPPED, "why", place(engine), 0, FREE))
    assert outcome.result.value == result
    if result == "done":
        assert outcome.detail == "some of the pages were not mapped any more"
    else:
        assert outcome.errno == number


def test_functions_whose_pages_a_failed_map_took_away_are_different():
    stage, engine = unannounced()
    engine.memory.mapped.put(MappedRun("other", S("00:07.0"), 0, Frames(Gfn(0xFE001), 4), By.US, "then"))
    engine.memory.mapped.put(MappedRun("far", S("00:08.0"), 0, Frames(Gfn(0xFE008), 4), By.US, "then"))
    action = MapMmio(UNTRAPPED, "why", place(engine), 0, AT)
    stage.xen.fail(Op.MAP, errno.ENOMEM)
    assert results(perform(engine, action)) == [["failed"]]
    assert engine.views.take_different() == {S("00:07.0")}
    assert results(perform(engine, action)) == [["done"]]
    assert engine.views.take_different() == set()


def test_a_failed_unmap_takes_no_pages_of_others_away():
    stage, engine = unannounced()
    engine.memory.mapped.put(MappedRun(place(engine), UNTRAPPED, 0, FREE, By.US, "then"))
    engine.memory.mapped.put(MappedRun("other", S("00:07.0"), 0, FREE, By.US, "then"))
    stage.xen.fail(Op.UNMAP, errno.EBUSY)
    perform(engine, UnmapMmio(UNTRAPPED, "why", place(engine), 0, FREE))
    assert engine.views.take_different() == set()


def test_a_rewritten_bar_is_read_back():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))])
    engine = stage.start()
    compare(engine)
    stage.write("00:06.0", 0x10, 4, 0xFE10_0000)
    stage.intake.take_writes()
    action = RewriteBar(UNTRAPPED, "why", 0, before=Address(0xFE00_0000), address=Address(0xFE10_0000))
    ((outcome,),) = perform(engine, action)
    assert (outcome.result, outcome.detail) == (Result.DONE, "")
    (bar,) = engine.machine.functions[UNTRAPPED].bars
    assert bar.address == 0xFE10_0000
    assert UNTRAPPED in engine.views.different


def test_what_is_not_applicable_is_noted_once():
    stage = BusStage([device("00:00.0"), device("00:06.0", (0xFE00_0000, 0x2000))], dom0="pv")
    engine = stage.start()
    compare(engine)
    action = MapMmio(UNTRAPPED, "why", "another", 0, FREE)
    saved = stage.store.saved
    ((outcome,),) = perform(engine, action)
    assert outcome.result is Result.NOT_APPLICABLE
    assert "PV" in outcome.detail
    assert [(run.frames, run.state) for run in engine.memory.mapped.of("another")] == [(FREE, State.HELD)]
    assert stage.store.saved == saved


# The rehearsal


def rehearse(engine, *actions):
    rehearsal = Rehearsal(engine)
    views = rehearsal.views_for(engine.views)
    return list(rehearsal.perform(actions, views)), views


def test_a_rehearsal_plans_what_the_guards_allow_and_performs_nothing():
    stage, engine = unknown_functions(2)
    first, second = engine.machine.functions
    done, views = rehearse(engine, add(first), add(S("09:00.0")), add(second))
    assert results(done) == [["planned"], ["refused"], ["planned"]]
    assert (views.view.known, engine.view.known) == ({first, second}, set())
    assert (stage.changes, stage.store.saved) == ([], 0)
    assert views.memory is not engine.memory
    assert views.memory.ledger is not engine.memory.ledger


def test_a_rehearsal_counts_only_on_what_the_settings_allow():
    engine = read_engine(Stage(known=["00:00.0", "00:1c.0"]), OBSERVED)
    done, views = rehearse(engine, add(NIC), add(VF, physfn=NIC))
    assert results(done) == [["planned"], ["refused"]]
    assert done[1][0].rule == "physical-function-first"
    assert views.view.known == {HOST, PORT}


def test_a_rehearsal_plans_a_virtual_function_after_its_unknown_physical_one():
    stage = Stage(known=["00:00.0", "00:1c.0"])
    engine = read_engine(stage)
    done, _ = rehearse(engine, add(NIC), add(VF, physfn=NIC))
    assert results(done) == [["planned"], ["planned"]]
    assert told(dry_run(engine)) == [("add-device", str(NIC), "planned"), ("add-device", str(VF), "planned")]


def test_a_rehearsal_stops_between_two_actions():
    _, engine = unknown_functions(3)
    count = iter([False, False, True])
    engine.interrupted = lambda: next(count)
    done, _ = rehearse(engine, *(add(sbdf) for sbdf in engine.machine.functions))
    assert results(done) == [["planned"], ["planned"]]


def test_performing_changes_the_views_that_are_given():
    _, engine = unknown_functions(1)
    assert engine._performer.views_for(engine.views) is engine.views


def test_a_driver_that_is_bound_right_before_keeps_an_action_from_being_done():
    raws = [attrs.evolve(raw, driver=None) for raw in usual_raws()]
    stage = Stage(raws, known=["00:00.0", "00:1c.0", "01:00.1"], dom0="pvh")
    engine = read_engine(stage)
    stage.plug(attrs.evolve(stage.host.raws[NIC], driver="e1000e"))
    ((outcome,),) = perform(engine, add(NIC))
    assert (outcome.result.value, outcome.rule) == ("refused", "driver-needs-decode")
    assert engine.views.different == {NIC}
