import pytest

from pcipt.cli.text.event_text import lines_from_event, text_from_action
from tests.answers import NIC, WHEN, action

HEAD = f"19:11:32.381 {NIC} "


def event(kind, **more):
    return {"version": 1, "when": WHEN, "kind": kind, "sbdf": NIC, **more}


def change(name, **more):
    return event("change", change=name, who=None, source="write", **more)


PLACE = {"bar": 0, "bar_kind": "mem32", "address": "0xfe040000", "size": 0x2_0000}
THREE = "primary=00, secondary=05, subordinate=??"
NUMBERS = {"primary": 0, "secondary": 5, "subordinate": None}
EVENTS = [
    (event("hotplug", action="add"), "hot-plug: the function appeared"),
    (event("hotplug", action="unbind"), "driver unbound"),
    (event("hotplug", action="online"), "hot-plug: online"),
    (event("finding", code="ghost", text="why", state="new"), "finding new: ghost: why"),
    (event("lost", count=None, text="writes"), "lost some: writes"),
    (event("dma-fault", owner="guest 3", access="write", address="0x7fff0000", text="nothing", count=1),
     "DMA write at 0x7fff0000 was refused; the device belongs to guest 3; nothing is known at the address"),
    (event("dma-fault", owner="dom0", access=None, address="0x0", text="RAM at 0x0-0xfff", count=100),
     "DMA access at 0x0 was refused, 100 times; the device belongs to dom0; the address is RAM at 0x0-0xfff"),
    (event("lost", count=3), "lost 3: events not read in time"),
    (event("surprise", a=1), f"kind=surprise, sbdf={NIC}, a=1"),  # of a newer daemon
    (
        change("bar-mapped", **PLACE, **{"from": None, "to": "0xfe040000"}),
        "BAR 0 mapped at 0xfe040000 (128K)",
    ),
    (
        change("bar-unmapped", **{**PLACE, "bar": 6}, **{"from": "0xfe040000", "to": None}),
        "ROM unmapped from 0xfe040000 (128K)",
    ),
    (
        change("bar-moved", **PLACE, **{"from": "0xf0000000", "to": "0xfe040000"}, assumed="ignored"),
        (
            "BAR 0 moved from 0xf0000000 to 0xfe040000 (128K); written while decoding: "
            "pcipt assumes that the write was ignored"
        ),
    ),
    (
        {**change("rom", **{"from": None, "to": True}), "who": "setpci-42", "source": "read-back"},
        "ROM enabled by setpci-42, found by reading back",
    ),
    (
        change("decode", **{"from": None, "to": {"io": False, "memory": True}}),
        "decoding: unknown -> memory",
    ),
    (
        change("window", window="memory", **{"from": None, "to": {"base": "0x1000", "limit": "0x1fff"}}),
        "memory window: closed -> 0x1000-0x1fff",
    ),
    (
        change("bus-numbers", **{"from": NUMBERS, "to": NUMBERS}, moved=[{}, {}]),
        f"buses: {THREE} -> {THREE}; 2 functions behind it have new addresses",
    ),
    (
        change("vf-bars", **{"from": [], "to": [{"bar": 0, "address": "0x1000", "size": 4096, "count": 4}]}),
        "virtual functions' BARs: BAR 0 4 x 4K at 0x1000",
    ),
    (change("reset", reset="function"), "function reset"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "words"), EVENTS)
def test_every_event_is_a_line(told, words):
    assert lines_from_event(told) == [HEAD + words]


def test_an_event_with_its_day():
    assert lines_from_event(EVENTS[0][0], day=True)[0].startswith(f"2026-11-22 19:11:32 {NIC} hot-plug")


WHY = "; planned because because of this"
ACTIONS = [
    (action("add-device"), f": done{WHY}"),
    (action("add-device", result="refused", detail="x\x1b"), r": refused (x\x1b)" + WHY),
    (action("map-mmio", start="0x1000", size=4096), f" 0x1000-0x1fff (4K): done{WHY}"),
    ({**action("unmap-mmio", start="0x1000", size=4096), "bar": 2},
     f" BAR 2 0x1000-0x1fff (4K): done{WHY}"),
    ({**action("rewrite-bar", start="0x1000"), "bar": 6}, f" ROM 0x1000: done{WHY}"),
]  # fmt: skip


@pytest.mark.parametrize(("told", "words"), ACTIONS)
def test_every_action_tells_its_range_and_reason(told, words):
    assert text_from_action(told) == words


def test_what_went_wrong_has_a_colour():
    told = event("action", **action("add-device", result="failed"))
    assert "\x1b[31m add-device: failed" in lines_from_event(told, colour=True)[0]
