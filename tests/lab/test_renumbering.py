"""Bus renumbering under pcipt: the function keeps place, mappings and history, Xen learns the new address.

A bus outside of what an IOMMU unit covered at boot is refused: the add would leave an orphan, which the next
removal turns into a panic of Xen.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .hardware import PART
from .machine import Dom0
from .steps import Steps, answer, held, resync, undriven, wait_answer, wait_healthy
from .test_foundation import mutations
from .test_lab_smoke import known_to_xen
from .test_untrapped import assert_map, pages, setpci
from .witness import map_calls

PORT, NVME = PART["rp3"].sbdf, PART["nvme"].sbdf
NVME_PATH = "00_05.0-00_00.0"
SWITCH_PORT, UP, DOWN, DEEP = (PART[name].sbdf for name in ("rp4", "up", "down", "deep"))
DEEP_PATH = "00_07.0-00_00.0-00_00.0-00_00.0"
RENUMBERED = "0000:05:00.0"
OUTSIDE = "0000:30:00.0"
AWAY = ("0000:12:00.0", "0000:10:00.0", "0000:0f:00.0")  # where the nested ones go


def bar0(dom0: Dom0, sbdf: str) -> tuple[int, int]:
    start, last, _ = (
        int(word, 16) for word in dom0.run(f"head -1 /sys/bus/pci/devices/{sbdf}/resource").stdout.split()
    )
    return start, last - start + 1


@pytest.fixture
def nvme(installed: Dom0) -> Iterator[Dom0]:
    """Take the driver off the NVMe function, which goes on decoding; afterwards all is as it was."""
    with undriven(installed, NVME):
        setpci(installed, NVME, "COMMAND=2:2")
        wait_healthy(installed)
        yield installed
        setpci(installed, PORT, "SECONDARY_BUS=03 SUBORDINATE_BUS=0b")
        wait_healthy(installed)
    assert known_to_xen(installed)[NVME] == "d0"


def actions(steps: Steps) -> list[tuple[str, str, str]]:
    return [(d.action, d.sbdf, d.result) for d in steps.told()]


def test_within_the_covered_range_the_function_is_followed_and_back(nvme: Dom0) -> None:
    dom0 = nvme
    steps, mark, owners = Steps(dom0, NVME_PATH), dom0.mark(), known_to_xen(dom0)
    mappings = held(dom0, NVME)  # without the MSI-X pages, which vPCI traps or not as it sees fit
    there = [page for start, size, _ in mappings for page in pages(start, size)]
    history = answer(dom0, "History", function=NVME_PATH)["events"]
    assert bool(mappings) is (dom0.mode == "pvh")
    assert history
    setpci(dom0, PORT, "SECONDARY_BUS=05")
    steps.wait("remove-device", "done")
    assert actions(steps) == [("add-device", RENUMBERED, "done"), ("remove-device", NVME, "done")]
    assert known_to_xen(dom0) == {RENUMBERED if s == NVME else s: owner for s, owner in owners.items()}
    assert_map(dom0, there, [])
    assert [run[:2] for run in held(dom0, NVME)] == [run[:2] for run in mappings]  # Linux's address names it
    assert dom0.run(f"setpci -s {PORT} SECONDARY_BUS").stdout.strip() == "05"
    assert answer(dom0, "History", function=NVME_PATH)["events"][: len(history)] == history
    steps = Steps(dom0, NVME_PATH)
    setpci(dom0, PORT, "SECONDARY_BUS=03")
    steps.wait("remove-device", "done")
    wait_healthy(dom0)
    assert actions(steps) == [("add-device", NVME, "done"), ("remove-device", RENUMBERED, "done")]
    assert known_to_xen(dom0) == owners
    assert_map(dom0, there, [])
    assert [run[:2] for run in held(dom0, NVME)] == [run[:2] for run in mappings]
    assert map_calls(dom0, mark) == []
    if dom0.mode == "pvh":  # vPCI has it in hand again
        setpci(dom0, NVME, "COMMAND=0:2")
        assert_map(dom0, [], there)
        setpci(dom0, NVME, "COMMAND=2:2")
        assert_map(dom0, there, [])


def test_outside_of_the_covered_range_it_is_refused_and_told(nvme: Dom0) -> None:
    dom0 = nvme
    start, size = bar0(dom0, NVME)
    steps, mark, owners = Steps(dom0, NVME_PATH), dom0.mark(), known_to_xen(dom0)
    setpci(dom0, PORT, "SUBORDINATE_BUS=30 SECONDARY_BUS=30")
    wait_answer(dom0, f"any({OUTSIDE!r} in finding['text'] for finding in it['findings'])")
    resync(dom0)
    assert mutations(dom0, mark) == []
    assert known_to_xen(dom0) == owners
    assert "done" not in {result for _, _, result in actions(steps)}
    assert_map(dom0, pages(start, size), [])


@pytest.fixture
def switch(installed: Dom0) -> Iterator[Dom0]:
    """Take the drivers off the nested bridges; afterwards all numbers are as they were."""
    dom0 = installed
    with undriven(dom0, DOWN), undriven(dom0, UP):
        setpci(dom0, DEEP, "COMMAND=2:2")
        wait_healthy(dom0)
        yield dom0
        setpci(dom0, SWITCH_PORT, "SECONDARY_BUS=0c")
        setpci(dom0, UP, "SECONDARY_BUS=0d SUBORDINATE_BUS=0e")
        setpci(dom0, DOWN, "SECONDARY_BUS=0e SUBORDINATE_BUS=0e")
        setpci(dom0, DEEP, "COMMAND=0:2")
        wait_healthy(dom0)


def test_below_nested_bridges_each_level_is_followed(switch: Dom0) -> None:
    """First the endpoint moves, then the bridge above it, then the one above that; and back."""
    dom0 = switch
    start, size = bar0(dom0, DEEP)
    owners = known_to_xen(dom0)
    expected = dict(owners)
    low, middle, high = (DEEP_PATH.rsplit("-", count)[0] for count in (0, 1, 2))
    steps = (
        # words of setpci, place of the function that moves, from, to
        (f"-s {UP} SUBORDINATE_BUS=14 -s {DOWN} SUBORDINATE_BUS=14 SECONDARY_BUS=12", low, DEEP, AWAY[0]),
        (f"-s {UP} SECONDARY_BUS=10", middle, DOWN, AWAY[1]),
        (f"-s {SWITCH_PORT} SECONDARY_BUS=0f", high, UP, AWAY[2]),
        (f"-s {SWITCH_PORT} SECONDARY_BUS=0c", high, AWAY[2], UP),
        (f"-s {UP} SECONDARY_BUS=0d", middle, AWAY[1], DOWN),
        (f"-s {DOWN} SECONDARY_BUS=0e SUBORDINATE_BUS=0e -s {UP} SUBORDINATE_BUS=0e", low, AWAY[0], DEEP),
    )
    for words, place, before, after in steps:
        steps, mark = Steps(dom0, place), dom0.mark()
        dom0.run(f"setpci {words}")
        steps.wait("remove-device", "done")
        expected[after] = expected.pop(before)
        assert known_to_xen(dom0) == expected
        lines = [line for line in mutations(dom0, mark) if "PCI" in line]
        assert [line.split()[-1] for line in lines] == [after, before]
        assert_map(dom0, pages(start, size), [])
        assert map_calls(dom0, mark) == []
    assert known_to_xen(dom0) == owners
