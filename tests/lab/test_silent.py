"""What changes without a message: a function that Xen was made to forget, one that was hidden at boot."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from . import inside
from .hardware import PART
from .machine import Dom0, Mark
from .steps import driver_of, restart, settings, wait_healthy
from .test_lab_smoke import known_to_xen
from .test_passthrough import release
from .witness import map_calls

TESTDEV, WIDE = PART["testdev"].sbdf, PART["wide"].sbdf
WIDE_DEVFN = 8 << 3
PCIBACK = "/sys/bus/pci/drivers/pciback"
#: How often Xen is asked while there is a function whose owner may change silently.
OFTEN = "[watch]\nowners-s = 5\n"
REPAIRED_WITHIN = 60.0


@pytest.fixture
def seized(installed: Dom0) -> Iterator[Dom0]:
    """Have xen-pciback bind the test device by hand, as `hide=` does: Xen goes on listing it as dom0's."""
    dom0 = installed
    dom0.run("modprobe xen-pciback")
    for file in ("new_slot", "bind"):
        dom0.run(f"echo {TESTDEV} > {PCIBACK}/{file}")
    yield dom0
    if driver_of(dom0, TESTDEV) == "pciback":
        for file in ("unbind", "remove_slot"):
            dom0.run(f"echo {TESTDEV} > {PCIBACK}/{file}")
    wait_healthy(dom0)


def what_xen_did(dom0: Dom0, since: Mark) -> list[str]:
    """Give the words of what Xen says that it did to the test device: add, remove."""
    found = (re.fullmatch(rf"PCI (add|remove) device {TESTDEV}\s*", line) for line in dom0.xen_lines(since))
    return [each[1] for each in found if each is not None]


def test_a_silently_forgotten_function_is_found_and_repaired(seized: Dom0) -> None:
    """While a function's owner may change silently, Xen is asked about all such functions at a slow pace."""
    dom0 = seized
    with settings(dom0, OFTEN):
        dom0.run(f"setpci -s {TESTDEV} COMMAND=0:3; sleep 1")
        mark = dom0.mark()
        assert dom0.call(inside.pci_device_remove, 0, 0, 6 << 3, uses=[inside.physdev_op]) == 0
        end = time.monotonic() + REPAIRED_WITHIN
        while (told := what_xen_did(dom0, mark)) != ["remove", "add"] and time.monotonic() < end:
            time.sleep(2)
        assert told == ["remove", "add"]
        assert known_to_xen(dom0)[TESTDEV] == "d0"


def test_hidden_at_boot_with_a_region(installed: Dom0) -> None:
    """The module is loaded with `hide=` and the service started after it, in the order of a boot.

    A hidden function stays dom0's in Xen, and so does its region, until it is released.
    """
    dom0 = installed
    dom0.run("/etc/init.d/xen start || true", timeout=180)
    dom0.run("systemctl stop pcipt; rmmod xen-pciback 2>/dev/null || true")
    dom0.run(f"modprobe xen-pciback 'hide=({TESTDEV})'")
    assert driver_of(dom0, TESTDEV) == "pciback"
    mark = dom0.mark()
    restart(dom0)
    wait_healthy(dom0)
    assert known_to_xen(dom0)[TESTDEV] == "d0"
    assert map_calls(dom0, mark) == []
    release(dom0, TESTDEV)
    assert known_to_xen(dom0)[TESTDEV] != "d0"
    dom0.run(f"pcipt reclaim {TESTDEV}")
    assert known_to_xen(dom0)[TESTDEV] == "d0"
    wait_healthy(dom0)
