"""Record the fixture of remapping: a lab machine, what is written to it, and what pcipt does about it, live.

    python -m tests.lab.record_remapping pvh fixtures/sysfs/lab-remap-pvh

Writes are those of a tracing instance of our own, on the probes that pcipt has set; the actions are those of
`pcipt monitor`. Nothing is made up: replaying the one must give the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pcipt.pci.write import ConfigWrite
from pcipt.watch.kprobe_text import parse_line

from . import inside
from .hardware import HOT, HOT_PATH, PART
from .machine import Dom0
from .record_fixture import changed_since, main, record, start_listening, unpack
from .steps import RESULT, Steps, wait_healthy
from .test_lab_smoke import known_to_xen
from .test_renumbering import NVME, NVME_PATH, PORT
from .test_untrapped import FREE, TESTDEV, place_of, setpci

INSTANCE = "/sys/kernel/tracing/instances/pcipt-lab"
TRACE, EVENTS, UEVENTS = "/run/writes.txt", "/run/monitor.jsonl", "/run/uevents"
VIRTUAL = tuple(f"{NVME[:-1]}{number}" for number in (1, 2))
VIRTUAL_PATHS = tuple(f"00_05.0-00_00.{number}" for number in (1, 2))
KEYS = ("action", "sbdf", "start", "size", "reason", "result")

README = """# {name}

A {kind} dom0 of Xen {version} (Debian 12, Linux {linux}) on QEMU's q35, emulated VT-d: the machine of
`tests/lab/hardware.py`. Taken by `python -m tests.lab.record_remapping {mode} …` while pcipt ran. Nothing is
masked: the machine is emulated.

What it exercises: Xen forgets 00:06.0, whose BAR then moves while it decodes; a NIC is plugged in at {hot}
and unplugged; two virtual functions of {nvme} come and go; without a driver it moves to bus 05 and back.

| file | content |
|---|---|
| `sys/`, `proc/` | the machine at the start |
| `steps/` | the machine after what is plugged, pulled, bound or unbound |
| `sequence.jsonl` | when that was, by the writes before, and the functions of the kernel's messages |
| `writes.jsonl` | each configuration write of dom0, as its kernel made it; `own` are pcipt's |
| `xen.json` | what Xen was and knew at the start (its debug key Q) |
| `expected-actions.jsonl` | the actions that pcipt took, live |
"""


def start_tracing(instance: str, trace: str, events: str) -> None:
    """Write down, from now on, every configuration write and everything that pcipt tells."""
    import os
    import subprocess
    from pathlib import Path

    os.makedirs(instance, exist_ok=True)
    for name, value in (("trace_clock", "mono"), ("events/pcipt/enable", "1")):
        Path(instance, name).write_text(value)
    for command, target in (
        (["cat", f"{instance}/trace_pipe"], trace),
        (["pcipt", "monitor", "--json"], events),
    ):
        with open(target, "wb") as out:
            subprocess.Popen(command, stdout=out, stdin=subprocess.DEVNULL, start_new_session=True)


class Recording:
    """What is recorded so far."""

    def __init__(self, dom0: Dom0) -> None:
        self._dom0 = dom0
        self._seen = 0
        self.steps: list[dict[str, Any]] = []

    def writes(self) -> int:
        """Tell how many writes there were, when those on their way have arrived."""
        count = f"wc -l < {TRACE}"
        return int(
            self._dom0.run(
                f"a=-1; b=$({count}); while [ $a != $b ]; do sleep 0.3; a=$b; b=$({count}); done; echo $b"
            ).stdout
        )

    def step(
        self, about: str, tree: str | None, act: Callable[[], object], forget: tuple[str, ...] = ()
    ) -> None:
        """Do something to the machine that is no write of a register, and record how it is afterwards.

        What comes is there after the kernel's writes that bring it; what goes has gone before them.
        """
        before = self.writes()
        functions = self._functions()
        act()
        self._dom0.run("udevadm settle", timeout=300)
        number = self.writes() if self._functions() - functions else before
        changed = changed_since(self._dom0, self._seen)
        self._seen = len(self._dom0.run(f"cat {UEVENTS}").lines)
        if tree is not None and self._dom0.run(f"test -e /root/fixture/{tree}", check=False).rc != 0:
            record(self._dom0, f"/{tree}")
        step = {"n": number, "tree": tree, "about": about, "changed": changed}
        self.steps.append({**step, "forget": forget} if forget else step)

    def _functions(self) -> set[str]:
        return set(self._dom0.run("ls /sys/bus/pci/devices").lines)


def play(dom0: Dom0, recording: Recording) -> None:
    """Do to the machine what the fixture is about, waiting each time for what pcipt does."""
    result, rewritten = RESULT[dom0.mode], "rewrite-bar" if dom0.mode == "pvh" else "map-mmio"
    folder, driver = f"/sys/bus/pci/devices/{NVME}", "/sys/bus/pci/drivers/nvme"

    steps, home = Steps(dom0, TESTDEV.path), place_of(dom0, TESTDEV)
    setpci(dom0, TESTDEV.sbdf, "COMMAND=0:3")
    recording.step(
        f"Xen is made to forget {TESTDEV.sbdf}", None,
        lambda: dom0.call(inside.pci_device_remove, 0, 0, 6 << 3, uses=[inside.physdev_op]),
        forget=(TESTDEV.sbdf,),
    )  # fmt: skip
    setpci(dom0, TESTDEV.sbdf, "COMMAND=2:2")
    steps.wait("add-device", "done")
    setpci(dom0, TESTDEV.sbdf, TESTDEV.words(FREE))
    steps.wait(rewritten, result)
    setpci(dom0, TESTDEV.sbdf, f"COMMAND=0:2 {TESTDEV.words(home)}")

    steps = Steps(dom0, HOT_PATH)
    recording.step(f"a NIC is plugged in at {HOT}", "plugged", lambda: plug(dom0))
    recording.step(f"the NIC {HOT} is unplugged", "plain", lambda: unplug(dom0))
    steps.wait("unmap-mmio", result)

    dom0.run(f"echo 0 > {folder}/sriov_drivers_autoprobe")
    virtual = [Steps(dom0, path) for path in VIRTUAL_PATHS]
    recording.step(
        "two virtual functions appear", "virtual", lambda: dom0.run(f"echo 2 > {folder}/sriov_numvfs")
    )
    for each in virtual:
        each.wait("map-mmio", result)
    recording.step("they are switched off", "plain", lambda: dom0.run(f"echo 0 > {folder}/sriov_numvfs"))
    for each in virtual:
        each.wait("unmap-mmio", result)

    steps = Steps(dom0, NVME_PATH)
    recording.step("its driver is unbound", "undriven", lambda: dom0.run(f"echo {NVME} > {driver}/unbind"))
    setpci(dom0, NVME, "COMMAND=2:2")
    setpci(dom0, PORT, "SECONDARY_BUS=05")
    steps.wait("remove-device", "done")
    steps = Steps(dom0, NVME_PATH)
    setpci(dom0, PORT, "SECONDARY_BUS=03")
    steps.wait("remove-device", "done")


def plug(dom0: Dom0) -> None:
    dom0.qmp("device_add", driver="e1000e", id="fixture", bus="rp1", mac="52:54:00:00:00:05")
    dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)


def unplug(dom0: Dom0) -> None:
    dom0.qmp("device_del", id="fixture")
    dom0.control.wait_event("DEVICE_DELETED", 120, device="fixture")
    dom0.wait_for(f"! test -e /sys/bus/pci/devices/{HOT}", timeout=120)


def take(dom0: Dom0, target: Path) -> None:
    """Record everything and write it below `target`."""
    wait_healthy(dom0)
    pid = int(dom0.run("systemctl show pcipt -p MainPID --value").stdout)
    dom0.run("rm -rf /root/fixture; mkdir /root/fixture")
    record(dom0, "/start")
    known = sorted(known_to_xen(dom0))
    dom0.call(start_listening, UEVENTS)
    dom0.call(start_tracing, INSTANCE, TRACE, EVENTS)
    dom0.wait_for(f"test -e {UEVENTS} && pcipt status --json | jq -e '.monitors > 0'")
    recording = Recording(dom0)
    try:
        play(dom0, recording)
        recording.writes()
    finally:  # an instance that listens would keep pcipt from taking its probes down
        dom0.run(f"echo 0 > {INSTANCE}/events/pcipt/enable; pkill -x cat; pkill -f '[p]cipt monitor'")
        dom0.run(f"rmdir {INSTANCE}")
    dom0.run("tar -C /root/fixture -czf /root/fixture.tar.gz .")
    unpack(dom0.fetch("/root/fixture.tar.gz", timeout=600), target)
    text = dom0.fetch(TRACE, timeout=600).decode()
    events = [json.loads(line) for line in dom0.fetch(EVENTS, timeout=600).decode().splitlines()]
    told = [{key: e.get(key) for key in KEYS} for e in events if e["kind"] == "action" and not leaving(e)]
    version = dom0.run("cat /sys/hypervisor/version/major /sys/hypervisor/version/minor").lines
    extra = dom0.run("cat /sys/hypervisor/version/extra").stdout.strip()
    facts = {
        "version": f"{version[0]}.{version[1]}{extra}",
        "dom0": dom0.mode,
        "known": known,
        "announces": True,
    }
    (target / "xen.json").write_text(f"{json.dumps(facts, indent=1)}\n")
    write_lines(target / "sequence.jsonl", recording.steps)
    write_lines(target / "expected-actions.jsonl", told)
    write_lines(
        target / "writes.jsonl",
        [write_of(line, number, pid) for number, line in enumerate(text.splitlines(), 1)],
    )
    words = {"name": target.name, "kind": dom0.mode.upper(), "mode": dom0.mode, "version": facts["version"]}
    linux = dom0.run("uname -r").stdout.strip()
    (target / "README.md").write_text(README.format(**words, linux=linux, hot=HOT, nvme=PART["nvme"].sbdf))


def leaving(event: dict[str, Any]) -> bool:
    """Tell an add that was refused as the function left just then, which Xen had heard before Linux told.

    Whether the service looks in that moment is chance.
    """
    return (event["action"], event["result"], event["rule"]) == ("add-device", "refused", "hardware-answers")


def write_of(line: str, number: int, pid: int) -> dict[str, Any]:
    write = parse_line(line, own={pid}, number=number)
    if not isinstance(write, ConfigWrite):
        raise SystemExit(f"writes were lost; record again: {line}")
    place = {
        "sbdf": str(write.sbdf),
        "offset": hex(write.offset),
        "size": write.size,
        "value": hex(write.value),
    }
    return {"n": number, **place, "when": write.when, "own": write.own}


def write_lines(path: Path, values: list[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(value)}\n" for value in values))


if __name__ == "__main__":
    main("record_remapping", take)
