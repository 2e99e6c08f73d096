"""What a device really reaches while its reserved region is withdrawn and restored: the memory tells.

QEMU's AMD IOMMU has no reserved regions (hardware.RESERVED). On a PV dom0 a region cannot be withdrawn: Xen
maps all memory but its own for dom0's devices.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import inside
from .dma import OWNER, REGION, WITNESS, Dma
from .hardware import PART
from .machine import Dom0
from .steps import PATIENCE, Steps, answer, await_event, driver_of, now, resync, wait_answer, wait_healthy
from .test_lab_smoke import known_to_xen
from .test_passthrough import release
from .test_untrapped import setpci
from .witness import mapped

PORT, PLACE = PART["rp5"].sbdf, "00_09.0-00_00.0"
MOVED = "0000:17:00.0"


@pytest.fixture(scope="module")
def toolstack(installed: Dom0) -> Dom0:
    if not installed.cell.has_regions:
        pytest.skip("this machine has no reserved regions")
    installed.run("/etc/init.d/xen start || true; modprobe xen-pciback", timeout=180)
    return installed


@pytest.fixture
def lab(toolstack: Dom0) -> Iterator[Dom0]:
    """Give a machine with a toolstack; afterwards the DMA device is dom0's again."""
    yield toolstack
    if driver_of(toolstack, OWNER) == "pciback":
        toolstack.run(f"xl pci-assignable-remove {OWNER}")
    wait_forgotten(toolstack)


def shows(dom0: Dom0, dma: Dma, *, withdrawn: bool) -> None:
    """Hold memory, processor and map against what pcipt said that it did: a PV dom0 loses nothing."""
    gone = withdrawn and dom0.mode == "pvh"
    assert dma.reaches(WITNESS) is not gone
    assert mapped(dom0, REGION) == [not gone]


def wait_forgotten(dom0: Dom0) -> None:
    """Wait until all is well. Refused DMA, which these scenes cause, is told until everything is compared."""
    resync(dom0)
    wait_healthy(dom0)


def state(dom0: Dom0) -> str:
    """Give what pcipt says of the region."""
    return next(r["mapped"] for r in answer(dom0, "Rmrr")["regions"] if int(r["base"], 16) == REGION)


def wait_for(dom0: Dom0, since: str, action: str) -> None:
    """Wait until the service has followed. On PV there is nothing to tell: have everything compared."""
    if dom0.mode == "pv":
        resync(dom0)
    else:
        await_event(dom0, OWNER, since, {"kind": "action", "action": action, "result": "done"})


def test_release_takes_the_region_from_dom0_and_reclaim_gives_it_back(lab: Dom0) -> None:
    """In quarantine the owner still reaches its region, and only that."""
    dma = Dma(lab)
    assert dma.reach() == (True, True)
    release(lab, OWNER)
    shows(lab, dma, withdrawn=True)
    assert dma.reaches(OWNER)
    lab.run(f"pcipt reclaim {OWNER}")
    shows(lab, dma, withdrawn=False)
    assert dma.reach() == (True, True)


def test_xl_by_hand_is_followed_down_to_the_dma(lab: Dom0) -> None:
    dma, since = Dma(lab), now(lab)
    lab.run(f"xl pci-assignable-add {OWNER}")
    wait_for(lab, since, "withdraw-reserved")
    shows(lab, dma, withdrawn=True)
    since = now(lab)
    lab.run(f"xl pci-assignable-remove {OWNER}")
    wait_for(lab, since, "restore-reserved")
    shows(lab, dma, withdrawn=False)
    assert dma.reach() == (True, True)


def test_a_followed_renumbering_keeps_the_region_true(lab: Dom0) -> None:
    """Xen froze the region's device at boot: the removal at the old number takes the region out, and pcipt
    restores it. A PV dom0 could not restore it, so nothing is removed there.
    """
    dma, steps = Dma(lab), Steps(lab, PLACE)
    setpci(lab, PORT, "SECONDARY_BUS=17")
    try:
        steps.wait("remove-device", "done" if lab.mode == "pvh" else "refused")
        if lab.mode == "pvh":
            lab.call(inside.await_regions, [REGION], [True], PATIENCE, timeout=2 * PATIENCE)
        shows(lab, dma, withdrawn=False)
        assert dma.reach() == (True, True)
        assert known_to_xen(lab)[MOVED] == "d0"
    finally:
        setpci(lab, PORT, "SECONDARY_BUS=15")
        steps.wait("add-device", "done")
        wait_forgotten(lab)
    shows(lab, dma, withdrawn=False)
    assert dma.reach() == (True, True)


def test_an_unplugged_device_leaves_no_region(lab: Dom0) -> None:
    """With the last of a region's devices Xen takes the region out of dom0's IOMMU table, on PV too.

    Source: xen/drivers/passthrough/vtd/iommu.c (intel_iommu_remove_device).
    """
    dma, since = Dma(lab), now(lab)
    lab.qmp("device_del", id="dma")
    lab.control.wait_event("DEVICE_DELETED", PATIENCE, device="dma")
    await_event(lab, PLACE, since, {"kind": "hotplug", "action": "remove"})
    try:
        if lab.mode == "pvh":
            lab.call(inside.await_regions, [REGION], [False], PATIENCE, timeout=2 * PATIENCE)
        assert not dma.reaches(WITNESS)
        assert mapped(lab, REGION) == [lab.mode == "pv"]
    finally:
        lab.qmp("device_add", driver="edu", id="dma", bus="rp5", dma_mask=0xFFFFFFFFFF)
        wait_answer(lab, "it['counts']['known_to_xen'] == it['counts']['functions']")
        wait_forgotten(lab)
    shows(lab, dma, withdrawn=False)
    dma.fill(OWNER)
    assert dma.reach() == (True, True)
