"""A state of a machine for `pcipt diff`, read from sysfs or from a recording."""

import argparse

from pcipt.cli.machine.evidence import gather
from pcipt.cli.machine.source import Source
from pcipt.firmware.machine_changes import Seen
from pcipt.firmware.passthrough.groups import groups_of, sets_of
from pcipt.firmware.passthrough.verdict import Evidence
from pcipt.host.files import Depth
from pcipt.host.policy.places import read_identities
from pcipt.pci import Function, Sbdf
from pcipt.pci.identity import Identity


def read_state(root: str) -> dict[Sbdf, Seen]:
    """Return every function of the machine below `root` with what is compared.

    Raises: InputError if the functions cannot be read.
    """
    source = Source(argparse.Namespace(root=root, dump=None))
    evidence = gather(source, root, None)
    identities = read_identities(root, evidence.machine, source.read(Depth.FULL))
    groups = _groups(evidence)
    return {
        sbdf: Seen(
            identities.get(sbdf, Identity()),
            _bars(function),
            groups.get(sbdf) if evidence.knows_capabilities(sbdf) else None,
            _regions(evidence, sbdf),
        )
        for sbdf, function in evidence.machine.functions.items()
    }


def _groups(evidence: Evidence) -> dict[Sbdf, frozenset[Sbdf]]:
    """Return the group of each function: the functions that a guest gets only together with it, and itself.

    A function that cannot be given to a guest has no group.
    """
    found: dict[Sbdf, frozenset[Sbdf]] = {}
    for each in sets_of(evidence, groups_of(evidence)):
        found.update(dict.fromkeys(each.assignable, frozenset(each.assignable)))
    return found


def _bars(function: Function) -> dict[int, int] | None:
    """Return the sizes of the BARs that have one; None if the registers were not read."""
    if function.answers is not True:
        return None
    return {bar.index: bar.size for bar in function.bars if bar.size}


def _regions(evidence: Evidence, sbdf: Sbdf) -> frozenset[tuple[int, int]] | None:
    """Return the reserved regions of a function; None if the tables could not be read."""
    if evidence.regions is None:
        return None
    return frozenset((int(region.base), int(region.limit)) for region in evidence.regions.of(sbdf))
