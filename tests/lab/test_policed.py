"""What is plugged in below a policed port waits in quarantine until it is admitted.

Linux asks drivers in the order in which they were loaded: a driver that came before xen-pciback has the
device until xl takes it (docs/decisions/0024). Loaded first, as from an initramfs, xen-pciback takes it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .hardware import HOT, HOT_PATH
from .machine import Dom0
from .steps import driver_of, findings, settings, unplug, wait_answer, wait_healthy

PORT = HOT_PATH.partition("-")[0]
NAME = "policed"
WAITS = f"any((f['code'], f['sbdf']) == ('waits-for-admit', {HOT!r}) for f in it['findings'])"
OVER = f"not any(f['sbdf'] == {HOT!r} for f in it['findings'])"


@pytest.fixture
def policed(installed: Dom0) -> Iterator[Dom0]:
    """Give a machine with a toolstack, whose port is empty again afterwards."""
    if installed.mode == "pvh":
        pytest.skip("a PVH dom0 guards no port from Xen 4.20 on, and gives no device away before")
    installed.run("/etc/init.d/xen start || true; modprobe xen-pciback", timeout=180)
    yield installed
    if NAME in {part["name"] for part in installed.qmp("qom-list", path="/machine/peripheral")}:
        unplug(installed, NAME)
    wait_healthy(installed)


def probed(dom0: Dom0, mark: str) -> bool:
    """Tell whether the NIC's own driver has told of this address since the mark in the kernel's log."""
    since = dom0.run(f"dmesg | sed -n '/{mark}/,$p'").stdout
    assert mark in since
    return f"e1000e {HOT}" in since


@pytest.mark.parametrize("first", ["e1000e", "xen-pciback"])
def test_what_appears_below_a_policed_port_waits_until_it_is_admitted(policed: Dom0, first: str) -> None:
    dom0 = policed
    if first == "xen-pciback":
        dom0.run("modprobe -r e1000e; modprobe e1000e")  # so that xen-pciback is asked before it
    with settings(dom0, f'[hotplug]\nbelow = ["{PORT}"]\n'):
        wait_healthy(dom0)
        mark, admitted = f"policed-{first}", f"admitted-{first}"
        dom0.run(f"echo {mark} > /dev/kmsg")
        dom0.qmp("device_add", driver="e1000e", id=NAME, bus="rp1")
        wait_answer(dom0, WAITS)
        assert probed(dom0, mark) is (first == "e1000e")
        assert driver_of(dom0, HOT) == "pciback"
        assert HOT in dom0.run("xl pci-assignable-list").stdout
        assert "pcipt admit" in findings(dom0, HOT)["waits-for-admit"]
        dom0.run(f"echo {admitted} > /dev/kmsg")
        dom0.run(f"pcipt admit {HOT}")
        wait_answer(dom0, OVER)
        dom0.wait_for(f"test -e /sys/bus/pci/devices/{HOT}/driver", timeout=120)
        assert driver_of(dom0, HOT) == "e1000e"
        assert probed(dom0, admitted)
        assert HOT not in dom0.run("xl pci-assignable-list").stdout
        unplug(dom0, NAME)
        wait_healthy(dom0)
