"""The lab itself: is it a real Xen, does the wire hold, do plugging and Xen's own view work?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import inside
from .errors import CommandError, TimedOutError
from .hardware import PART, PARTS
from .machine import Dom0

TESTDEV = PART["testdev"].sbdf


def known_to_xen(dom0: Dom0) -> dict[str, str]:
    """Ask key Q which functions Xen lists, and who owns them."""
    found = {}
    for line in dom0.debug_key("Q"):
        words = line.split()
        if len(words) > 2 and words[0].count(":") == 2 and words[1] == "-":
            found[words[0]] = words[2]
    return found


def half(value: int) -> float:
    return value / 2


def half_and_one(value: int) -> float:
    return half(value) + 1


def fail_loudly() -> None:
    print("about to fail")
    raise RuntimeError("on purpose")


def test_dom0_is_a_real_xen_of_its_kind(dom0: Dom0) -> None:
    assert dom0.run("cat /sys/hypervisor/type").stdout.strip() == "xen"
    assert dom0.run("cat /sys/hypervisor/guest_type").stdout.strip() == dom0.mode.upper()
    assert "control_d" in dom0.run("cat /proc/xen/capabilities").stdout
    version = dom0.run("cat /sys/hypervisor/version/major /sys/hypervisor/version/minor").lines
    assert version == dom0.cell.platform.xen.split(".")


def test_every_part_is_there(dom0: Dom0) -> None:
    listed = {line.split()[0] for line in dom0.run("lspci -D").lines}
    assert {part.sbdf for part in PARTS} <= listed
    assert dom0.run(f"test -e /sys/bus/pci/devices/{TESTDEV}/driver", check=False).rc != 0


def test_results_come_back(dom0: Dom0) -> None:
    result = dom0.run("echo out; echo err >&2; exit 3", check=False)
    assert (result.rc, result.stdout, result.stderr) == (3, "out\n", "err\n")
    with pytest.raises(CommandError, match="ended with 3"):
        dom0.run("exit 3")
    assert dom0.call(half_and_one, 5, uses=[half]) == 3.5
    with pytest.raises(CommandError, match=r"(?s)about to fail.*on purpose"):
        dom0.call(fail_loudly)


def test_a_command_that_hangs_is_killed(dom0: Dom0) -> None:
    with pytest.raises(TimedOutError, match="longer than 2 s"):
        dom0.run("echo before; sleep 1000", timeout=2)
    assert dom0.run("pgrep -f '[s]leep 1000'", check=False).rc == 1


def test_a_command_may_leave_a_child_behind(dom0: Dom0) -> None:
    started = time.monotonic()
    child = int(dom0.run("sleep 300 & echo $!").stdout)
    assert time.monotonic() - started < 60
    dom0.run(f"kill {child}")


@pytest.mark.parametrize("size", [0, 1, 30_000])
def test_files_go_both_ways(dom0: Dom0, size: int) -> None:
    data = os.urandom(size)
    dom0.put("/tmp/lab-file", data)
    assert dom0.fetch("/tmp/lab-file") == data


def test_the_checkout_is_there(dom0: Dom0) -> None:
    ours = Path(__file__).read_bytes()
    assert dom0.fetch("/srv/lab/pcipt/tests/lab/test_lab_smoke.py") == ours


def test_the_console_can_be_marked(dom0: Dom0) -> None:
    first = dom0.mark()
    dom0.run("echo said by dom0 > /dev/hvc0")
    second = dom0.mark()
    assert "said by dom0" in dom0.console_from(first)
    assert "said by dom0" not in dom0.console_from(second)
    assert dom0.xen_lines(second) == []


def test_xen_lists_the_parts(dom0: Dom0) -> None:
    known = known_to_xen(dom0)
    assert {part.sbdf: known.get(part.sbdf) for part in PARTS} == {part.sbdf: "d0" for part in PARTS}


def test_a_nic_is_plugged_and_unplugged(dom0: Dom0) -> None:
    sbdf = "0000:01:00.0"
    assert sbdf not in known_to_xen(dom0)
    before = dom0.mark()
    dom0.qmp("device_add", driver="e1000e", id="hotnic", bus="rp1")
    dom0.wait_for(f"test -e /sys/bus/pci/devices/{sbdf}/driver", timeout=120)
    assert sbdf in dom0.run("lspci -D").stdout
    end = time.monotonic() + 60  # from 4.20 on a PVH dom0 has an orphan first, which pcipt mends if it runs
    while known_to_xen(dom0)[sbdf] != "d0":
        assert time.monotonic() < end
        time.sleep(1)
    assert any(f"PCI add device {sbdf}" in line for line in dom0.xen_lines(before))
    dom0.qmp("device_del", id="hotnic")
    dom0.control.wait_event("DEVICE_DELETED", 120, device="hotnic")
    dom0.wait_for(f"! test -e /sys/bus/pci/devices/{sbdf}", timeout=120)
    assert sbdf not in known_to_xen(dom0)


@pytest.fixture
def unwatched(dom0: Dom0) -> Iterator[None]:
    """Hold pcipt, if it runs, away from what this module does behind its back."""
    runs = dom0.run("systemctl is-active pcipt", check=False).rc == 0
    if runs:
        dom0.run("systemctl stop pcipt")
    yield
    if runs:
        dom0.run("systemctl start pcipt")


@pytest.mark.usefixtures("unwatched")
def test_xen_forgets_and_learns_a_function(dom0: Dom0) -> None:
    devfn = 6 << 3
    # Decode must be off before an add: a PVH Xen 4.17 panics if anything goes wrong with decode on.
    dom0.run(f"setpci -s {TESTDEV} COMMAND=0:3")
    assert dom0.call(inside.pci_device_remove, 0, 0, devfn, uses=[inside.physdev_op]) == 0
    assert TESTDEV not in known_to_xen(dom0)
    assert dom0.call(inside.pci_device_add, 0, 0, devfn, uses=[inside.physdev_op]) == 0
    assert known_to_xen(dom0)[TESTDEV] == "d0"
