"""Linux without Xen (`--linux intel_iommu=on`): its IOMMU groups are the oracle of `pcipt groups`."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from tests.cli.machine.test_kernel_groups import kernel_groups, unlike_the_kernel

from .hardware import PARTS
from .machine import Dom0
from .payload import CHECKOUT_IN_DOM0

PCIPT = f"env PYTHONPATH={CHECKOUT_IN_DOM0} python3 -c 'from pcipt.cli.main import main; main()'"


@pytest.fixture
def linux(dom0: Dom0) -> Dom0:
    """Give a machine that runs Linux without Xen."""
    if not dom0.extra.linux:
        pytest.skip("this machine runs Xen (--linux intel_iommu=on)")
    return dom0


def test_the_sets_are_the_kernels_groups(linux: Dom0, tmp_path: Path) -> None:
    linux.run(f"{PCIPT} record /root/recorded && tar -C /root -czf /root/recorded.tar.gz recorded")
    archive = tmp_path / "recorded.tar.gz"
    archive.write_bytes(linux.fetch("/root/recorded.tar.gz"))
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    tree = str(tmp_path / "recorded")
    assert {part.sbdf for part in PARTS} <= {str(sbdf) for sbdf in kernel_groups(tree)}
    assert unlike_the_kernel(tree) == set()
