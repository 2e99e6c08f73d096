"""Watching on a real Xen, in a PV and in a PVH dom0, under the service as installed.

The witness is QEMU: `pci_cfg_write` tells each configuration write as the emulated hardware got it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from .hardware import PART
from .machine import Dom0
from .steps import SETTINGS, answer, main_pid, status, wait_answer, wait_healthy
from .test_foundation import mutations
from .test_lab_smoke import known_to_xen
from .witness import Seen, Witness

TESTDEV, NVME, PORT = (PART[name].sbdf for name in ("testdev", "nvme", "rp3"))
NVME_PATH = "00_05.0-00_00.0"
LINE = 0x3C  # the interrupt line: a byte that nobody looks at
TRACING = "/sys/kernel/tracing"
#: One CPU's buffer holds some 18 000 writes.
MORE_THAN_A_BUFFER = 30_000
#: Words of the monitor's line.
NEW_DRIFT, DRIFT_GONE = ['"bar-drift"', '"new"'], ['"bar-drift"', '"gone"']


def burst(sbdf: str, offset: int, count: int) -> float:
    """Write a byte often, from one CPU, as a small program does; give the seconds it took."""
    import os
    import time

    os.sched_setaffinity(0, {0})
    config = os.open(f"/sys/bus/pci/devices/{sbdf}/config", os.O_RDWR)
    started = time.monotonic()
    for number in range(count):
        os.pwrite(config, bytes([number & 0xFF]), offset)
    took = time.monotonic() - started
    os.close(config)
    return took


def monitored(steps: list[tuple[str, list[list[str]]]], patience: float) -> list[dict[str, Any]]:
    """Run commands under `pcipt monitor --json`, waiting after each for lines that have all of some words.

    Shape:  for each step, dom0's clock before and after the command, and the events up to the last awaited.
    """
    import json
    import subprocess
    import time

    limit = str(patience * (len(steps) + 1))
    command_line = ["timeout", "-s", "KILL", limit, "pcipt", "monitor", "--json"]
    monitor = subprocess.Popen(command_line, stdout=subprocess.PIPE, text=True)
    assert monitor.stdout is not None
    lines = iter(monitor.stdout.readline, "")
    end = time.monotonic() + patience
    while not json.loads(subprocess.check_output(["pcipt", "status", "--json"]) or "{}").get("monitors"):
        if time.monotonic() > end:
            raise TimeoutError("the monitor does not get its stream")
    told = []
    try:
        for command, awaited in steps:
            before = time.time()
            subprocess.run(command, shell=True, check=True)
            after = time.time()
            events: list[Any] = []
            missing = awaited
            for line in lines:
                events.append(json.loads(line))
                missing = [words for words in missing if not all(word in line for word in words)]
                if not missing:
                    break
            else:
                raise TimeoutError(f"the monitor did not tell {missing} of {command!r}: {events}")
            told.append({"before": before, "after": after, "events": events})
    finally:
        monitor.terminate()  # timeout hands it on
        monitor.wait()
    return told


def watch(dom0: Dom0) -> Any:
    return answer(dom0, "Status")["watch"]


def changes(step: dict[str, Any]) -> list[dict[str, Any]]:
    return [event for event in step["events"] if event["kind"] == "change"]


def delay(step: dict[str, Any], event: dict[str, Any]) -> float:
    """Give the seconds from the end of a command to an event that it caused."""
    when = datetime.fromisoformat(event["when"]).timestamp()
    assert when > step["before"]
    return when - float(step["after"])


def wait_counted(dom0: Dom0, count: int) -> Any:
    """Wait until the service has seen or missed this many writes since it started; give its counters."""
    enough = f"it['watch']['writes'] + it['watch']['lost'] >= {count}"
    return wait_answer(dom0, enough, timeout=300)["watch"]


def wait_found(dom0: Dom0, code: str) -> None:
    wait_answer(dom0, f"{code!r} in {{finding['code'] for finding in it['findings']}}")


def bar0(dom0: Dom0) -> int:
    return int(dom0.run(f"setpci -s {TESTDEV} BASE_ADDRESS_0").stdout, 16) & ~0xF


def bar0_is(address: int, memory: str) -> str:
    """Give a command that moves the test device's BAR 0 with its decoding off, then sets that."""
    return f"setpci -s {TESTDEV} COMMAND=0:2 BASE_ADDRESS_0={address:x} COMMAND={memory}:2"


@pytest.fixture
def testdev(installed: Dom0) -> Iterator[int]:
    """Give the place of the test device's BAR 0, which decodes; afterwards all is as it was."""
    installed.run(f"setpci -s {TESTDEV} COMMAND=2:3")
    place = bar0(installed)
    yield place
    installed.run(f"{bar0_is(place, '0')} && setpci -s {TESTDEV} COMMAND=0:3")
    wait_healthy(installed)


def test_the_service_watches_by_kprobes_and_finds_nothing_wrong(installed: Dom0) -> None:
    told = status(installed)
    assert told["watch"]["source"] == "kprobe"
    installed.run(f"setpci -s {TESTDEV} {LINE:x}.b=5")
    wait_counted(installed, told["watch"]["writes"] + told["watch"]["lost"] + 1)


def test_a_burst_is_seen_or_its_loss_is_counted(installed: Dom0) -> None:
    dom0, count = installed, 10_000
    before, witness = watch(dom0), Witness(installed)
    took = dom0.call(burst, TESTDEV, LINE, count)
    dom0.run(f"setpci -s {TESTDEV} {' '.join(f'{LINE:x}.b={value:x}' for value in range(50))}")
    expected = [number & 0xFF for number in range(count)] + list(range(50))
    after = wait_counted(dom0, before["writes"] + before["lost"] + len(expected))
    told = witness.writes()
    assert [w.value for w in told if (w.sbdf, w.offset) == (TESTDEV, LINE)] == expected
    seen, lost = (after[key] - before[key] for key in ("writes", "lost"))
    others = len(told) - len(expected)
    print(f"{dom0.mode}: {len(expected)} writes in {took:.1f} s; seen {seen}, lost {lost}; others {others}")
    assert len(expected) <= seen + lost <= len(expected) + others
    if lost:
        assert "everything is compared again" in dom0.journal("-u pcipt")


def test_a_loss_is_counted_exactly_and_healed_by_reading_again(installed: Dom0, testdev: int) -> None:
    """The service is held still; a BAR moves, and so many writes follow that the record of it is gone."""
    dom0, count = installed, MORE_THAN_A_BUFFER
    wait_healthy(dom0)
    before, witness, pid = watch(dom0), Witness(dom0), main_pid(dom0)
    dom0.run(f"kill -STOP {pid} && taskset -c 0 {bar0_is(testdev + 0x10_0000, '2')}")
    dom0.call(burst, TESTDEV, LINE, count, timeout=300)
    dom0.run(f"kill -CONT {pid}")
    after = wait_counted(dom0, before["writes"] + before["lost"] + count + 3)
    told = witness.writes()
    assert len([w for w in told if w.sbdf == TESTDEV]) == count + 3
    seen, lost = (after[key] - before[key] for key in ("writes", "lost"))
    print(f"{dom0.mode}: {len(told)} writes reached the hardware; seen {seen}, lost {lost}")
    assert lost > 0
    assert count + 3 <= seen + lost <= len(told)
    wait_found(dom0, "bar-drift")
    assert "everything is compared again" in dom0.journal("-u pcipt")


def test_a_moved_bar_is_told_within_a_second(installed: Dom0, testdev: int) -> None:
    there = testdev + 0x10_0000
    away, back = installed.call(
        monitored,
        [(bar0_is(there, "2"), [NEW_DRIFT]), (bar0_is(testdev, "2"), [DRIFT_GONE])],
        30.0,
    )
    for step, start, to in ((away, testdev, there), (back, there, testdev)):
        moved = [event for event in changes(step) if event["change"] == "bar-moved"]
        assert [(e["sbdf"], e["bar"], e["from"], e["to"], e["size"]) for e in moved] == [
            (TESTDEV, 0, hex(start), hex(to), 4096)
        ]
        assert moved[0]["source"] == "write"
        assert moved[0]["who"].startswith("setpci-")
        told, found = delay(step, moved[0]), delay(step, step["events"][-1])
        print(f"{installed.mode}: move told {told:.3f} s, finding {found:.3f} s after setpci ended")
        assert told < 1
    kept = answer(installed, "History", function=TESTDEV)["events"]
    assert [e for e in kept if e in changes(away) + changes(back)] == changes(away) + changes(back)
    status(installed)


def test_sizing_tells_nothing(installed: Dom0, testdev: int) -> None:
    """PVH: vPCI drops both writes; PV: hardware takes both. Either way nothing has moved."""
    sizing = f"setpci -s {TESTDEV} BASE_ADDRESS_0=ffffffff BASE_ADDRESS_0={testdev:x}"
    (step,) = installed.call(
        monitored, [(f"{sizing}; sleep 1; setpci -s {TESTDEV} COMMAND=0:2", [['"bar-unmapped"']])], 30.0
    )
    assert [event["change"] for event in changes(step)] == ["decode", "bar-unmapped"]
    assert changes(step)[1]["from"] == hex(testdev)


def test_renumbering_under_a_driver_is_told_and_tears_nothing_down(installed: Dom0) -> None:
    dom0 = installed
    wait_healthy(dom0)
    owners, mark = known_to_xen(dom0), dom0.mark()
    history = answer(dom0, "History", function=NVME_PATH)["events"]
    away, back = dom0.call(
        monitored,
        [
            (f"setpci -s {PORT} SECONDARY_BUS=05", [['"no-answer"', '"new"']]),
            (f"setpci -s {PORT} SECONDARY_BUS=03", [['"no-answer"', '"gone"']]),
        ],
        30.0,
    )
    renumbered = "0000:05:00.0"
    for step, moved in ((away, (NVME, renumbered)), (back, (renumbered, NVME))):
        (change,) = changes(step)
        assert (change["change"], change["sbdf"]) == ("bus-numbers", PORT)
        assert [(pair["from"], pair["to"]) for pair in change["moved"]] == [moved]
        assert (change["from"]["secondary"], change["to"]["secondary"]) == (
            int(moved[0][5:7], 16), int(moved[1][5:7], 16),
        )  # fmt: skip
        told, found = delay(step, change), delay(step, step["events"][-1])
        print(f"{dom0.mode}: renumbering told {told:.3f} s, finding {found:.3f} s after setpci ended")
        assert told < 1
    wait_healthy(dom0)
    for name in (NVME_PATH, NVME):
        events = answer(dom0, "History", function=name)["events"]
        assert events[: len(history)] == history
        assert {e["result"] for e in events[len(history) :] if e["kind"] == "action"} <= {"refused"}
    kept = answer(dom0, "History", function=PORT)["events"]
    assert [e for e in kept if e["kind"] == "change"][-2:] == changes(away) + changes(back)
    assert mutations(dom0, mark) == []
    assert known_to_xen(dom0) == owners
    assert dom0.run(f"readlink /sys/bus/pci/devices/{NVME}/driver").stdout.strip().endswith("/nvme")


def calls_of(dom0: Dom0, pid: int) -> list[str]:
    """List what a process asks of the kernel in some seconds."""
    calls = dom0.run(f"timeout 8 strace -f -p {pid} 2>&1 | grep -v '^strace:'", check=False).lines
    quiet = ("<detached", "clock_gettime(")  # attaching wakes it, and it looks at the clock
    return [call for call in calls if not call.strip().startswith(quiet)]


def test_nothing_happens_while_nothing_is_written(installed: Dom0) -> None:
    """Twice a minute it looks after itself for systemd's watchdog; between that it sleeps."""
    pid = main_pid(installed)
    before = watch(installed)
    calls = calls_of(installed, pid)
    for _ in range(3):
        if calls[0].endswith("= 0"):  # the time of the watchdog or of a slow timer came meanwhile
            calls = calls_of(installed, pid)
    print(calls)
    assert len(calls) == 1
    assert calls[0].startswith("epoll_wait(")
    assert watch(installed) == before


def test_stopping_leaves_nothing_behind_and_a_killed_one_is_cleaned_up_after(installed: Dom0) -> None:
    dom0 = installed
    left = f"cat {TRACING}/kprobe_events; ls {TRACING}/instances"
    foreign = "p:lab/foreign vfs_read"
    dom0.run(f"echo '{foreign}' >> {TRACING}/kprobe_events")
    try:
        dom0.run("systemctl kill -s KILL pcipt")
        wait_healthy(dom0)
        told = status(dom0)["watch"]
        assert told["source"] == "kprobe"
        dom0.run(f"setpci -s {TESTDEV} {LINE:x}.b=5")
        wait_counted(dom0, told["writes"] + told["lost"] + 1)
        assert dom0.run(left).stdout.count("pcipt") == 3  # two probes, one instance
        dom0.run("systemctl stop pcipt")
        assert dom0.run(left).lines == ["p:lab/foreign vfs_read"]
    finally:
        dom0.run(f"echo '-:lab/foreign' >> {TRACING}/kprobe_events; systemctl start pcipt")
    assert "probes could not be removed" not in dom0.journal("-u pcipt")
    status(dom0)


def test_a_file_of_xentrace_tells_the_same_functions_and_registers(installed: Dom0) -> None:
    if installed.mode != "pvh":
        pytest.skip("of a PV dom0's accesses Xen traces no more than where they happened")
    dom0, file = installed, "/root/burst.xentrace"
    dom0.run(f"rm -f {file}; (timeout -s TERM 120 xentrace -D -e 0x0008f000 {file} >/dev/null 2>&1 &)")
    dom0.wait_for(f"test -s {file}", timeout=60)
    witness = Witness(dom0)
    dom0.call(burst, TESTDEV, LINE, 500)
    dom0.run(f"setpci -s {TESTDEV} COMMAND=0:3 && setpci -s {PORT} 3c.b=0 3d.b=1 && setpci -s {NVME} 0c.b=10")
    told = witness.writes()
    dom0.run("pkill -TERM -x xentrace; while pgrep -x xentrace; do sleep 0.1; done")
    done = dom0.run(f"pcipt decode --format xentrace --json {file}")
    decoded = [json.loads(line) for line in done.lines]
    print(f"{len(told)} writes reached the hardware, {len(decoded)} decoded; {done.stderr}")
    assert {item["type"] for item in decoded} == {"write"}
    assert {item["size"] for item in decoded} == {None}
    assert len(told) >= 504
    assert [Seen(i["sbdf"], int(i["offset"], 16), int(i["value"], 16)) for i in decoded] == told


@pytest.fixture
def by_xentrace(installed: Dom0) -> Iterator[Dom0]:
    """Have the service watch by xentrace, and afterwards as before."""
    installed.run(f"mkdir -p /etc/pcipt; printf '[watch]\\nsource = \"xentrace\"\\n' > {SETTINGS}")
    try:
        installed.run("systemctl restart pcipt")
        yield installed
    finally:
        installed.run(f"rm {SETTINGS}; systemctl restart pcipt")
        wait_healthy(installed)


def test_live_from_xens_trace_buffers(by_xentrace: Dom0) -> None:
    dom0 = by_xentrace
    if dom0.mode == "pv":
        told = status(dom0, "degraded")
        assert told["watch"]["source"] is None
        (finding,) = told["findings"]
        assert finding["code"] == "watch-unavailable"
        assert "of a PVH dom0 only" in finding["text"]
        return
    before = status(dom0)["watch"]
    assert before["source"] == "xentrace"
    witness = Witness(dom0)
    dom0.call(burst, TESTDEV, LINE, 500)
    after = wait_counted(dom0, before["writes"] + before["lost"] + 500)
    assert after["writes"] - before["writes"] == len(witness.writes())
    dom0.run(f"setpci -s {TESTDEV} COMMAND=2:3")
    wait_healthy(dom0)
    place = bar0(dom0)
    away, back = dom0.call(
        monitored,
        [
            (bar0_is(place + 0x10_0000, "2"), [['"bar-moved"'], NEW_DRIFT]),
            (bar0_is(place, "2"), [['"bar-moved"'], DRIFT_GONE]),
        ],
        30.0,
    )
    for step, to in ((away, place + 0x10_0000), (back, place)):
        (moved,) = [event for event in changes(step) if event["change"] == "bar-moved"]
        assert moved["to"] == hex(to)
        print(f"by xentrace: move told {delay(step, moved):.3f} s after setpci ended")
        assert delay(step, moved) < 1
    dom0.run(f"setpci -s {TESTDEV} COMMAND=0:3; pkill -KILL -x xentrace")
    wait_found(dom0, "watch-unavailable")
    told = status(dom0, "degraded")
    assert "xentrace ended with -9" in told["findings"][0]["text"]
    assert told["watch"]["lost"] > after["lost"]
    dom0.run("systemctl stop pcipt; ! pgrep -x xentrace")
