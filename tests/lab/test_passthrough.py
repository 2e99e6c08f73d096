"""Reserved regions leave dom0 with their devices and return before them; a guest gets one, and goes again.

Three regions (hardware.RESERVED): one for the NIC, one for the NIC and the test device, one for the test
device and whatever is plugged in at 01:00.0. What /dev/mem shows of their pages is the truth.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import pytest

from . import inside
from .hardware import PART, REGIONS
from .machine import Dom0, Result
from .steps import (
    PATIENCE,
    answer,
    ask,
    await_event,
    driver_of,
    now,
    plug,
    restart,
    resync,
    unplug,
    wait_answer,
    wait_healthy,
)
from .test_lab_smoke import known_to_xen
from .witness import map_calls, mapped

NIC, TESTDEV = PART["nic"].sbdf, PART["testdev"].sbdf
IOMMU_OF_AMD = "0000:00:01.0"  # a function, which Xen keeps for itself
ALONE, SHARED, LATE = (first << 12 for first, _ in REGIONS[:3])
IN, OUT = True, False
GUEST = """\
name = 'pcipt-guest'
type = 'pv'
memory = 128
vcpus = 1
kernel = '/boot/{kernel}'
pci = [ {device} ]
"""


@pytest.fixture(scope="module")
def toolstack(installed: Dom0) -> Dom0:
    installed.run("/etc/init.d/xen start || true; modprobe xen-pciback", timeout=180)
    return installed


@pytest.fixture
def lab(toolstack: Dom0) -> Iterator[Dom0]:
    """Give a machine with a toolstack; afterwards all functions are dom0's."""
    yield toolstack
    for sbdf in (NIC, TESTDEV):
        if driver_of(toolstack, sbdf) == "pciback":
            toolstack.run(f"xl pci-assignable-remove -r {sbdf}")
    wait_healthy(toolstack)


@pytest.fixture
def pvh(lab: Dom0) -> Dom0:
    if lab.mode == "pv":
        pytest.skip("a PV dom0 has no map of its own that could change")
    return lab


def release(dom0: Dom0, arguments: str) -> Result:
    """Release a function; a PVH dom0 of this Xen and Linux has to be forced (`pcipt host` says why)."""
    can = dom0.run("pcipt host --json", check=False).json()["verdict"] != "refuse"
    return dom0.run(f"pcipt release {'' if can else '--force '}{arguments}")


def regions(dom0: Dom0) -> tuple[bool, ...]:
    return tuple(mapped(dom0, ALONE, SHARED, LATE))


def in_the_map(dom0: Dom0) -> bool:
    """Tell whether dom0 has a map of its own with regions in it."""
    return dom0.mode == "pvh" and dom0.cell.has_regions


def assert_regions(dom0: Dom0, *expected: bool) -> None:
    if in_the_map(dom0):
        assert regions(dom0) == expected


def wait_regions(dom0: Dom0, *expected: bool) -> None:
    dom0.call(inside.await_regions, [ALONE, SHARED, LATE], list(expected), PATIENCE, timeout=2 * PATIENCE)
    assert regions(dom0) == expected


def states(dom0: Dom0) -> dict[int, str]:
    """Give what pcipt says of each region."""
    return {int(r["base"], 16): r["mapped"] for r in answer(dom0, "Rmrr")["regions"]}


def followed(dom0: Dom0, command: str, action: str) -> float:
    """Run a command on the NIC, wait for the action that follows, and give the seconds between them.

    On PV there is nothing to do and to tell: everything is compared, and 0.0 is given.
    """
    if dom0.mode == "pv":
        dom0.run(f"{command} {NIC}")
        resync(dom0)
        return 0.0
    began = now(dom0)
    dom0.run(f"{command} {NIC}")
    ended = datetime.fromisoformat(now(dom0))
    wanted = {"kind": "action", "action": action, "result": "done"}
    events = await_event(dom0, NIC, began, wanted)
    when = min(event["when"] for event in events if event.get("action") == action)
    return (datetime.fromisoformat(when) - ended).total_seconds()


@contextmanager
def stopped(dom0: Dom0) -> Iterator[None]:
    dom0.run("systemctl stop pcipt")
    try:
        yield
    finally:
        restart(dom0)


def test_what_xen_does_alone(pvh: Dom0) -> None:
    """The life of a region as the reference has it, without pcipt."""
    with stopped(pvh):
        assert regions(pvh) == (IN, IN, IN)
        pvh.run(f"xl pci-assignable-add {NIC}")
        assert regions(pvh) == (IN, IN, IN)
        first, count = REGIONS[0]
        assert pvh.call(inside.memory_mapping, first, count, 0) == 0
        assert regions(pvh) == (OUT, IN, IN)
        pvh.run(f"xl pci-assignable-remove -r {NIC}")
        assert regions(pvh) == (OUT, IN, IN)
        assert pvh.call(inside.memory_mapping, first, count, 1) == 0
        assert regions(pvh) == (IN, IN, IN)


def test_the_host_is_as_xen_says(lab: Dom0) -> None:
    """Xen's capabilities and its words at boot, beside what pcipt tells."""
    told = lab.run("pcipt host --json", check=False).json()
    able = lab.run("xl info virt_caps").stdout.split()
    assert told["iommu"]["used"] is any(word.endswith("_directio") for word in able)
    assert (told["dom0"], told["iommu"]["source"]) == (lab.mode, "xen")
    printed = lab.run("xl dmesg").stdout
    if "Interrupt remapping " in printed:
        assert told["iommu"]["interrupt_remapping"] is ("Interrupt remapping enabled" in printed)
    assert told["findings"] == []


def test_a_pvh_dom0_is_told_what_it_cannot_do(pvh: Dom0) -> None:
    """Before Xen 4.20 and Linux 6.12 it gives nothing away; later only to HVM guests."""
    told = pvh.run("pcipt host --json", check=False).json()
    version = tuple(int(part) for part in told["xen"].split(".")[:2])
    linux = tuple(int(part) for part in told["linux"].split("-")[0].split(".")[:2])
    gives = version >= (4, 20) and linux >= (6, 12)
    assert (told["guests"]["pv"], told["guests"]["hvm"] == "refuse") == ("refuse", not gives)
    done = pvh.run(f"pcipt release --dry-run {NIC}", check=False)
    assert (done.rc == 1) is not gives
    assert gives or "dom0 is PVH" in done.stderr


def test_release_and_reclaim(lab: Dom0) -> None:
    """A shared region follows the last of its devices."""
    before, mark = driver_of(lab, NIC), lab.mark()
    told = release(lab, f"--json {NIC}").json()
    assert [function["owner"] for function in told["functions"]] == ["quarantine"]
    assert driver_of(lab, NIC) == "pciback"
    assert_regions(lab, OUT, IN, IN)
    if in_the_map(lab):
        assert states(lab)[ALONE] == "withdrawn"
    else:
        assert set(states(lab).values()) == ({"not-applicable"} if lab.cell.has_regions else set())
        assert map_calls(lab, mark) == []
    release(lab, TESTDEV)
    owners = {each["sbdf"]: each["owner"] for each in answer(lab, "Status")["given_away"]}
    own = {sbdf for sbdf, owner in owners.items() if owner == "Xen itself"}
    assert own <= {IOMMU_OF_AMD}
    assert owners == {NIC: "quarantine", TESTDEV: "quarantine"} | dict.fromkeys(own, "Xen itself")
    assert_regions(lab, OUT, OUT, OUT)
    lab.run(f"pcipt reclaim {NIC}")
    assert driver_of(lab, NIC) == before
    assert_regions(lab, IN, IN, OUT)
    if in_the_map(lab):
        calls = [(call.verb, call.gfn) for call in map_calls(lab, mark)]
        assert calls[-2:] == [("add", ALONE >> 12), ("add", SHARED >> 12)]
        assert states(lab)[ALONE] == "by-pcipt"
    lab.run(f"pcipt reclaim {TESTDEV}")
    assert_regions(lab, IN, IN, IN)


def test_what_was_hidden_at_boot_is_quarantined(lab: Dom0) -> None:
    """`xen-pciback.hide=` leaves a function dom0's, and so its regions; what it does is done by hand here."""
    for file in ("new_slot", "bind"):
        lab.run(f"echo {TESTDEV} > /sys/bus/pci/drivers/pciback/{file}")
    assert known_to_xen(lab)[TESTDEV] == "d0"
    told = release(lab, f"--json {TESTDEV}").json()
    assert [function["owner"] for function in told["functions"]] == ["quarantine"]
    assert known_to_xen(lab)[TESTDEV] != "d0"
    assert_regions(lab, IN, IN, OUT)  # the NIC keeps the one that they share
    lab.run(f"pcipt reclaim {TESTDEV}")
    assert known_to_xen(lab)[TESTDEV] == "d0"
    assert_regions(lab, IN, IN, IN)


def test_xl_by_hand_is_followed_within_two_seconds(lab: Dom0) -> None:
    assert followed(lab, "xl pci-assignable-add", "withdraw-reserved") < 2
    assert_regions(lab, OUT, IN, IN)
    assert followed(lab, "xl pci-assignable-remove -r", "restore-reserved") < 2
    assert_regions(lab, IN, IN, IN)


def test_hot_unplug_of_the_last_device_ends_unmapped(pvh: Dom0) -> None:
    """Xen counts a device that came later once too often, and keeps the region."""
    plug(pvh, "e1000e", "later")
    release(pvh, TESTDEV)
    assert regions(pvh) == (IN, IN, IN)
    unplug(pvh, "later")
    wait_regions(pvh, IN, IN, OUT)
    pvh.run(f"pcipt reclaim {TESTDEV}")
    assert regions(pvh) == (IN, IN, IN)


def test_killed_between_the_steps_it_heals(pvh: Dom0) -> None:
    pvh.run(f"xl pci-assignable-add {NIC} & sleep 0.3; systemctl kill -s KILL pcipt; wait")
    restart(pvh)
    wait_regions(pvh, OUT, IN, IN)
    pvh.run(f"systemctl kill -s KILL pcipt; systemctl stop pcipt; xl pci-assignable-remove -r {NIC}")
    assert regions(pvh) == (OUT, IN, IN)
    restart(pvh)
    wait_regions(pvh, IN, IN, IN)


def test_the_root_disk_stays(lab: Dom0) -> None:
    done = lab.run(f"pcipt release --force {PART['ahci'].sbdf}", check=False)
    assert done.rc == 1
    assert "root file system" in done.stderr


def test_a_guest_gets_it_and_leaves_nothing_behind(lab: Dom0) -> None:
    """Xen refuses a shared region under a strict policy, as the check said; relaxed it takes it."""
    if lab.mode == "pvh":
        pytest.skip("a PV guest with passthrough does not start under this PVH dom0 (E820, ENOSYS)")
    (verdict,) = ask(lab, f"check {NIC}")["functions"]
    assert verdict["rdm_policy"] == ("relaxed" if lab.cell.has_regions else "strict")
    release(lab, NIC)
    kernel = lab.run("ls /boot | grep vmlinuz | tail -1").stdout.strip()
    tries = ((f"'{NIC}'", False), (f"'{NIC},rdm_policy=relaxed'", True))
    for device, accepted in tries if lab.cell.has_regions else tries[1:]:
        lab.put("/root/guest.cfg", GUEST.format(kernel=kernel, device=device).encode())
        done = lab.run("xl create -p /root/guest.cfg", check=False, timeout=180)
        assert (done.rc == 0) is accepted, done.stderr
    wait_answer(lab, "any(each['owner'].startswith('guest ') for each in it['given_away'])")
    refused = lab.run(f"pcipt reclaim {NIC}", check=False)
    assert refused.rc == 1
    assert "belongs to guest" in refused.stderr
    (verdict,) = ask(lab, f"check {NIC}")["functions"]
    assert "owned-by-guest" in {reason["code"] for reason in verdict["reasons"]}
    lab.run("xl destroy pcipt-guest", timeout=180)
    wait_answer(lab, "any(each['owner'] == 'quarantine' for each in it['given_away'])")
    (verdict,) = ask(lab, f"check {NIC}")["functions"]
    assert not {"guest-leftover", "owned-by-guest"} & {reason["code"] for reason in verdict["reasons"]}
    lab.run(f"pcipt reclaim {NIC}")
