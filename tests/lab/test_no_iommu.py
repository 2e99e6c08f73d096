"""A PV dom0 of a Xen that uses no IOMMU: `--hardware no-iommu`, or `--xen iommu=off`."""

from __future__ import annotations

import pytest

from .hardware import OTHER, PART
from .machine import Dom0
from .steps import answer, driver_of

NIC = PART["nic"].sbdf


@pytest.fixture
def bare(installed: Dom0) -> Dom0:
    """Give a machine whose Xen uses no IOMMU."""
    if OTHER[installed.extra.hardware].iommu and "iommu=off" not in installed.extra.xen:
        pytest.skip("this machine's Xen uses its IOMMU (--hardware no-iommu, --xen iommu=off)")
    assert not any(word.endswith("_directio") for word in installed.run("xl info virt_caps").stdout.split())
    return installed


def test_the_host_is_told_to_give_nothing_away(bare: Dom0) -> None:
    done = bare.run("pcipt host --json", check=False)
    told = done.json()
    assert (done.rc, told["verdict"], told["iommu"]["used"]) == (4, "refuse", False)
    assert {told["guests"][kind] for kind in ("hvm", "pvh")} == {"refuse"}
    assert told["findings"] == []
    print(bare.run("pcipt host", check=False).stdout)
    assert answer(bare, "Status")["health"] == "healthy"


def test_release_is_refused_with_the_reason_and_changes_nothing(bare: Dom0) -> None:
    bare.run("/etc/init.d/xen start || true; modprobe xen-pciback", timeout=180)
    done = bare.run(f"pcipt release {NIC}", check=False)
    print(done.stderr)
    assert done.rc == 1
    assert "IOMMU" in done.stderr
    assert driver_of(bare, NIC) == "e1000e"
    checked = bare.run(f"pcipt check {NIC} --json", check=False).json()
    assert checked["functions"][0]["verdict"] == "refuse"
