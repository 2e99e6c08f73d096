"""Virtual functions of a NIC with Linux's own drivers: QEMU's igb, with igb and igbvf (`--hardware igb`).

A PV dom0 uses them. The vPCI of Xen 4.20 takes no virtual function with MSI-X from a PVH dom0: its check of
the MSI-X structures reads the BAR registers, which a virtual function does not have.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from .hardware import OTHER
from .machine import Dom0
from .steps import Steps, answer, findings, resync, wait_answer, wait_healthy
from .test_lab_smoke import known_to_xen

PHYSICAL = next(part.sbdf for part in OTHER["igb"].parts if part.name == "igb")
FOLDER = f"/sys/bus/pci/devices/{PHYSICAL}"
#: Where its two virtual functions appear: First VF Offset 0x80, VF Stride 2.
VIRTUAL = ("0000:1b:10.0", "0000:1b:10.2")
PLACE = "00_0d.0-00_10.0"
#: QEMU's user network: this machine's address in it, and the router, which answers to ping.
HERE, ROUTER = "10.0.2.15/24", "10.0.2.2"
#: How long a second try is waited for: more than the longest pause of the work queue after a first failure.
NO_MORE_TRIES_SECONDS = 90.0


def interface(dom0: Dom0, sbdf: str) -> str:
    """Give the name of the network interface of a function, once its driver has made it."""
    return dom0.wait_for(f"ls /sys/bus/pci/devices/{sbdf}/net | grep .", timeout=120).stdout.strip()


def answers(dom0: Dom0, name: str) -> bool:
    """Tell whether the router answers to a ping through an interface, with what it alone can use."""
    dom0.run(f"ip addr add {HERE} dev {name}; ip link set {name} up", check=False)
    try:
        ping = f"busybox ping -c 1 -W 3 -I {name} {ROUTER}"
        tries = f"for _ in 1 2 3 4 5 6; do {ping} && exit 0; sleep 1; done; exit 1"
        return dom0.run(tries, check=False).rc == 0
    finally:
        dom0.run(f"ip addr flush dev {name}")


@pytest.fixture
def nic(installed: Dom0) -> Iterator[Dom0]:
    """Give a machine with an igb; afterwards it has no virtual function."""
    if installed.extra.hardware != "igb":
        pytest.skip("this machine has no igb (--hardware igb)")
    installed.run("modprobe igb; modprobe igbvf")
    installed.run(f"ip link set {interface(installed, PHYSICAL)} up")
    yield installed
    installed.run(f"echo 0 > {FOLDER}/sriov_numvfs")
    installed.wait_for(f"! test -e /sys/bus/pci/devices/{VIRTUAL[0]}")
    resync(installed)  # refused DMA of a function that has left stays told until everything is compared
    wait_healthy(installed)


def test_the_physical_function_has_a_network(nic: Dom0) -> None:
    assert known_to_xen(nic)[PHYSICAL] == "d0"
    assert answers(nic, interface(nic, PHYSICAL))


def test_a_pv_dom0_uses_virtual_functions(nic: Dom0) -> None:
    if nic.mode != "pv":
        pytest.skip("the next scene is a PVH dom0's")
    nic.run(f"echo 2 > {FOLDER}/sriov_numvfs")
    nic.wait_for(f"test -e /sys/bus/pci/devices/{VIRTUAL[1]}")
    wait_answer(nic, "it['counts']['known_to_xen'] == it['counts']['functions']")
    assert {known_to_xen(nic)[sbdf] for sbdf in VIRTUAL} == {"d0"}
    for sbdf in VIRTUAL:
        assert answers(nic, interface(nic, sbdf))
    wait_healthy(nic)


def test_a_pvh_dom0_is_told_that_xen_takes_none(nic: Dom0) -> None:
    """Each virtual function is told with the reason, Xen is not asked again and again, no packet passes."""
    if nic.mode != "pvh":
        pytest.skip("the scene before is a PV dom0's")
    steps, mark = Steps(nic, PLACE), nic.mark()
    nic.run(f"echo 2 > {FOLDER}/sriov_numvfs")
    nic.wait_for(f"test -e /sys/bus/pci/devices/{VIRTUAL[1]}")
    wait_answer(nic, f"{VIRTUAL[0]!r} in {{f['sbdf'] for f in it['findings']}}")
    assert any("DEVICE BUG" in line and VIRTUAL[0] in line for line in nic.xen_lines(mark))
    told = findings(nic, VIRTUAL[0])
    print(told)
    assert "orphan" in told
    assert answer(nic, "Status")["health"] == "degraded"
    resync(nic)
    before = [line for line in nic.xen_lines(mark) if "PCI" in line]
    time.sleep(NO_MORE_TRIES_SECONDS)
    assert [line for line in nic.xen_lines(mark) if "PCI" in line] == before
    assert [step for step in steps.told() if step.action == "add-device" and step.result == "done"] == []
    assert not answers(nic, interface(nic, VIRTUAL[0]))
