"""Decide whether a bus that no bridge leads to is a root bus. Without Linux's word that cannot be known.

If the segment has a bridge with impossible bus numbers, functions on such a bus may be behind that bridge.
They are on a root bus only if one of them is of a kind that occurs nowhere else.

Source: PCI Express Base 6.0 §1.3.2.3, §7.5.3.2 (root ports and root complex endpoints are on root buses).
"""

from collections.abc import Iterable, Mapping

from pcipt.pci import structures
from pcipt.pci.address import Sbdf
from pcipt.pci.bridge import Bridge
from pcipt.pci.buses.numbers import is_impossible
from pcipt.pci.capabilities import find_capability, walk_capabilities
from pcipt.pci.config import ConfigSpace
from pcipt.pci.finding import Finding
from pcipt.pci.raw import RawFunction

HOST_BRIDGE = b"\x00\x06"  # subclass and class
ROOT_ONLY = frozenset({0x4, 0x9, 0xA})  # root port, root complex endpoint, root complex event collector


def unclaimed(
    raws: Mapping[Sbdf, RawFunction],
    parents: Mapping[Sbdf, Sbdf | None],
    bridges: Mapping[Sbdf, Bridge],
) -> dict[Sbdf, Finding]:
    """Return the functions that may be behind a bridge with impossible bus numbers, each with a finding.

    Such a function has the parent None, Linux names neither a bridge nor a root bus for it, and a bridge with
    impossible numbers is on a lower bus of its segment. It is left out if a function on its bus shows that
    the bus is a root bus. `parents` has the parent of each function of `raws`.
    """
    impossible: dict[int, list[Sbdf]] = {}
    for sbdf, bridge in bridges.items():
        if is_impossible(sbdf, bridge):
            impossible.setdefault(sbdf.segment, []).append(sbdf)
    if not impossible:
        return {}
    waiting: dict[tuple[int, int], list[Sbdf]] = {}
    for sbdf, parent in parents.items():
        raw = raws[sbdf]
        if parent is None and raw.parent is None and raw.root_bus is None:
            waiting.setdefault((sbdf.segment, sbdf.bus), []).append(sbdf)
    found: dict[Sbdf, Finding] = {}
    for (segment, bus), functions in waiting.items():
        above = next((each for each in sorted(impossible.get(segment, ())) if each.bus < bus), None)
        if above is not None and not _is_root_bus(raws[sbdf] for sbdf in functions):
            why = (
                f"no bridge leads to bus {bus:02x}, and {above} has impossible bus numbers: the function "
                "may be behind that bridge, so its PCI path is not known"
            )
            found |= dict.fromkeys(functions, Finding("no-path", why))
    return found


def _is_root_bus(raws: Iterable[RawFunction]) -> bool:
    """Return True if one of the functions is of a kind that is only on root buses."""
    return any(_only_on_root_bus(ConfigSpace(raw.config or b"")) for raw in raws)


def _only_on_root_bus(config: ConfigSpace) -> bool:
    """Return True for a host bridge, a root port and a root complex endpoint or event collector."""
    if not config.answers:
        return False
    if config.data[0x0A:0x0C] == HOST_BRIDGE:
        return True
    capabilities, _ = walk_capabilities(config)
    found = find_capability(capabilities, structures.EXPRESS)
    express = structures.decode_express(config, found.offset) if found is not None else None
    return express is not None and express.port_type in ROOT_ONLY
