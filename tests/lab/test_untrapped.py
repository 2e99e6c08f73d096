"""Remapping of functions that Xen has forgotten and nobody announces: whatever they decode is pcipt's to map.

The announcing is switched off, so vPCI never takes over. A PV dom0 only counts the same plans, and asks Xen
for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from . import inside
from .hardware import PART
from .machine import Dom0
from .steps import (
    PATIENCE,
    RESULT,
    Steps,
    answer,
    held,
    main_pid,
    resync,
    settings,
    undriven,
    wait_answer,
    wait_answers,
    wait_healthy,
)
from .test_lab_smoke import known_to_xen
from .witness import PAGE, decoding, map_calls, mapped

SWITCHED_OFF = "[actions]\nadd-device = false\n"
OBSERVING = 'mode = "observe"\n'
#: Where nothing else is: between the root bus's own BARs and its windows.
FREE = 0xFE10_0000
MOVES = 200


@dataclass(frozen=True)
class Function:
    """A function without a driver, and the BAR that a scene moves."""

    part: str
    path: str
    bar: int
    size: int
    there: int

    @property
    def sbdf(self) -> str:
        return PART[self.part].sbdf

    @property
    def wide(self) -> bool:
        return self.there >> 32 > 0

    def words(self, address: int) -> str:
        """Give setpci's words that write the BAR, the upper half first: what is between stays above RAM."""
        register = 0x10 + 4 * self.bar
        upper = f"{register + 4:x}.l={address >> 32:x} " if self.wide else ""
        return f"{upper}{register:x}.l={address & 0xFFFF_FFFF:x}"


TESTDEV = Function("testdev", "00_06.0", 0, 0x1000, FREE)
WIDE = Function("wide", "00_08.0", 2, 0x10_0000, 0x1_4000_0000)  # 64 bits
FUNCTIONS = (
    TESTDEV,
    WIDE,
    Function("deep", "00_07.0-00_00.0-00_00.0-00_00.0", 0, 0x1000, 0xFD50_0000),  # below three bridges
    Function("nic", "00_04.0-00_00.0", 3, 0x4000, 0xFD90_0000),  # the MSI-X page is an ordinary one now
)


def setpci(dom0: Dom0, sbdf: str, words: str) -> None:
    dom0.run(f"setpci -s {sbdf} {words}")


def place_of(dom0: Dom0, function: Function) -> int:
    register = 0x10 + 4 * function.bar
    low, high = dom0.run(f"setpci -s {function.sbdf} {register:x}.l {register + 4:x}.l").lines
    return (int(low, 16) & ~0xF) | (int(high, 16) << 32 if function.wide else 0)


def forget(dom0: Dom0, function: Function) -> None:
    """Make Xen forget a function, with its memory decode off."""
    setpci(dom0, function.sbdf, "COMMAND=0:3")
    bus, devfn = int(function.sbdf[5:7], 16), int(function.sbdf[8:10], 16) << 3
    assert dom0.call(inside.pci_device_remove, 0, bus, devfn, uses=[inside.physdev_op]) == 0


def pages(start: int, size: int) -> list[int]:
    """Choose pages of a range: the first, the last, and some between."""
    return sorted({*range(start, start + size, max(PAGE, size // 4)), start + size - PAGE})


def assert_map(dom0: Dom0, there: list[int], gone: list[int]) -> None:
    """Hold dom0's map against what it should be; a PV dom0 has none."""
    if dom0.mode == "pvh":
        read = dict(zip(there + gone, mapped(dom0, *there, *gone), strict=True))
        assert read == {**dict.fromkeys(there, True), **dict.fromkeys(gone, False)}


@pytest.fixture(scope="module")
def all_forgotten(installed: Dom0) -> Iterator[Dom0]:
    """Have Xen forget the functions and pcipt leave them so; afterwards Xen knows them again."""
    dom0 = installed
    with ExitStack() as stack:
        stack.enter_context(undriven(dom0, PART["nic"].sbdf))
        stack.enter_context(settings(dom0, SWITCHED_OFF))
        for function in FUNCTIONS:
            forget(dom0, function)
        resync(dom0)
        yield dom0
    wait_healthy(dom0)
    assert {function.sbdf for function in FUNCTIONS} <= known_to_xen(dom0).keys()


@pytest.fixture
def forgotten(all_forgotten: Dom0) -> Iterator[Dom0]:
    """Give these functions as they were, and leave them so: at home, decoding nothing."""
    homes = {function: place_of(all_forgotten, function) for function in FUNCTIONS}
    yield all_forgotten
    words = [f"-s {each.sbdf} COMMAND=0:3 {each.words(home)}" for each, home in homes.items()]
    all_forgotten.run(f"setpci {' '.join(words)}")
    ours = {each.sbdf for each in FUNCTIONS}
    wait_answer(all_forgotten, f"not {ours!r} & {{m['sbdf'] for m in it['mappings']}}", "Mappings")
    resync(all_forgotten)  # a PV dom0 has no mappings to wait for


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.part)
def test_a_bar_is_mapped_where_it_goes(forgotten: Dom0, function: Function) -> None:
    dom0, sbdf, size = forgotten, function.sbdf, function.size
    result = RESULT[dom0.mode]
    here, there = place_of(dom0, function), function.there
    steps, mark = Steps(dom0, function.path), dom0.mark()
    setpci(dom0, sbdf, "COMMAND=2:2")
    steps.wait("map-mmio", result, here)
    assert_map(dom0, pages(here, size), pages(there, size))
    setpci(dom0, sbdf, function.words(there))
    steps.wait("map-mmio", result, there)
    assert decoding(dom0, sbdf)[function.bar] == (there, size)
    assert_map(dom0, pages(there, size), pages(here, size))
    assert ((there, size) in [run[:2] for run in held(dom0, sbdf)]) is (dom0.mode == "pvh")
    setpci(dom0, sbdf, "COMMAND=0:2")
    steps.wait("unmap-mmio", result, there)
    assert_map(dom0, [], pages(there, size) + pages(here, size))
    moves = [(d.action, d.start, d.size, d.result) for d in steps.told() if d.start in (here, there)]
    done = [
        ("map-mmio", here, size, "done"),
        ("unmap-mmio", here, size, "done"),
        ("map-mmio", there, size, "done"),
        ("unmap-mmio", there, size, "done"),
    ]
    assert moves == (done if dom0.mode == "pvh" else [])
    asked = {(call.verb, call.gfn * PAGE) for call in map_calls(dom0, mark)}
    if dom0.mode == "pv":
        assert asked == set()
    else:
        assert {("add", here), ("remove", here), ("add", there), ("remove", there)} <= asked
    assert held(dom0, sbdf) == []


HOSTILE = (
    (0x1000_0000, "dom0's RAM"),
    (0xB003_0000, "MMCFG, its page of 00:06.0"),
    (0xFEC0_0000, "the IO-APIC"),
    (0xFEE0_0000, "the local APIC and the MSI window"),
    (0x9_F000, "the low 1 MiB"),
)


def test_a_hostile_bar_value_is_refused_and_told(forgotten: Dom0) -> None:
    dom0, function = forgotten, TESTDEV
    here, steps, mark = place_of(dom0, function), Steps(dom0, function.path), dom0.mark()
    setpci(dom0, function.sbdf, "COMMAND=2:2")
    refused = "refused" if dom0.mode == "pvh" else "not-applicable"
    for address, what in HOSTILE:
        setpci(dom0, function.sbdf, function.words(address))
        steps.wait("map-mmio", refused, address)
        assert decoding(dom0, function.sbdf)[0][0] == address, what
    findings = answer(dom0, "Status")["findings"]
    asked_for = [d for d in steps.told() if d.action == "map-mmio" and d.start != here]
    told = [(address, refused) for address, _ in HOSTILE] if dom0.mode == "pvh" else []
    assert [(d.start, d.result) for d in asked_for] == told
    if dom0.mode == "pvh":
        assert all(d.rule for d in asked_for), asked_for
        assert any(finding["sbdf"] == function.sbdf for finding in findings), findings
    setpci(dom0, function.sbdf, function.words(here))
    steps.wait("map-mmio", RESULT[dom0.mode], here)
    assert_map(dom0, [here], [])
    asked = {call.gfn * PAGE for call in map_calls(dom0, mark)}
    assert asked == ({here} if dom0.mode == "pvh" else set())


def wander(sbdf: str, places: list[int]) -> None:
    """Move BAR 0 from place to place while it decodes; now and then long enough in one for it to settle."""
    import os
    import time

    config = os.open(f"/sys/bus/pci/devices/{sbdf}/config", os.O_RDWR)
    for number, place in enumerate(places):
        os.pwrite(config, place.to_bytes(4, "little"), 0x10)
        time.sleep((number * 7 % 16) / 100)
    os.close(config)


def test_a_bar_moved_200_times_ends_mapped_where_it_is(forgotten: Dom0) -> None:
    dom0, function, result = forgotten, TESTDEV, RESULT[forgotten.mode]
    here, steps, mark = place_of(dom0, function), Steps(dom0, function.path), dom0.mark()
    places = [FREE + PAGE * (number * 37 % MOVES) for number in range(MOVES)]
    setpci(dom0, function.sbdf, "COMMAND=2:2")
    steps.wait("map-mmio", result, here)
    dom0.call(wander, function.sbdf, places, timeout=300)
    steps.wait("map-mmio", result, places[-1])
    assert decoding(dom0, function.sbdf)[0] == (places[-1], function.size)
    assert held(dom0, function.sbdf) == ours_on_pvh(dom0, places[-1], function.size)
    assert_map(dom0, [places[-1]], [here, *places[:-1]])
    calls = map_calls(dom0, mark)
    print(f"{dom0.mode}: {MOVES} moves, {len(calls)} calls")
    assert (calls == []) == (dom0.mode == "pv")


def ours_on_pvh(dom0: Dom0, start: int, size: int) -> list[tuple[int, int, str]]:
    """Give what pcipt holds once it has mapped a BAR there; a PV dom0 has no mappings."""
    return [(start, size, "us")] if dom0.mode == "pvh" else []


KILL_AT = "fsync,fdatasync,rename,renameat,renameat2,ioctl"


def kill_at(dom0: Dom0, point: int, words: str) -> str:
    """Have strace kill the service at its n-th sync, rename or hypercall after setpci; give that call.

    What the service does of itself (its watchdog's check, a late saving) counts as well: if it is dead before
    setpci has begun, it is started and done again.
    """
    while True:
        pid, record = main_pid(dom0), f"/run/strace.{point}"
        armed = dom0.run(
            f"systemctl reset-failed pcipt; (strace -f -qq -p {pid} -e trace={KILL_AT}"
            f" -e inject={KILL_AT}:signal=KILL:when={point} -o {record} >/dev/null 2>&1 &);"
            f" while test -e /proc/{pid} && ! grep -q '^TracerPid:.*[1-9]' /proc/{pid}/status; do sleep 0.05;"
            f" done; test -e /proc/{pid} && setpci {words}",
            check=False,
        )
        dom0.wait_for(f"! test -e /proc/{pid}", timeout=PATIENCE)
        wait_answers(dom0)
        assert main_pid(dom0) != pid
        if armed.rc == 0:
            return re.sub(r"^[0-9]+ +", "", dom0.run(f"tail -n 2 {record}").lines[0])[:60]


def test_killed_at_ten_points_of_an_action_it_ends_right(forgotten: Dom0) -> None:
    """strace kills the service at its n-th sync, rename or hypercall after a BAR has moved."""
    dom0, function, result = forgotten, TESTDEV, RESULT[forgotten.mode]
    points = range(1, 11) if dom0.mode == "pvh" else range(1, 3)  # a PV dom0 has fewer: no hypercall is made
    here, steps = place_of(dom0, function), Steps(dom0, function.path)
    setpci(dom0, function.sbdf, "COMMAND=2:2")
    steps.wait("map-mmio", result, here)
    at = here
    for point in points:
        to = FREE if at == here else here
        last = kill_at(dom0, point, f"-s {function.sbdf} {function.words(to)}")
        assert decoding(dom0, function.sbdf)[0] == (to, function.size)
        assert held(dom0, function.sbdf) == ours_on_pvh(dom0, to, function.size), f"killed at point {point}"
        assert_map(dom0, [to], [at])
        print(f"{dom0.mode}: killed at point {point}: {last}")
        at = to


def test_in_observe_mode_nothing_is_changed(forgotten: Dom0) -> None:
    dom0, function = forgotten, TESTDEV
    here, only_said = place_of(dom0, function), "planned" if dom0.mode == "pvh" else "not-applicable"
    with settings(dom0, OBSERVING):
        steps, mark = Steps(dom0, function.path), dom0.mark()
        known = known_to_xen(dom0)
        setpci(dom0, function.sbdf, "COMMAND=2:2")
        steps.wait("map-mmio", only_said, here)
        setpci(dom0, function.sbdf, function.words(FREE))
        steps.wait("map-mmio", only_said, FREE)
        resync(dom0)
        assert {d.result for d in steps.told()} == {"planned"}
        assert map_calls(dom0, mark) == []
        assert known_to_xen(dom0) == known
        assert_map(dom0, [], [here, FREE])
        setpci(dom0, function.sbdf, "COMMAND=0:2")
