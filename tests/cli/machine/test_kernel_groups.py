"""The kernel as oracle: where a recording has IOMMU groups, the sets by Linux's own rules equal them."""

import argparse
from itertools import combinations
from pathlib import Path

import attrs
import pytest

from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.source import Source
from pcipt.firmware.passthrough.groups import groups_of, sets_of
from pcipt.firmware.passthrough.groups_edges import KERNEL_RULES
from tests.trees import DATA, REPO

TREES = sorted(
    str(place.parent.parent.parent)
    for folder in (REPO / "fixtures/sysfs", DATA / "cases", DATA / "sysfs")
    for place in folder.glob("**/sys/kernel/iommu_groups")
    if any(place.iterdir())
)

#  machine: two functions about which the kernel and the rules differ -> why
EXPLAINED = {
    ("11-gpu-pf-vf-bars-unassigned", "0000:01:00.0", "0000:01:00.1"): (
        "rebuilt by hand: function 0 has ACS without a control to switch on, which Linux takes for separate"
    ),
    ("21-typed-addresses", "0000:01:00.0", "0000:01:00.1"): "the same card in the same recording",
}


def evidence_of(root):
    return gather(Source(argparse.Namespace(root=str(root), dump=None)), str(root), None)


def kernel_groups(tree):
    """Return the IOMMU group of each function that has one, by the recording's Linux."""
    facts = evidence_of(tree).facts
    return {sbdf: each.iommu_group for sbdf, each in facts.items() if each.iommu_group is not None}


def unlike_the_kernel(tree):
    """Return the pairs of functions that only one of Linux and our sets puts together."""
    evidence, groups = evidence_of(tree), kernel_groups(tree)
    bare = {sbdf: attrs.evolve(facts, iommu_group=None) for sbdf, facts in evidence.facts.items()}
    evidence = attrs.evolve(evidence, facts=bare)
    ours = {
        sbdf: number
        for number, each in enumerate(sets_of(evidence, groups_of(evidence), KERNEL_RULES))
        for sbdf in each.members
    }
    return {
        (str(one), str(other))
        for one, other in combinations(sorted(groups), 2)
        if (groups[one] == groups[other]) != (ours[one] == ours[other])
    }


MISSING = pytest.mark.skip(reason="there are no recordings with IOMMU groups at ../shared/data")
CASES = [pytest.param(tree, id=Path(tree).parent.name) for tree in TREES]


@pytest.mark.parametrize("tree", CASES or [pytest.param(None, marks=MISSING)])
def test_the_sets_are_the_kernels_groups(tree):
    name = Path(tree).parent.name
    assert len(kernel_groups(tree)) > 0
    differ = {(name, *pair) for pair in unlike_the_kernel(tree)}
    assert differ == {key for key in EXPLAINED if key[0] == name}


def test_there_are_machines_to_compare():
    if not DATA.exists():
        pytest.skip("the recordings of other projects are not here")
    assert len(TREES) > 3
