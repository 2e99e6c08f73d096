"""What is told of changes, actions, hot-plug, findings: to the log, to history, to monitors, to metrics."""

import pytest

from pcipt.daemon.telling.announcer import Announcer
from pcipt.daemon.telling.log import Logs
from pcipt.daemon.telling.messages import MESSAGE_IDS
from pcipt.daemon.telling.metrics import Gauges, Metrics
from pcipt.pci import Address, BarKind, Finding, Frames, Gfn, Range, parse_sbdf
from pcipt.pci.write import ConfigWrite, Writer
from pcipt.remap.actions import AddDevice, MapMmio, Outcome, RemoveDevice, Result
from pcipt.remap.writes.changes import BarMoved
from pcipt.xen.dma_faults import Cause, DmaFault, There
from tests.machines import bridge, function, machine

NIC, NEW = parse_sbdf("01:00.0"), parse_sbdf("05:00.0")
THERE = machine(bridge("00:1c.0", 1, 8), function("01:00.0", parent="00:1c.0"))
EMPTY = machine(bridge("00:1c.0", 1, 8))
PATH = THERE.functions[NIC].path
MAP = MapMmio(NIC, "it decodes and nobody maps it", str(PATH), 0, Frames(Gfn(0xFE000), 0x20))


class Scene:
    def __init__(self):
        self.logged, self.published = [], []
        self.metrics = Metrics(lambda: Gauges(0, {}, 0, 0, 0, {}))
        log = Logs(lambda level, text, fields: self.logged.append((level, text, fields)))
        self.announcer = Announcer(log, self.metrics, lambda: "now")
        self.announcer.publish = self.published.append

    def fields(self):
        ((level, _, fields),) = self.logged
        return level, fields


@pytest.fixture
def scene():
    return Scene()


def test_an_action_goes_everywhere_with_its_range(scene):
    scene.announcer.tell_outcome(Outcome(MAP, Result.DONE), THERE)
    level, fields = scene.fields()
    assert level == "info"
    assert fields == {
        "MESSAGE_ID": MESSAGE_IDS["action"], "PCIPT_KIND": "action", "PCIPT_SBDF": str(NIC),
        "PCIPT_ACTION": "map-mmio", "PCIPT_RANGE": "0xfe000000-0xfe01ffff", "PCIPT_BAR": "0",
        "PCIPT_RESULT": "done", "PCIPT_REASON": MAP.reason,
    }  # fmt: skip
    (event,) = scene.published
    assert (event["kind"], event["start"], event["size"]) == ("action", "0xfe000000", 0x20000)
    assert scene.announcer.history_of(THERE, NIC) == [event]
    assert 'pcipt_actions_total{action="map-mmio",outcome="done"} 1' in scene.metrics.text()


@pytest.mark.parametrize(
    ("outcome", "level", "more"),
    [
        (Outcome(MAP, Result.PLANNED), "info", {}),
        (Outcome(MAP, Result.REFUSED, "RAM is there", "ram"), "warning",
         {"PCIPT_DETAIL": "RAM is there", "PCIPT_RULE": "ram"}),
        (Outcome(MAP, Result.FAILED, "Xen: map: EPERM", errno=1), "warning",
         {"PCIPT_DETAIL": "Xen: map: EPERM", "ERRNO": "1"}),
    ],
    ids=lambda value: getattr(value, "result", None) and value.result.value,
)  # fmt: skip
def test_what_was_not_done_says_why(scene, outcome, level, more):
    scene.announcer.tell_outcome(outcome, THERE)
    told, fields = scene.fields()
    assert told == level
    assert more.items() <= fields.items()
    assert fields["PCIPT_RESULT"] == outcome.result.value


def test_what_a_pv_dom0_has_nothing_for_is_counted_and_told_nowhere(scene):
    scene.announcer.tell_outcome(Outcome(MAP, Result.NOT_APPLICABLE, "PV"), THERE)
    assert 'pcipt_actions_total{action="map-mmio",outcome="not-applicable"} 1' in scene.metrics.text()
    assert scene.published == []
    assert scene.announcer.history_of(THERE, NIC) == []
    assert scene.logged == []


@pytest.mark.parametrize(
    "action",
    [
        MAP,  # it names its place
        AddDevice(NEW, "renumbered", moved_from=NIC),  # Linux still has it at the old address
        RemoveDevice(NIC, "renumbered", moved_to=NEW),
    ],
)
def test_an_action_is_found_by_the_path_of_its_function(scene, action):
    scene.announcer.tell_outcome(Outcome(action, Result.DONE), THERE)
    assert len(scene.announcer.history_of(THERE, PATH)) == 1


def test_what_was_done_for_one_that_left_is_found_by_its_address(scene):
    scene.announcer.tell_hotplug(NIC, "remove", str(PATH))
    scene.announcer.tell_outcome(Outcome(RemoveDevice(NIC, "it left"), Result.DONE), EMPTY)
    assert [event["kind"] for event in scene.announcer.history_of(EMPTY, NIC)] == ["hotplug", "action"]


def test_a_change_is_logged_with_old_and_new(scene):
    write = ConfigWrite(NIC, 0x10, 4, 0xFE20_0000, who=Writer("setpci", 42))
    before, after = (Range(Address(start), 0x20000) for start in (0xFE00_0000, 0xFE20_0000))
    change = BarMoved(
        sbdf=NIC, place=PATH, causes=(write,), bar=0, kind=BarKind.MEM32, before=before, after=after
    )
    scene.announcer.tell_change(change, read_back=False)
    level, fields = scene.fields()
    assert (level, fields["MESSAGE_ID"]) == ("info", MESSAGE_IDS["change"])
    assert (fields["PCIPT_CHANGE"], fields["PCIPT_BAR"]) == ("bar-moved", "0")
    assert (fields["PCIPT_OLD"], fields["PCIPT_NEW"]) == ("0xfe000000", "0xfe200000")
    assert (fields["PCIPT_WHO"], fields["PCIPT_SOURCE"]) == ("setpci-42", "write")
    assert scene.announcer.last_change == scene.published[0]
    assert "pcipt_bar_moves_total 1" in scene.metrics.text()


@pytest.mark.parametrize(
    ("action", "text"),
    [
        ("add", "hot-plug sbdf=0000:01:00.0 uevent=add"),
        ("remove", "hot-plug sbdf=0000:01:00.0 uevent=remove"),
        ("bind", "driver bound sbdf=0000:01:00.0 uevent=bind"),
        ("unbind", "driver unbound sbdf=0000:01:00.0 uevent=unbind"),
        ("owner", "a guest's passthrough changed sbdf=0000:01:00.0 uevent=owner"),
        ("change", "hot-plug sbdf=0000:01:00.0 uevent=change"),
    ],
)
def test_what_the_kernel_said_is_told_as_it_said_it(scene, action, text):
    """A driver that lets go is no hot-plug: monitors, history and the log see which it was."""
    scene.announcer.tell_hotplug(NIC, action, str(PATH))
    (event,) = scene.published
    assert (event["kind"], event["action"], event["sbdf"]) == ("hotplug", action, str(NIC))
    assert scene.fields()[1]["PCIPT_UEVENT"] == action
    assert scene.logged[0][1] == text


def test_findings_come_and_go(scene):
    ghost, disk = (NIC, Finding("ghost", "Xen lists it")), (None, Finding("disk", "it is full"))
    scene.announcer.tell_findings([ghost, disk], [])
    scene.announcer.tell_findings([], [ghost])
    assert [(e["code"], e["state"], e["sbdf"]) for e in scene.published] == [
        ("ghost", "new", str(NIC)),
        ("disk", "new", None),
        ("ghost", "gone", str(NIC)),
    ]
    assert [level for level, _, _ in scene.logged] == ["warning", "warning", "info"]


def test_a_loss_is_told_with_its_count(scene):
    scene.announcer.tell_loss("records were lost", 3)
    scene.announcer.tell_loss("an overrun")
    assert [(event["kind"], event["count"]) for event in scene.published] == [("lost", 3), ("lost", None)]


def test_refused_dma_goes_to_log_history_and_monitors(scene):
    what = "reserved region 0x7fff0000-0x7fff3fff, which pcipt withdrew at 10:02"
    fault = DmaFault(NIC, "dom0", "write", 0x7FFF_0000, Cause.PAGE, There.WITHDRAWN, what, 10, "then")
    scene.announcer.tell_fault(fault, THERE)
    level, fields = scene.fields()
    assert level == "warning"
    assert fields == {
        "MESSAGE_ID": MESSAGE_IDS["dma-fault"], "PCIPT_KIND": "dma-fault", "PCIPT_SBDF": str(NIC),
        "PCIPT_OWNER": "dom0", "PCIPT_ACCESS": "write", "PCIPT_ADDRESS": "0x7fff0000",
        "PCIPT_THERE": what, "PCIPT_COUNT": "10", "PCIPT_REASON": Cause.PAGE.value,
    }  # fmt: skip
    (event,) = scene.published
    assert event == {
        "version": 1, "when": "then", "kind": "dma-fault", "sbdf": str(NIC), "owner": "dom0",
        "access": "write", "address": "0x7fff0000", "cause": "page", "there": "withdrawn-region",
        "text": what, "count": 10,
    }  # fmt: skip
    assert scene.announcer.history_of(THERE, PATH) == [event]


def test_a_device_that_linux_does_not_have_has_a_history_by_its_address(scene):
    fault = DmaFault(NEW, "unknown to Xen", "", 0, Cause.UNTOLD, There.NOTHING, "nothing", 1, "then")
    scene.announcer.tell_fault(fault, THERE)
    assert scene.published[0]["access"] is None
    assert [event["kind"] for event in scene.announcer.history_of(THERE, NEW)] == ["dma-fault"]
