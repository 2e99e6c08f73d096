"""The ways told in docs/architecture.md are those that a write, a hot-plug and a release really take."""

import re
import sys
from pathlib import Path

import pytest

from pcipt.daemon.control.passthrough import Passthrough
from pcipt.engine.queue import Reason
from tests.engine.stage import BusStage, S, look
from tests.engine.test_mapping import LOST, NO_ADD, machine, started
from tests.engine.views.test_reserved import NIC, Scene
from tests.xen.devices import device

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
STEP = re.compile(r"`([a-z_/]+)\.py` ([a-z_]+)")


def a_write():
    stage = BusStage(machine(), settings=NO_ADD)
    stage.xen.forget(S(LOST))
    stage.xen.vpci.remove(S(LOST))
    engine, _ = started(stage)
    stage.write(LOST, 0x10, 4, 0xFE10_0000)
    return lambda: stage.settle(engine)


def a_hotplug():
    stage = BusStage(machine())
    engine, _ = started(stage)
    plugged = device("02:01.0", (0xFE20_0000, 0x1000), command=0, parent="00:1c.0")
    stage.plug(plugged, announced=False)
    return lambda: stage.settle(engine)


def a_release():
    scene = Scene()
    scene.give_away(NIC)
    passthrough = Passthrough(
        scene.engine, lambda functions: look(scene.engine, functions, Reason.REQUESTED), lambda _act: None
    )
    return lambda: passthrough.release(S(NIC))


def calls_of(act):
    """Run something; give the calls of pcipt's functions in their order, as (module, function)."""
    found = []

    def entered(frame, event, _argument):
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith("pcipt."):
            found.append((name, frame.f_code.co_name))

    sys.setprofile(entered)
    try:
        act()
    finally:
        sys.setprofile(None)
    return found


def told(title):
    """Give the steps that the document lists under a title."""
    section = DOCUMENT.read_text(encoding="utf-8").split(f"### {title}\n")[1].split("\n#")[0]
    return [(f"pcipt.{path.replace('/', '.')}", name) for path, name in STEP.findall(section)]


WAYS = [("The way of one write", a_write), ("The way of one hot-plug", a_hotplug),
        ("The way of one release", a_release)]  # fmt: skip


@pytest.mark.parametrize(("title", "make"), WAYS, ids=[title.split()[-1] for title, _ in WAYS])
def test_the_document_tells_the_way_that_is_taken(title, make):
    calls, steps = calls_of(make()), told(title)
    assert len(steps) > 5
    waiting = iter(calls)
    for step in steps:
        assert step in waiting, f"{step} does not come where the document says"


@pytest.mark.parametrize(("title", "make"), WAYS, ids=[title.split()[-1] for title, _ in WAYS])
def test_no_room_of_the_document_is_left_out(title, make):
    """Each module of engine/ that decides (not what is only asked for values) is named somewhere."""
    passed = {module for module, _ in calls_of(make()) if module.startswith("pcipt.engine.")}
    named = {module for way, _ in WAYS for module, _ in told(way)}
    text = DOCUMENT.read_text(encoding="utf-8")
    values = {f"pcipt.engine.{name}" for name in ("engine", "report", "round", "memory", "saver")}
    views = {module for module in passed if module.startswith("pcipt.engine.views.")}
    missing = passed - named - values - views
    assert {module for module in missing if f"{module.rpartition('.')[2]}.py" not in text} == set()
