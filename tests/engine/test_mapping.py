"""The engine keeps the 1:1 map right: the scenes of a PVH dom0 and of a PV one, judged by the p2m itself."""

import errno

import attrs
import pytest

from pcipt.daemon.control.status import health_of
from pcipt.daemon.settings import Settings
from pcipt.engine.queue import Reason
from pcipt.pci import RawFunction, Resource
from pcipt.remap.guard.facts import Precaution
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import Coverage
from tests.engine.stage import BusStage, Killed, S, codes, compare, dry_run, look, right, work_off
from tests.xen.devices import SRIOV_AT, device, port
from tests.xen.truth import mapped_pages

NIC, LOST = "02:00.0", "00:06.0"
PAGE = 4096


def machine():
    return [
        device("00:00.0"),
        device(LOST, (0xFE00_0000, 0x2000), (0xFC00_0000, 0x4000, "64")),
        windowed(port("00:1c.0", 2, 4)),
        device(NIC, (0xFE20_0000, 0x2_0000), (0xFE24_0000, 0x4000), msix=(1, 0, 0x1000), parent="00:1c.0"),
    ]


def windowed(raw):
    """Open a bridge's memory window over fe20_0000-fe9f_ffff."""
    data = bytearray(raw.config)
    data[0x20:0x28] = bytes.fromhex("20fe90fef1ff0100")
    return attrs.evolve(raw, config=bytes(data))


def told(outcomes):
    return [
        (
            o.action.word,
            str(o.action.sbdf)[5:],
            hex(o.action.frames.range.start) if hasattr(o.action, "frames") else None,
            o.result.value,
        )
        for o in outcomes
    ]


def started(stage):
    engine = stage.start()
    return engine, compare(engine)


NO_ADD = Settings("enforce", {**Settings().actions, "add-device": False})


def test_what_vpci_maps_is_noted_and_left_alone():
    stage = BusStage(machine())
    engine, outcomes = started(stage)
    assert outcomes == []
    assert {held.by.value for held in engine.ledger.mapped} == {"xen"}
    stage.write(NIC, 0x04, 2, 0)
    stage.write(NIC, 0x10, 4, 0xFE80_0000)
    stage.write(NIC, 0x04, 2, 2)
    assert stage.settle(engine) == []
    right(stage)
    assert not any(call.op in (Op.MAP, Op.UNMAP) for call in stage.xen.calls)


def test_a_forgotten_function_is_mapped_and_its_moves_are_followed():
    stage = BusStage(machine(), settings=NO_ADD)
    stage.xen.forget(S(LOST))
    stage.xen.vpci.remove(S(LOST))
    engine, _ = started(stage)
    stage.write(LOST, 0x10, 4, 0xFE10_0000)
    assert told(stage.settle(engine)) == [
        ("unmap-mmio", LOST, "0xfe000000", "done"),
        ("map-mmio", LOST, "0xfe100000", "done"),
    ]
    right(stage)
    stage.write(LOST, 0x04, 2, 0)
    assert {word for word, *_ in told(stage.settle(engine))} == {"unmap-mmio"}
    right(stage)
    stage.write(LOST, 0x04, 2, 2)
    assert {word for word, *_ in told(stage.settle(engine))} == {"map-mmio"}
    right(stage)


@pytest.mark.parametrize("settings", [Settings(), NO_ADD])
def test_what_vpci_mapped_is_taken_over_when_xen_forgets_the_function(settings):
    stage = BusStage(machine(), settings=settings)
    engine, _ = started(stage)
    stage.xen.kernel_remove(S(LOST))  # nobody tells
    stage.write(LOST, 0x10, 4, 0xFE10_0000)
    assert ("unmap-mmio", LOST, "0xfe000000", "done") in told(stage.settle(engine))
    right(stage)


@pytest.mark.parametrize("announced", [True, False])
def test_what_left_is_unmapped(announced):
    stage = BusStage(machine())
    engine, _ = started(stage)
    stage.pull(NIC, announced=announced)
    words = [word for word, *_ in told(stage.settle(engine))]
    assert words.count("unmap-mmio") >= 1
    right(stage)
    assert engine.findings == []


# V7: a write that vPCI dropped because the function decodes


def test_an_ignored_write_is_repeated_with_decoding_off():
    stage = BusStage(machine())
    engine, _ = started(stage)
    stage.write(NIC, 0x10, 4, 0xFE80_0000)
    assert stage.hardware.config(S(NIC))[0x10:0x14] == (0xFE20_0000).to_bytes(4, "little")
    (outcome,) = stage.settle(engine)
    assert (outcome.action.word, outcome.result.value) == ("rewrite-bar", "done")
    assert stage.hardware.config(S(NIC))[0x10:0x14] == (0xFE80_0000).to_bytes(4, "little")
    right(stage)
    assert codes(engine) == {"bar-drift"}  # of a Linux that does not know
    assert stage.settle(engine) == []


def test_with_a_driver_bound_an_ignored_write_is_a_finding_until_it_is_taken_back():
    raws = machine()
    raws[-1] = attrs.evolve(raws[-1], driver="e1000e")
    stage = BusStage(raws)
    engine, _ = started(stage)
    stage.write(NIC, 0x10, 4, 0xFE80_0000)
    (outcome,) = stage.settle(engine)
    assert (outcome.result.value, outcome.rule) == ("refused", "unbound")
    assert [finding.code for _, finding in engine.findings] == ["bar-write-ignored"]
    assert stage.settle(engine) == []
    stage.write(NIC, 0x10, 4, 0xFE20_0000)
    assert stage.settle(engine) == []
    assert engine.findings == []
    right(stage)


def test_sizing_while_decoding_is_no_ignored_write():
    stage = BusStage(machine())
    engine, _ = started(stage)
    stage.write(NIC, 0x10, 4, 0xFFFF_FFFF)
    stage.write(NIC, 0x10, 4, 0xFE20_0000)
    assert stage.settle(engine) == []
    assert engine.findings == []


# Virtual functions


def with_vfs():
    physical = device(
        NIC, (0xFE20_0000, 0x4000), sriov=(2, 1, 1, [(0xFE80_0000, 0x1000, "64"), (0xFE84_0000, 0x2000)]),
        parent="00:1c.0",
    )  # fmt: skip
    return [device("00:00.0"), windowed(port("00:1c.0", 2, 4)), physical]


def virtual(number):
    empty = b"\xff" * 4 + bytes(252)
    return RawFunction(
        S(f"02:00.{number}"), empty, physfn=S(NIC), parent=S("00:1c.0"), resources=(Resource(0, 0, 0),) * 7
    )


def test_bars_of_virtual_functions_are_mapped_while_their_memory_enable_is_set():
    stage = BusStage(with_vfs())
    engine, _ = started(stage)
    stage.write(NIC, 0x110, 2, 2)
    stage.write(NIC, 0x108, 2, 0x9)
    for number in (1, 2):
        stage.plug(virtual(number))
    done = told(stage.settle(engine))
    assert {(word, result) for word, _, _, result in done} == {("map-mmio", "done")}
    assert len(done) == 4
    right(stage)
    stage.write(NIC, 0x108, 2, 0x1)
    assert {word for word, *_ in told(stage.settle(engine))} == {"unmap-mmio"}
    right(stage)
    stage.write(NIC, 0x108, 2, 0x9)
    stage.settle(engine)
    right(stage)
    stage.write(NIC, 0x108, 2, 0)
    for number in (1, 2):
        stage.pull(f"02:00.{number}")
    stage.settle(engine)
    right(stage)
    assert engine.findings == []


# Renumbering


def renumber(stage, secondary, subordinate):
    stage.write("00:1c.0", 0x18, 4, secondary << 8 | subordinate << 16)


@pytest.mark.parametrize("version", [(4, 17), (4, 20)])  # with and without the detour
@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_a_renumbered_function_is_followed_and_comes_back(dom0, version):
    coverage = Coverage(buses=frozenset((0, bus) for bus in range(5)))
    stage = BusStage(machine(), dom0=dom0, version=version, coverage=coverage)
    engine, _ = started(stage)
    held = [(each.place, each.frames) for each in engine.ledger.mapped]
    renumber(stage, 3, 4)
    done = told(stage.settle(engine))
    assert [row for row in done if row[2] is None] == [
        ("add-device", "03:00.0", None, "done"),
        ("remove-device", NIC, None, "done"),
    ]
    assert S("03:00.0") in stage.xen.devices
    assert S(NIC) not in stage.xen.devices
    assert [(each.place, each.frames) for each in engine.ledger.mapped] == held
    assert "moved" in [finding.code for _, finding in engine.findings]
    if dom0 == "pvh":
        right(stage)
    renumber(stage, 2, 4)
    done = told(stage.settle(engine))
    assert [row for row in done if row[2] is None] == [
        ("add-device", NIC, None, "done"),
        ("remove-device", "03:00.0", None, "done"),
    ]
    assert engine.findings == []
    if dom0 == "pvh":
        right(stage)
    assert compare(engine) == []


def test_outside_of_the_covered_range_it_is_refused_and_said():
    stage = BusStage(machine(), coverage=Coverage(buses=frozenset((0, bus) for bus in range(5))))
    engine, _ = started(stage)
    renumber(stage, 9, 9)
    (outcome, *rest) = stage.settle(engine)
    assert (outcome.result.value, outcome.rule) == ("refused", "iommu-coverage")
    assert all(each.result.value == "refused" for each in rest)
    assert not any(call.op in (Op.ADD, Op.REMOVE) for call in stage.xen.calls)
    assert stage.xen.catastrophe is None
    assert any("give its bus the old number 02 again" in finding.text for _, finding in engine.findings)


def test_a_subtree_with_a_driver_is_left_alone():
    raws = machine()
    raws[-1] = attrs.evolve(raws[-1], driver="e1000e")
    stage = BusStage(raws)
    engine, _ = started(stage)
    renumber(stage, 3, 4)
    assert {outcome.result.value for outcome in stage.settle(engine)} == {"refused"}
    assert not any(call.op in (Op.ADD, Op.REMOVE) for call in stage.xen.calls)
    assert any("e1000e" in finding.text for _, finding in engine.findings)


# Hostile addresses


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (0x0100_0000, "RAM"),
        (0xFEC0_0000, "IO-APIC"),
        (0xFEE0_0000, "MSI"),
        (0x000A_0000, "first MiB"),
        (0xFE24_0000, "MSI-X structures of 0000:02:00.0"),
    ],
)
def test_a_bar_over_what_is_not_its_own_is_refused_and_reported(address, words):
    stage = BusStage(machine(), settings=NO_ADD)
    stage.xen.forget(S(LOST))
    stage.xen.vpci.remove(S(LOST))
    engine, _ = started(stage)
    stage.write(LOST, 0x10, 4, address)
    outcomes = stage.settle(engine)
    refused = [outcome for outcome in outcomes if outcome.result.value == "refused"]
    assert words in refused[0].detail
    assert stage.xen.catastrophe is None
    assert any(finding.code == "not-mapped" for _, finding in engine.findings)
    stage.write(LOST, 0x10, 4, 0xFE00_0000)
    stage.settle(engine)
    right(stage)
    assert "not-mapped" not in {finding.code for _, finding in engine.findings}


# Failures


FAULTS = [
    (op, number, pages)
    for op in (Op.MAP, Op.UNMAP)
    for number in (errno.EPERM, errno.EBUSY, errno.ENOMEM, errno.ENODEV, errno.EACCES, errno.EINTR)
    for pages in (0, 1)
]


@pytest.mark.parametrize(("op", "number", "pages"), FAULTS)
def test_after_a_failure_it_is_tried_again_and_ends_right(op, number, pages):
    stage = BusStage(machine(), settings=NO_ADD)
    stage.xen.forget(S(LOST))
    stage.xen.vpci.remove(S(LOST))
    engine, _ = started(stage)
    stage.xen.fail(op, number, pages=pages)
    stage.write(LOST, 0x10, 4, 0xFE10_0000)
    outcomes = stage.settle(engine)
    assert stage.xen.catastrophe is None
    if any(outcome.result.value == "failed" for outcome in outcomes):
        assert engine.next_due() == pytest.approx(1.0)
        stage.time += 1
        assert {outcome.result.value for outcome in work_off(engine)} == {"done"}
    right(stage)
    assert codes(engine) == {"unknown-to-xen", "bar-drift"}


def test_retries_are_bounded_and_end_in_a_finding():
    stage = BusStage(machine(), settings=attrs.evolve(NO_ADD, faults_s=0, list_s=0))
    stage.xen.forget(S(LOST))
    stage.xen.vpci.remove(S(LOST))
    engine, _ = started(stage)
    for call in range(1, 20):
        stage.xen.fail(Op.MAP, errno.ENOMEM, call=call)
    stage.write(LOST, 0x10, 4, 0xFE10_0000)
    stage.settle(engine)
    calls = []
    for _ in range(10):
        stage.time += 30
        work_off(engine)
        calls.append([call.op for call in stage.xen.calls].count(Op.MAP))
    assert calls[-1] == calls[-5]
    assert "not-mapped" in codes(engine)
    assert engine.next_due() is None


@pytest.mark.parametrize("die_after", [False, True])
@pytest.mark.parametrize("die_at", [1, 2])  # the intent, the result
def test_killed_at_any_point_of_a_remap_it_ends_right(die_at, die_after):
    stage = BusStage(machine(), settings=NO_ADD)
    stage.xen.forget(S(LOST))
    stage.xen.vpci.remove(S(LOST))
    engine, _ = started(stage)
    engine.save()
    stage.store.saved = 0
    stage.store.die_at, stage.store.die_after = die_at, die_after
    stage.write(LOST, 0x10, 4, 0xFE10_0000)
    with pytest.raises(Killed):
        stage.settle(engine)
    stage.write(LOST, 0x04, 2, 0)  # nobody watches
    stage.write(LOST, 0x10, 4, 0xFE18_0000)
    stage.write(LOST, 0x04, 2, 2)
    stage.store.die_at = None
    again = stage.start()
    compare(again)
    right(stage)


@pytest.mark.parametrize("dom0", ["pv", "pvh"])
def test_observe_changes_nothing(dom0):
    stage = BusStage(machine(), settings=Settings("observe"), dom0=dom0)
    stage.xen.forget(S(LOST))
    if dom0 == "pvh":
        stage.xen.vpci.remove(S(LOST))
    engine, _ = started(stage)
    stage.write(LOST, 0x10, 4, 0xFE10_0000)
    outcomes = stage.settle(engine)
    assert {outcome.result.value for outcome in outcomes} == {
        "planned" if dom0 == "pvh" else "not-applicable"
    }
    stage.pull(NIC)
    stage.settle(engine)
    assert stage.xen.changes == ()
    if dom0 == "pvh":  # the pages of the function that left are still mapped
        assert "stale-mapping" in {finding.code for _, finding in engine.findings}
        assert health_of(engine) == "degraded"


def test_two_hundred_moves_in_a_row_end_where_the_bar_is():
    stage = BusStage(machine(), settings=NO_ADD)
    stage.xen.forget(S(LOST))
    stage.xen.vpci.remove(S(LOST))
    engine, _ = started(stage)
    for number in range(200):
        stage.write(LOST, 0x10, 4, 0xFD00_0000 + 0x2000 * number)
        if number % 7 == 0:
            stage.settle(engine)
    stage.settle(engine)
    right(stage)


def test_on_pv_changes_are_not_applicable_and_said_once():
    stage = BusStage(machine(), dom0="pv")
    engine, outcomes = started(stage)
    assert outcomes == []
    stage.write(LOST, 0x10, 4, 0xFE10_0000)
    assert told(stage.settle(engine)) == [
        ("unmap-mmio", LOST, "0xfe000000", "not-applicable"),
        ("map-mmio", LOST, "0xfe100000", "not-applicable"),
    ]
    assert compare(engine) == []
    assert compare(stage.start()) == []


def test_a_dry_run_shows_everything_and_changes_nothing():
    stage = BusStage(machine(), known=["00:00.0", "00:1c.0", NIC])
    engine = stage.start()
    rows = told(dry_run(engine))
    assert rows == [("add-device", LOST, None, "planned")]
    stage.xen.vpci.remove(S(LOST))
    assert stage.xen.changes == ()
    assert len(engine.ledger.mapped) == 0


# What vPCI does not do


@pytest.mark.parametrize("start", [0x0100_0000, 0])  # over RAM, and where no address was given yet
def test_a_bar_that_moves_while_decoding_from_where_vpci_maps_none_is_mapped(start):
    raws = [*machine(), device("00:09.0", (start, 0x1000))]
    stage = BusStage(raws)
    engine, _ = started(stage)
    stage.write("00:09.0", 0x10, 4, 0xFE18_0000)
    assert told(compare(engine)) == [("map-mmio", "00:09.0", "0xfe180000", "done")]
    right(stage)
    assert stage.settle(engine) == []
    stage.write("00:09.0", 0x04, 2, 0)
    stage.settle(engine)
    right(stage)


def test_what_left_and_came_back_elsewhere_between_two_readings_leaves_nothing():
    stage = BusStage(machine())
    engine, _ = started(stage)
    stage.pull(LOST)
    stage.plug(device(LOST, (0xFE18_0000, 0x2000)))
    stage.hotplug.lose()
    stage.hotplug.read()
    look(engine, [S(LOST)], Reason.DISAPPEARED)
    right(stage)


def test_of_a_stale_bar_only_the_pages_under_another_function_stay():
    stage = BusStage([*machine(), device("00:09.0", (0xFE00_1000, 0x1000), command=0)])
    engine, _ = started(stage)
    stage.pull(LOST)
    rows = [row for row in told(stage.settle(engine)) if row[2] in ("0xfe000000", "0xfe001000")]
    assert sorted(rows) == [
        ("unmap-mmio", LOST, "0xfe000000", "done"),
        ("unmap-mmio", LOST, "0xfe001000", "refused"),
    ]


def test_a_window_that_opens_lets_what_was_refused_be_mapped():
    raws = machine()
    raws[-1] = device(NIC, (0xFE20_0000, 0x2_0000), header=2, parent="00:1c.0")
    stage = BusStage(raws)
    stage.write("00:1c.0", 0x20, 4, 0x0000_FFF0)
    engine, outcomes = started(stage)
    assert [row[3] for row in told(outcomes) if row[0] == "map-mmio"] == ["refused"]
    stage.settle(engine)
    stage.write("00:1c.0", 0x20, 4, 0xFE90_FE20)
    assert told(stage.settle(engine)) == [("map-mmio", NIC, "0xfe200000", "done")]
    right(stage)


def test_pages_of_others_that_a_failed_map_took_away_are_mapped_again_at_once():
    first = device("00:09.0", (0xFE18_0800, 0x800), header=2)
    second = device("00:0a.0", (0xFE17_F000, 0x1800), header=2)  # which begins in the page before
    stage = BusStage([*machine(), first, second])
    stage.xen.fail(Op.MAP, errno.EINVAL, call=2, pages=1)
    engine, _ = started(stage)
    assert 0xFE180 in mapped_pages(stage.xen)
    stage.time += 1
    work_off(engine)
    right(stage)


VF = S("00:15.0")
SRIOV_CONTROL = SRIOV_AT + 8
MSE = {True: 0x9, False: 0x1}  # the SR-IOV control register with VF Memory Enable set and clear


def with_memory_enable(on):
    """Give a stage with one virtual function, whose memory decode is on or off, and its engine."""
    physfn = device("00:05.0", (0xFE10_0000, 0x1000), sriov=(3, 0x80, 1, [(0xFE14_0000, 0x2000)]))
    stage = BusStage([*machine(), physfn])
    stage.write("00:05.0", SRIOV_AT + 0x10, 2, 1)
    stage.write("00:05.0", SRIOV_CONTROL, 2, MSE[on])
    stage.files.raws[VF] = attrs.evolve(
        physfn, sbdf=VF, resources=(Resource(0, 0, 0),) * 13, physfn=S("00:05.0")
    )
    stage.xen.kernel_add(VF)
    engine, _ = started(stage)
    stage.settle(engine)
    return stage, engine


@pytest.mark.parametrize("asked", ["explain", "dry run"])
@pytest.mark.parametrize("on", [True, False])
def test_a_question_asked_before_it_is_quiet_takes_no_change_away(asked, on):
    """What it reads anew is different only once, and concerns functions that were not written to."""
    stage, engine = with_memory_enable(not on)
    stage.write("00:05.0", SRIOV_CONTROL, 2, MSE[on])
    if asked == "explain":
        engine.explain(S("00:05.0"))
    else:
        dry_run(engine)
    word = "map-mmio" if on else "unmap-mmio"
    assert told(stage.settle(engine) + work_off(engine)) == [(word, "00:15.0", "0xfe140000", "done")]
    right(stage)


@pytest.mark.parametrize("dry", [True, False])
@pytest.mark.parametrize("on", [True, False])
def test_a_change_that_was_read_while_xen_could_not_be_asked_is_acted_on_later(dry, on):
    stage, engine = with_memory_enable(not on)
    stage.write("00:05.0", SRIOV_CONTROL, 2, MSE[on])
    stage.xen.fail(Op.KNOWN, errno.EBUSY)
    if dry:
        dry_run(engine)
    else:
        assert stage.settle(engine) == []
        assert engine.views.not_asked == {S("00:05.0"), VF}
        assert engine.views.desired(VF).hold_reason
    done = stage.settle(engine)
    for _ in range(2):
        stage.time += 1
        done += work_off(engine)
    word = "map-mmio" if on else "unmap-mmio"
    assert told(done) == [(word, "00:15.0", "0xfe140000", "done")]
    right(stage)


@pytest.mark.parametrize("asked", ["explain", "dry run"])
def test_a_write_that_a_question_overtook_is_acted_on(asked):
    """To the shadow of writes it then changes nothing: only what the question found tells of it."""
    stage = BusStage([*machine(), device("00:09.0", (0xFE18_0000, 0x1000), header=2)])
    engine, _ = started(stage)
    stage.write("00:09.0", 0x10, 4, 0xFE1C_0000)
    if asked == "explain":
        engine.explain(S("00:09.0"))
    else:
        dry_run(engine)
    assert engine.next_due() == 0.0
    done = stage.settle(engine) + work_off(engine)
    assert [row[::2] for row in told(done)] == [("unmap-mmio", "0xfe180000"), ("map-mmio", "0xfe1c0000")]
    right(stage)


@pytest.mark.parametrize("command", [0, 2])
def test_what_was_replaced_while_messages_were_lost_leaves_nothing(command):
    stage = BusStage(machine())
    engine, _ = started(stage)
    stage.pull(LOST)
    stage.plug(device(LOST, (0xFE18_0000, 0x2000), command=command))
    stage.hotplug.lose()
    stage.settle(engine)
    right(stage)
    assert compare(engine) == []


@pytest.mark.parametrize("how", ["decode", "replug", "move"])
def test_what_failed_too_often_is_tried_again_when_it_was_not_wanted_in_between(how):
    raw = device("00:09.0", (0xFE18_0000, 0x1000), header=2)
    stage = BusStage([*machine(), raw])
    for call in range(4):
        stage.xen.fail(Op.MAP, errno.ENOMEM, call=call + 1)
    engine, _ = started(stage)
    for pause in (1, 5, 25, 125):
        stage.time += pause
        work_off(engine)
    assert [finding.code for _, finding in engine.findings] == ["not-mapped"]
    if how == "replug":
        stage.pull("00:09.0")
        stage.settle(engine)
        stage.plug(raw)
    else:
        register, away, back = (0x04, 0, 2) if how == "decode" else (0x10, 0xFE1C_0000, 0xFE18_0000)
        stage.write("00:09.0", register, 4, away)
        stage.settle(engine)
        stage.write("00:09.0", register, 4, back)
    stage.settle(engine)
    right(stage)


@pytest.mark.parametrize("mode", ["enforce", "observe"])
def test_what_is_not_announced_is_not_counted_on_before_it_is_done(mode):
    """A dry run and `explain` show what is then done."""
    settings = Settings(mode, {**Settings().actions, "add-device": False})
    stage = BusStage(machine(), known=["00:00.0", "00:1c.0", NIC], settings=settings)
    engine = stage.start()
    expected = [("map-mmio", 0xFC00_0000), ("map-mmio", 0xFE00_0000)]
    planned = told(dry_run(engine))
    explained = engine.explain(S(LOST))
    steps = [
        (s.action.word, s.action.frames.range.start) for s in explained.steps if s.action.word == "map-mmio"
    ]
    done = told(compare(engine))
    assert (sorted(steps), explained.desired.by.value) == (expected, "us")
    assert [row[:3] for row in planned] == [row[:3] for row in done]


def test_a_bar_that_comes_from_over_ram_is_explained_as_it_is_treated():
    stage = BusStage([*machine(), device("00:09.0", (0x20_0000, 0x1000))])
    engine, _ = started(stage)
    stage.write("00:09.0", 0x10, 4, 0xFE18_0000)
    steps = engine.explain(S("00:09.0")).steps
    assert [(step.action.word, step.verdict) for step in steps] == [("map-mmio", Precaution.NONE)]
    assert [row[3] for row in told(dry_run(engine))] == ["planned"]
    assert told(compare(engine)) == [("map-mmio", "00:09.0", "0xfe180000", "done")]
    right(stage)


@pytest.mark.parametrize("savings", [1, 2, 3])
def test_pages_that_vpci_forgot_are_unmapped_though_the_service_was_killed_around_the_add(savings):
    """After the add, Xen lists the function again, and nothing but the record tells that vPCI forgot them."""
    stage = BusStage(machine())
    engine, _ = started(stage)
    stage.time += 5
    work_off(engine)
    stage.xen.kernel_remove(S(NIC))
    stage.write(NIC, 0x04, 2, 0)  # vPCI does not see it any more
    stage.store.die_at = stage.store.saved + savings
    engine.add(S(NIC), Reason.OWNER)
    with pytest.raises(Killed):
        work_off(engine)
    stage.store.die_at = None
    engine, _ = started(stage)
    right(stage)
