"""What leaves, leaves dom0's map: hot unplug, surprise removal, virtual functions that are switched off."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from .hardware import HOT, HOT2, HOT2_PATH, HOT_PATH, PART
from .machine import Dom0
from .steps import LEAVER, RESULT, Steps, held, plug, resync, unplug, wait_answer, wait_answers, wait_healthy
from .test_lab_smoke import known_to_xen
from .test_untrapped import assert_map, pages
from .witness import PAGE, MapCall, Witness, map_calls, mapped

SLOT = PART["rp1"].sbdf
NVME = PART["nvme"].sbdf
MSIX_BAR = 3
#: Slot Control: power controller and power indicator, off and on. Off takes the function from the bus.
POWER_OFF, POWER_ON = "CAP_EXP+18.w=0700:0700", "CAP_EXP+18.w=0300:0700"


def resources(dom0: Dom0, sbdf: str) -> dict[int, tuple[int, int]]:
    """Give the memory BARs that the kernel has assigned: start and size."""
    found = {}
    for number, line in enumerate(dom0.run(f"cat /sys/bus/pci/devices/{sbdf}/resource").lines[:6]):
        start, last, flags = (int(word, 16) for word in line.split())
        if flags & 0x200 and start:
            found[number] = (start, last - start + 1)
    return found


def removed(dom0: Dom0, bars: dict[int, tuple[int, int]]) -> list[tuple[int, int]]:
    """Give the runs of pages that must be taken out: all, but for MSI-X pages, which vPCI never mapped."""
    runs = [(start, size) for number, (start, size) in bars.items() if number != MSIX_BAR]
    table = bars[MSIX_BAR][0]
    return sorted([*runs, (table + PAGE, PAGE), (table + 3 * PAGE, PAGE)])  # table: page 0, PBA: page 2


def assert_gone(dom0: Dom0, steps: Steps, calls: list[MapCall], bars: dict[int, tuple[int, int]]) -> None:
    result, runs = RESULT[dom0.mode], removed(dom0, bars)
    told = sorted((d.start, d.size) for d in steps.told() if d.action == "unmap-mmio" and d.result == result)
    if dom0.mode == "pvh":
        assert told == runs
        assert {(c.verb, c.gfn * PAGE, c.count * PAGE) for c in calls} == {("remove", *run) for run in runs}
    else:
        assert calls == []
    assert_map(dom0, [], [page for start, size in bars.values() for page in pages(start, size)])
    assert held(dom0, HOT) == []
    assert HOT not in known_to_xen(dom0)


def test_what_linux_plugs_into_an_orphan_is_repaired(installed: Dom0) -> None:
    """Linux tells Xen of the function before its BARs have addresses: Xen looks for the MSI-X table in RAM,
    keeps the function without an owner, and the driver's probe fails. pcipt adds it again and probes again.
    """
    dom0 = installed
    mark, steps = dom0.mark(), Steps(dom0, HOT_PATH)
    plug(dom0, "e1000e", LEAVER)
    try:
        steps.wait("add-device", "done")
        dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)
        lines = dom0.xen_lines(mark)
        failed = next(number for number, line in enumerate(lines) if "Setup of vPCI failed" in line)
        assert f"PCI add device {HOT}" in lines[failed:]
        assert known_to_xen(dom0)[HOT] == "d0"
        bars = resources(dom0, HOT)
        assert_map(dom0, [bars[0][0], bars[1][0], bars[MSIX_BAR][0] + PAGE], [])
        wait_healthy(dom0)
    finally:
        unplug(dom0, LEAVER)
    wait_healthy(dom0)


def test_hot_unplug_leaves_nothing_mapped(plugged: Dom0) -> None:
    dom0 = plugged
    bars, steps, mark = resources(dom0, HOT), Steps(dom0, HOT_PATH), dom0.mark()
    assert set(bars) == {0, 1, MSIX_BAR}
    assert_map(dom0, [start for start, _ in bars.values()], [])
    unplug(dom0, LEAVER)
    for start, _ in removed(dom0, bars) if dom0.mode == "pvh" else []:
        steps.wait("unmap-mmio", "done", start)
    assert_gone(dom0, steps, map_calls(dom0, mark), bars)


def test_surprise_removal_is_waited_for_and_then_cleaned_up(plugged: Dom0) -> None:
    """The function goes from the bus first; while Linux still has it, nothing is taken from it."""
    dom0 = plugged
    bars, steps, mark = resources(dom0, HOT), Steps(dom0, HOT_PATH), dom0.mark()
    dom0.run(f"setpci -s {SLOT} {POWER_OFF}")
    try:
        assert dom0.run(f"setpci -s {HOT} 0.l").stdout.strip() == "ffffffff"
        resync(dom0)
        assert map_calls(dom0, mark) == []
        assert [d for d in steps.told() if d.result != "planned"] == []
        assert_map(dom0, [bars[0][0], bars[1][0], bars[MSIX_BAR][0] + PAGE], [])
        dom0.run(f"echo 1 > /sys/bus/pci/devices/{HOT}/remove")
        for start, _ in removed(dom0, bars) if dom0.mode == "pvh" else []:
            steps.wait("unmap-mmio", "done", start)
        assert_gone(dom0, steps, map_calls(dom0, mark), bars)
    finally:
        dom0.run(f"setpci -s {SLOT} {POWER_ON}; echo 1 > /sys/bus/pci/rescan")  # a later unplug needs Linux
        dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)


def test_virtual_functions_are_mapped_while_they_have_memory(installed: Dom0) -> None:
    """QEMU does not tell where virtual functions answer; dom0's map and Xen's console do."""
    dom0, result = installed, RESULT[installed.mode]
    folder = f"/sys/bus/pci/devices/{NVME}"
    virtual = [f"{NVME[:-1]}{number}" for number in (1, 2)]
    paths = [f"00_05.0-00_00.{number}" for number in (1, 2)]
    dom0.run(f"echo 0 > {folder}/sriov_drivers_autoprobe")
    steps, mark, witness = [Steps(dom0, path) for path in paths], dom0.mark(), Witness(dom0)
    dom0.run(f"echo 2 > {folder}/sriov_numvfs")
    starts = [resources(dom0, sbdf)[0][0] for sbdf in virtual]
    size = resources(dom0, virtual[0])[0][1]
    assert size == 4 * PAGE
    for step, start in zip(steps, starts, strict=True):
        step.wait("map-mmio", result, start)
    # The MSI-X table and PBA, pages 2 and 3, are Xen's to trap.
    ours = [page for start in starts for page in (start, start + PAGE)]
    trapped = [page for start in starts for page in (start + 2 * PAGE, start + 3 * PAGE)]
    if dom0.mode == "pvh":
        assert_map(dom0, ours, trapped)
        calls = {(c.verb, c.gfn * PAGE, c.count) for c in map_calls(dom0, mark)}
        assert calls == {("add", start, 2) for start in starts}
    known = known_to_xen(dom0)
    assert all(known[sbdf] == "d0" for sbdf in virtual)
    dom0.run(f"echo 0 > {folder}/sriov_numvfs; echo 1 > {folder}/sriov_drivers_autoprobe")
    for step, start in zip(steps, starts, strict=True):
        step.wait("unmap-mmio", result, start)
    assert_map(dom0, [], ours + trapped)
    if dom0.mode == "pv":
        assert map_calls(dom0, mark) == []
    commands = [w.value for w in witness.writes() if w.sbdf in virtual and w.offset == 4]
    assert all(not value & 2 for value in commands)  # never through a virtual function's command register
    wait_healthy(dom0)


def test_virtual_functions_that_xen_does_not_take_are_mapped_whole(installed: Dom0) -> None:
    """Without vPCI nothing is trapped: the pages of the MSI-X table are mapped, too, and each is told."""
    dom0 = installed
    folder = f"/sys/bus/pci/devices/{NVME}"
    virtual = [f"{NVME[:-1]}{number}" for number in (1, 2)]
    steps = [Steps(dom0, f"00_05.0-00_00.{number}") for number in (1, 2)]
    dom0.run(f"echo 0 > {folder}/sriov_drivers_autoprobe; echo 2 > {folder}/sriov_numvfs")
    spans = [resources(dom0, sbdf)[0] for sbdf in virtual]
    for step, (start, _) in zip(steps, spans, strict=True):
        step.wait("map-mmio", "done", start)
    everything = [page for start, size in spans for page in range(start, start + size, PAGE)]
    assert_map(dom0, everything, [])
    known = known_to_xen(dom0)
    assert all(known[sbdf].startswith("NULL") for sbdf in virtual)
    told = wait_answer(dom0, f"set({virtual!r}) <= {{f['sbdf'] for f in it['findings']}}")
    assert told["health"] == "degraded"
    added = [step for each in steps for step in each.told() if step.action == "add-device"]
    assert [step for step in added if step.result == "done"] == []
    dom0.run(f"echo 0 > {folder}/sriov_numvfs; echo 1 > {folder}/sriov_drivers_autoprobe")
    for step, (start, _) in zip(steps, spans, strict=True):
        step.wait("unmap-mmio", "done", start)
    assert_map(dom0, [], everything)
    wait_healthy(dom0)


def test_what_stays_is_left_alone(installed: Dom0) -> None:
    """On a machine at rest a full comparison takes nothing out and puts nothing in."""
    mark = installed.mark()
    resync(installed)
    assert map_calls(installed, mark) == []
    nic = resources(installed, PART["nic"].sbdf)
    if installed.mode == "pvh":
        assert all(mapped(installed, nic[0][0], nic[1][0], nic[MSIX_BAR][0] + PAGE))


CYCLES = 20


def burst(dom0: Dom0, functions: list[str]) -> list[tuple[int, int]]:
    """Have Linux let the functions go and find them again, many times; give where their BARs were."""
    folders = [f"/sys/bus/pci/devices/{sbdf}" for sbdf in functions]
    remove = "; ".join(f"echo 1 > {folder}/remove" for folder in folders)
    tell = "; ".join(f"head -6 {folder}/resource" for folder in folders)
    script = f"for _ in $(seq {CYCLES}); do {remove}; echo 1 > /sys/bus/pci/rescan; {tell}; done; {remove}"
    lines = [line.split() for line in dom0.run(script, timeout=900).lines]
    assert len(lines) == 6 * CYCLES * len(functions)
    spans = {(int(start, 16), int(last, 16)) for start, last, flags in lines if int(flags, 16) & 0x200}
    return sorted((start, last + 1 - start) for start, last in spans)


def assert_burst_is_over(dom0: Dom0, functions: list[str], spans: list[tuple[int, int]]) -> None:
    """Hold Xen's list and dom0's map against a machine without these functions, after quiet."""
    assert len(spans) >= 3
    gone = f"not {set(functions)!r} & {{m['sbdf'] for m in it['mappings']}}"
    wait_answer(dom0, gone, "Mappings", timeout=300)
    wait_answer(dom0, "it['health'] == 'healthy'", timeout=300)
    assert set(functions).isdisjoint(known_to_xen(dom0))
    assert_map(dom0, [], sorted({page for start, size in spans for page in pages(start, size)}))


@contextmanager
def found_again(dom0: Dom0, functions: list[str]) -> Iterator[None]:
    try:
        yield
    finally:
        dom0.run("echo 1 > /sys/bus/pci/rescan")
        for sbdf in functions:
            dom0.wait_for(f"test -e /sys/bus/pci/devices/{sbdf}", timeout=120)


def test_a_burst_of_coming_and_going_leaves_nothing_mapped(plugged: Dom0) -> None:
    """vPCI unmaps nothing of a function that leaves, and nobody reads it between its coming and going."""
    with found_again(plugged, [HOT]):
        assert_burst_is_over(plugged, [HOT], burst(plugged, [HOT]))


@pytest.fixture
def two(plugged: Dom0) -> Iterator[Dom0]:
    """Give a machine with a function behind two ports."""
    plug(plugged, "e1000e", "second", "rp6", HOT2_PATH)
    plugged.wait_for(f"test -e /sys/bus/pci/devices/{HOT2}/driver", timeout=120)
    yield plugged
    unplug(plugged, "second", HOT2_PATH)


def test_a_burst_at_two_ports_leaves_nothing_mapped(two: Dom0) -> None:
    with found_again(two, [HOT, HOT2]):
        assert_burst_is_over(two, [HOT, HOT2], burst(two, [HOT, HOT2]))


KILLS = 3


@contextmanager
def killed_meanwhile(dom0: Dom0) -> Iterator[None]:
    """Kill the service several times, at moments that have nothing to do with what happens."""
    script = f"for _ in $(seq {KILLS}); do sleep 7.3; systemctl kill -s KILL pcipt; done"
    before = int(dom0.run("systemctl show -P NRestarts pcipt").stdout)
    dom0.run(f"({script}) >/dev/null 2>&1 &")
    yield
    dom0.wait_for("! pgrep -f 'systemctl [k]ill'", timeout=120)
    # On a slow machine it may be killed while it starts, or not run yet.
    dom0.wait_for(f"test $(systemctl show -P NRestarts pcipt) -gt {before}", timeout=120)
    wait_answers(dom0)


def test_a_burst_with_kills_leaves_nothing_mapped(plugged: Dom0) -> None:
    """What the service had not written when it was killed, its next start finds in the kernel's log."""
    with found_again(plugged, [HOT]):
        with killed_meanwhile(plugged):
            spans = burst(plugged, [HOT])
        assert_burst_is_over(plugged, [HOT], spans)


def test_a_burst_at_two_ports_with_kills_leaves_nothing_mapped(two: Dom0) -> None:
    with found_again(two, [HOT, HOT2]):
        with killed_meanwhile(two):
            spans = burst(two, [HOT, HOT2])
        assert_burst_is_over(two, [HOT, HOT2], spans)


def test_what_came_and_left_while_no_service_ran_is_unmapped(plugged: Dom0) -> None:
    """The service is stopped when the function is gone, so nothing but the kernel's log tells of it."""
    dom0, folder = plugged, f"/sys/bus/pci/devices/{HOT}"
    with found_again(dom0, [HOT]):
        dom0.run(f"echo 1 > {folder}/remove")
        wait_answer(dom0, f"{HOT!r} not in {{m['sbdf'] for m in it['mappings']}}", "Mappings")
        wait_healthy(dom0)
        dom0.run("systemctl stop pcipt")
        dom0.run("echo 1 > /sys/bus/pci/rescan")
        dom0.wait_for(f"test -e {folder}/driver", timeout=120)
        bars = resources(dom0, HOT)
        dom0.run(f"echo 1 > {folder}/remove")
        if dom0.mode == "pvh":
            assert all(mapped(dom0, bars[0][0], bars[1][0]))  # vPCI has unmapped nothing
        dom0.run("systemctl start pcipt")
        assert_burst_is_over(dom0, [HOT], sorted(bars.values()))


def test_a_function_that_was_found_anew_while_no_service_ran_stays_mapped(plugged: Dom0) -> None:
    """It has left and is there again: mapped for it is what it decodes now, and nobody doubts that."""
    dom0, folder = plugged, f"/sys/bus/pci/devices/{HOT}"
    wait_healthy(dom0)
    dom0.run(f"systemctl kill -s KILL pcipt; systemctl stop pcipt; echo 1 > {folder}/remove")
    dom0.run("echo 1 > /sys/bus/pci/rescan")
    dom0.wait_for(f"test -e {folder}/driver", timeout=120)
    dom0.run("systemctl start pcipt")
    wait_answers(dom0)
    wait_healthy(dom0)
    bars = resources(dom0, HOT)
    assert_map(dom0, [bars[0][0], bars[1][0], bars[MSIX_BAR][0] + PAGE], [])


def test_messages_about_other_devices_while_no_service_ran_are_no_doubt(installed: Dom0) -> None:
    """The kernel counts messages about all devices; its log tells that no function was among them."""
    dom0 = installed
    wait_healthy(dom0)
    dom0.run("systemctl stop pcipt; for _ in 1 2 3 4; do echo change > /sys/class/net/lo/uevent; done")
    dom0.run("systemctl start pcipt")
    wait_answers(dom0)
    wait_healthy(dom0)
