"""DMA that the IOMMU refuses: Xen's line on its console becomes an event, a finding and a number.

The witness, a device of dom0, has no reserved region. A PV dom0's devices reach all memory but Xen's own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .dma import BUFFER, OWNER, REGION, TO_MEMORY, WITNESS, Dma, edu_transfer
from .machine import Dom0
from .steps import await_event, driver_of, findings, now, settings, wait_answer, wait_healthy
from .test_passthrough import release
from .witness import mapped

PLACE = "00_0a.0"
#: Where nothing is: between RAM and MMCFG.
HOLE = 0xA000_0000
OFTEN = "[watch]\nfaults-s = 5\n"
RESTORING = f"{OFTEN}\n[reserved]\nrestore_on_fault = true\n"
TOLD = f"'dma-fault' in {{f['code'] for f in it['findings'] if f['sbdf'] == {WITNESS!r}}}"


@pytest.fixture
def pvh(installed: Dom0) -> Iterator[Dom0]:
    """Give a PVH dom0 with a toolstack; afterwards the DMA device is dom0's and nothing is told."""
    if installed.mode != "pvh":
        pytest.skip("a PV dom0's devices reach all memory but Xen's own: nothing is refused")
    installed.run("/etc/init.d/xen start || true; modprobe xen-pciback", timeout=180)
    yield installed
    if driver_of(installed, OWNER) == "pciback":
        installed.run(f"pcipt reclaim {OWNER}")
    installed.run("pcipt resync")  # the finding ends with a comparison of everything
    wait_healthy(installed)


def refused(dom0: Dom0) -> int:
    """Give how many refused accesses the metrics count, wherever they went."""
    lines = [line for line in dom0.run("pcipt metrics").lines if line.startswith("pcipt_dma_faults_total{")]
    return sum(int(float(line.split()[-1])) for line in lines)


def test_an_access_to_a_hole_is_told_with_device_and_address(pvh: Dom0) -> None:
    dom0 = pvh
    with settings(dom0, OFTEN):
        before, since = refused(dom0), now(dom0)
        assert dom0.call(edu_transfer, WITNESS, BUFFER, HOLE, TO_MEMORY)
        wanted = {"kind": "dma-fault", "address": f"{HOLE:#x}", "access": "write", "there": "nothing"}
        event = next(e for e in await_event(dom0, PLACE, since, wanted) if e["kind"] == "dma-fault")
        assert (event["sbdf"], event["owner"], event["cause"]) == (WITNESS, "dom0", "page")
        wait_answer(dom0, TOLD)
        assert f"{HOLE:#x}" in findings(dom0, WITNESS)["dma-fault"]
        assert refused(dom0) > before


def test_an_access_to_a_withdrawn_region_names_it_and_can_restore_it(pvh: Dom0) -> None:
    if not pvh.cell.has_regions:
        pytest.skip("this machine has no reserved regions that Xen takes")
    dom0 = pvh
    dma = Dma(dom0)
    with settings(dom0, OFTEN):
        release(dom0, OWNER)
        since = now(dom0)
        assert not dma.reaches(WITNESS)
        wanted = {"kind": "dma-fault", "there": "withdrawn-region"}
        event = next(e for e in await_event(dom0, PLACE, since, wanted) if e["kind"] == "dma-fault")
        assert int(event["address"], 16) >> 12 == REGION >> 12
        assert "which pcipt withdrew" in event["text"]
        assert mapped(dom0, REGION) == [False]
        wait_answer(dom0, TOLD)
    since = now(dom0)
    with settings(dom0, RESTORING):  # the access that was refused makes the region a need
        await_event(dom0, OWNER, since, {"kind": "action", "action": "restore-reserved", "result": "done"})
        assert mapped(dom0, REGION) == [True]
        assert dma.reaches(WITNESS)
