"""Record a fixture for `pcipt daemon --replay`: a lab machine before, during and after a hot-plug.

    python -m tests.lab.record_fixture pv fixtures/sysfs/lab-pv

Xen is made to forget the test device first, so the recording begins with a function unknown to Xen. What Xen
knows then is asked of Xen, the functions that come and go are those of the kernel's own hot-plug messages.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import inside
from .cell import MODES, Mode
from .fleet import Fleet
from .hardware import HOT, PART
from .machine import Dom0
from .test_lab_smoke import known_to_xen

TESTDEV = PART["testdev"].sbdf

# A PVH dom0 sees no IOMMU table, so a decoding function with a driver is not announced there: decode would
# have to go off around it, and the driver needs it.
EXPECTED = {
    "pv": [["add-device", TESTDEV, "done"], ["add-device", HOT, "done"], ["remove-device", HOT, "done"]],
    "pvh": [["add-device", TESTDEV, "done"], ["add-device", HOT, "refused"]],
}

README = """# {name}

A {kind} dom0 of Xen {version} (Debian 12, Linux {linux}) on QEMU's q35, emulated VT-d: the machine
of `tests/lab/hardware.py`. Taken by `python -m tests.lab.record_fixture {mode} …`, that is by
`pcipt record` in dom0. Nothing is masked: the machine is emulated.

What it exercises: a function unknown to Xen at the start ({testdev}: Xen was made to forget it), a
NIC hot-added at {hot} below the root port 00:03.0, the same NIC unplugged.

| file | content |
|---|---|
| `sys/`, `proc/` | the machine at the start |
| `steps/1-plugged`, `steps/2-unplugged` | the machine after each step |
| `sequence.jsonl` | the steps, with the functions of the kernel's hot-plug messages |
| `xen.json` | what Xen was and knew at the start (its debug key Q) |
| `expected.json` | the actions that pcipt must take when it is played |
"""


def start_listening(path: str) -> None:
    """Log the functions of the kernel's hot-plug messages into a file, from now on, in the background."""
    import subprocess

    program = (
        "import json, select, sys\n"
        "from pcipt.host.uevents import Rescan, UeventSource\n"
        "source = UeventSource()\n"
        "out = open(sys.argv[1], 'w', buffering=1)\n"
        "while select.select([source], [], []):\n"
        "    for event in source.read():\n"
        "        print('lost' if isinstance(event, Rescan) else event.sbdf, file=out)\n"
    )
    command = ["/usr/bin/python3", "-c", program, path]
    subprocess.Popen(command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def changed_since(dom0: Dom0, seen: int) -> list[str]:
    lines = dom0.run("cat /run/uevents").lines[seen:]
    if "lost" in lines:
        raise SystemExit("hot-plug messages were lost; record again")
    return list(dict.fromkeys(lines))


def record(dom0: Dom0, place: str) -> None:
    dom0.run(f"pcipt record /root/fixture{place}", timeout=300)


def take(dom0: Dom0, target: Path) -> None:
    """Record the machine three times, and write what Xen and the kernel said."""
    dom0.run("systemctl stop pcipt; rm -rf /root/fixture; mkdir /root/fixture")
    dom0.run(f"setpci -s {TESTDEV} COMMAND=0:3")
    if dom0.call(inside.pci_device_remove, 0, 0, 6 << 3, uses=[inside.physdev_op]) != 0:
        raise SystemExit("Xen does not forget the test device")
    known = sorted(known_to_xen(dom0))
    dom0.call(start_listening, "/run/uevents")
    dom0.wait_for("test -e /run/uevents")
    record(dom0, "/start")
    dom0.qmp("device_add", driver="e1000e", id="fixture", bus="rp1", mac="52:54:00:00:00:05")
    dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)
    dom0.run("udevadm settle", timeout=300)
    plugged = changed_since(dom0, 0)
    seen = len(dom0.run("cat /run/uevents").lines)
    record(dom0, "/1-plugged")
    dom0.qmp("device_del", id="fixture")
    dom0.control.wait_event("DEVICE_DELETED", 120, device="fixture")
    dom0.wait_for(f"! test -e /sys/bus/pci/devices/{HOT}", timeout=120)
    dom0.run("udevadm settle", timeout=300)
    unplugged = changed_since(dom0, seen)
    record(dom0, "/2-unplugged")
    version = dom0.run("cat /sys/hypervisor/version/major /sys/hypervisor/version/minor").lines
    extra = dom0.run("cat /sys/hypervisor/version/extra").stdout.strip()
    facts = {"version": f"{version[0]}.{version[1]}{extra}", "dom0": dom0.mode, "known": known}
    steps = [
        {"tree": "1-plugged", "about": f"a NIC is plugged in below 00:03.0 ({HOT})", "changed": plugged},
        {"tree": "2-unplugged", "about": f"the NIC {HOT} is unplugged again", "changed": unplugged},
    ]
    dom0.run("tar -C /root/fixture -czf /root/fixture.tar.gz .")
    unpack(dom0.fetch("/root/fixture.tar.gz", timeout=600), target)
    finish(target, facts, steps, dom0)


def unpack(archive: bytes, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    (target / "steps").mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(target / "steps", filter="tar")
    for part in (target / "steps" / "start").iterdir():
        part.rename(target / part.name)
    (target / "steps" / "start").rmdir()
    for stub in target.glob("steps/*/README.md"):
        stub.unlink()


def finish(target: Path, facts: dict[str, Any], steps: list[dict[str, Any]], dom0: Dom0) -> None:
    (target / "xen.json").write_text(f"{json.dumps(facts, indent=1)}\n")
    (target / "sequence.jsonl").write_text("".join(f"{json.dumps(step)}\n" for step in steps))
    (target / "expected.json").write_text(f"{json.dumps(EXPECTED[dom0.mode])}\n")
    words = {"name": target.name, "kind": dom0.mode.upper(), "mode": dom0.mode, "version": facts["version"]}
    linux = dom0.run("uname -r").stdout.strip()
    (target / "README.md").write_text(README.format(**words, linux=linux, testdev=TESTDEV, hot=HOT))


def main(module: str, recorded: Callable[[Dom0, Path], None]) -> None:
    """Boot the kind of dom0 that was asked for, with pcipt installed, and have it recorded."""
    if len(sys.argv) != 3 or sys.argv[1] not in MODES:
        raise SystemExit(f"usage: python -m tests.lab.{module} pv|pvh DIR")
    mode: Mode = "pv" if sys.argv[1] == "pv" else "pvh"
    with Fleet({mode: True}, Path("build/lab-fixture")) as fleet:
        fleet.installation(mode)
        recorded(fleet.machine(mode), Path(sys.argv[2]))


if __name__ == "__main__":
    main("record_fixture", take)
