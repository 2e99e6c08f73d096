"""Find the pairs of functions that can only go together, each with the rule and the reason: edges.

Each rule is a generator over the whole machine. A rule that lacks a fact yields a `Doubt` in place of an
edge. An edge may lead to a bridge: the functions on both sides of the bridge then go together through it.

The rules of `KERNEL_RULES` are Linux's for IOMMU groups; the others are not known to Linux.
Source: linux drivers/iommu/iommu.c (pci_device_group, get_pci_alias_group, get_pci_function_alias_group),
        drivers/pci/search.c (pci_for_each_dma_alias), drivers/pci/pci.c (pci_acs_path_enabled); Xen
        drivers/passthrough/pci.c (bus2bridge, phantom_stride), XSA-467; PCI Express Base 6.0 §6.12, §6.6.2.
"""

import enum
from collections.abc import Callable, Iterator

from pcipt import values as attrs
from pcipt.firmware.passthrough.groups_acs import judge_acs
from pcipt.firmware.passthrough.groups_quirks import alias_devfns
from pcipt.firmware.passthrough.index import belongs_to_machine
from pcipt.firmware.passthrough.trouble_table import useless_resets
from pcipt.firmware.passthrough.verdict import Evidence, names
from pcipt.pci import BarKind, Function, Sbdf, sbdf_from_devfn

_INTEL, _RAID = 0x8086, 0x0104
_DOWNSTREAM, _TO_PCI, _FROM_PCI = 0x6, 0x7, 0x8


class Why(enum.Enum):
    """The rule of an edge, as the word that programs see."""

    REQUESTER = "requester-id"
    ALIAS = "dma-alias"
    PHANTOM = "phantom-function"
    VMD = "vmd"
    PORT = "port-without-acs"
    FUNCTIONS = "functions-without-acs"
    SWITCH = "switch-without-acs"
    LINUX = "iommu-group"
    REGION = "reserved-region"
    PAGE = "page"
    RESET = "reset"


KERNEL_RULES = frozenset({Why.REQUESTER, Why.ALIAS, Why.VMD, Why.PORT, Why.FUNCTIONS})


@attrs.frozen
class Edge:
    """Two functions that go together, the rule, and the reason as a sentence without its last point."""

    one: Sbdf
    other: Sbdf
    why: Why
    text: str


@attrs.frozen
class Doubt:
    """Two functions that go together or not, by a fact that the evidence does not contain.

    `sbdf` is the function that the missing fact is about; `what` is the fact in a few words.
    """

    one: Sbdf
    other: Sbdf
    sbdf: Sbdf
    what: str


Found = Iterator[Edge | Doubt]
EdgeRule = Callable[[Evidence], Found]


def requester_ids(evidence: Evidence) -> Found:
    """Yield an edge from each function to the nearest bridge above it that replaces requester ids.

    Such a bridge leads to conventional PCI, or, the reverse, from conventional PCI to PCI Express.
    """
    for function in evidence.machine.functions.values():
        for bridge in evidence.machine.above(function):
            if not evidence.knows_capabilities(bridge.sbdf):
                yield Doubt(function.sbdf, bridge.sbdf, bridge.sbdf, "requester ids behind bridges")
                break
            if _replaces_ids(bridge):
                reverse = bridge.express is not None and bridge.express.port_type == _FROM_PCI
                kind = "from conventional PCI" if reverse else "to conventional PCI"
                text = f"behind the bridge {bridge.sbdf} {kind} all have its requester id"
                yield Edge(
                    function.sbdf,
                    bridge.sbdf,
                    Why.REQUESTER,
                    f"{text}: the IOMMU cannot tell them apart (XSA-467)",
                )
                break


def aliases(evidence: Evidence) -> Found:
    """Yield an edge between a function and each other that has a requester id which the first uses too."""
    for function in evidence.machine.functions.values():
        for devfn in alias_devfns(function):
            other = sbdf_from_devfn(function.sbdf.segment, function.sbdf.bus, devfn)
            if other in evidence.machine.functions:
                text = f"{function.sbdf} sends requests with the requester id of {other}"
                yield Edge(function.sbdf, other, Why.ALIAS, text)


def phantoms(evidence: Evidence) -> Found:
    """Yield an edge between a function and each real function at the address of one of its phantom
    functions.
    """
    for function in evidence.machine.functions.values():
        stride = function.isolation.stride if function.isolation is not None else 0
        number = function.sbdf.function
        if not stride or number >= stride:
            continue
        for phantom in range(number + stride, 8, stride):
            other = function.sbdf._replace(function=phantom)
            if other in evidence.machine.functions:
                text = (
                    f"{function.sbdf} claims {other} for its phantom functions: both have that requester id"
                )
                yield Edge(function.sbdf, other, Why.PHANTOM, text)


def vmd(evidence: Evidence) -> Found:
    """Yield an edge from each function of a VMD controller's segment to the controller."""
    known: dict[int, Sbdf | None] = {}
    for function in evidence.machine.functions.values():
        segment = function.sbdf.segment
        if segment not in known:
            known[segment] = _controller_of(segment, evidence)
        controller = known[segment]
        if controller is not None:
            text = f"{function.sbdf} lies in the segment of the VMD controller {controller}"
            yield Edge(function.sbdf, controller, Why.VMD, f"{text}, whose requester id it has")


def _controller_of(segment: int, evidence: Evidence) -> Sbdf | None:
    """Return the VMD controller of a segment above ffff; None for other segments, and if none is found.

    The first of these is returned: the function above the segment in Linux's directories; a controller with a
    BAR around one of the segment's BARs; the only function that is bound to vmd. Controllers are functions
    that are bound to vmd, and Intel's RAID controllers.
    """
    everything = evidence.machine.functions.values()
    inside = [each for each in everything if each.sbdf.segment == segment and not each.sbdf.fits_xen]
    for each in inside:
        if each.controller in evidence.machine.functions:
            return each.controller
    spans = [bar.range for each in inside for bar in each.bars if bar.range is not None and bar.address]
    for each in everything if spans else ():
        raid = each.ids.vendor == _INTEL and (each.ids.class_code or 0) >> 8 == _RAID
        for bar in each.bars if each.sbdf.fits_xen and (raid or each.driver == "vmd") else ():
            around = bar.range if bar.kind is not BarKind.IO and bar.address else None
            if around and any(around.start <= span.start and span.last <= around.last for span in spans):
                return each.sbdf
    bound = [each.sbdf for each in everything if each.driver == "vmd"] if inside else []
    return bound[0] if len(bound) == 1 else None


def ports(evidence: Evidence) -> Found:
    """Yield an edge from a function to the bridge above it if a port on the way to the root bus does not
    separate the functions below that port.

    A function below a bridge that replaces requester ids gets no edge here: `requester_ids` yields its edge.
    """
    for function in evidence.machine.functions.values():
        if function.parent is None or any(
            _replaces_ids(bridge) for bridge in evidence.machine.above(function)
        ):
            continue
        open_ports: list[str] = []
        doubts: list[Sbdf] = []
        for bridge in evidence.machine.above(function):
            judged = judge_acs(bridge, evidence)
            if judged.separates is None:
                doubts.append(bridge.sbdf)
            elif not judged.separates:
                open_ports.append(f"{bridge.sbdf} ({judged.why})")
        if open_ports:
            way = ", ".join(open_ports)
            text = f"{function.sbdf} may reach other devices without the IOMMU, through {way}"
            yield Edge(function.sbdf, function.parent, Why.PORT, text)
        elif doubts:
            yield Doubt(function.sbdf, function.parent, doubts[0], "ACS")


def functions(evidence: Evidence) -> Found:
    """Yield edges between functions of one device that do not separate themselves from each other.

    The first of them has an edge to each other one. A device is one device number, with ARI too, as in Linux.
    """
    devices: dict[tuple[int, int, int], list[Function]] = {}
    for function in evidence.machine.functions.values():
        sbdf = function.sbdf
        devices.setdefault((sbdf.segment, sbdf.bus, sbdf.device), []).append(function)
    for members in devices.values():
        if len(members) < 2:
            continue
        judged = [(each, judge_acs(each, evidence)) for each in members]
        closed = [each.sbdf for each, judgement in judged if judgement.separates]
        maybe = [each.sbdf for each, _ in judged if each.sbdf not in closed]
        for each, judgement in judged:
            if judgement.separates is None and each.sbdf != maybe[0]:
                yield Doubt(maybe[0], each.sbdf, each.sbdf, "ACS")
        bare = [(each, judgement.why) for each, judgement in judged if judgement.separates is False]
        for each, why in bare[1:]:
            first = bare[0][0]
            text = f"{first.sbdf} and {each.sbdf} are functions of one device and can reach each other: {why}"
            yield Edge(first.sbdf, each.sbdf, Why.FUNCTIONS, text)


def switches(evidence: Evidence) -> Found:
    """Yield edges between the downstream ports of one switch, and to what is below them, if one of them does
    not separate them.

    Such a port passes requests from below it to the other ports, whether or not these have ACS, and these
    pass them down. Linux (6.18) has no such rule: a port without ACS is only in the group of what is below
    it.
    """
    below: dict[Sbdf, list[Function]] = {}
    for function in evidence.machine.functions.values():
        port = function.express
        if function.parent is not None and port is not None and port.port_type == _DOWNSTREAM:
            below.setdefault(function.parent, []).append(function)
    for siblings in below.values():
        judged = [(each, judge_acs(each, evidence)) for each in siblings] if len(siblings) > 1 else []
        bare = next(((each.sbdf, by.why) for each, by in judged if by.separates is False), None)
        unread = next((each.sbdf for each, by in judged if by.separates is None), None)
        for each, _ in judged:
            if bare is not None and each.sbdf != bare[0]:
                text = f"{bare[0]} passes requests to {each.sbdf}, a port of the same switch: {bare[1]}"
                yield Edge(bare[0], each.sbdf, Why.SWITCH, text)
                for reached in _below(each, evidence):
                    text = f"{each.sbdf} passes what comes from {bare[0]} down to {reached}"
                    yield Edge(each.sbdf, reached, Why.SWITCH, text)
            elif bare is None and unread is not None and each.sbdf != unread:
                for reached in (each.sbdf, *_below(each, evidence)):
                    yield Doubt(unread, reached, unread, "ACS")


def _below(port: Function, evidence: Evidence) -> Iterator[Sbdf]:
    """Yield all functions below a port; parents form no loop."""
    waiting = [port.sbdf]
    while waiting:
        for function in evidence.machine.children(waiting.pop()):
            yield function.sbdf
            waiting.append(function.sbdf)


def regions(evidence: Evidence) -> Found:
    """Yield edges between the functions that need the same reserved region, or regions with a common page."""
    if evidence.regions is None:
        return
    present = evidence.machine.functions
    for region in evidence.regions.regions:
        sharers = [sbdf for sbdf in evidence.regions.sharers(region) if sbdf in present]
        for other in sharers[1:]:
            text = f"{sharers[0]} and {other} need the same {region.kind.title} region {region}"
            yield Edge(sharers[0], other, Why.REGION, text)


def pages(evidence: Evidence) -> Found:
    """Yield an edge between each two functions whose BARs lie in the same page, if both can be given away."""
    for sbdf, others in evidence.index.pages.items():
        for other, frames in others.items():
            if sbdf < other and _assignable(evidence, sbdf) and _assignable(evidence, other):
                text = f"BARs of {sbdf} and of {other} lie in the same page, {frames}"
                yield Edge(
                    sbdf, other, Why.PAGE, (f"{text}: a guest with one of them can access both (XSA-461)")
                )


def resets(evidence: Evidence) -> Found:
    """Yield edges from a function that cannot be reset alone to all functions that a reset of its bus hits.

    A bus reset reaches everything below the bridge above the function. On a root bus there is none. The first
    function below a bridge that cannot be reset alone has the edges of all such functions.
    """
    for bridge, below in evidence.index.below.items():
        found = [evidence.machine.functions[sbdf] for sbdf in below if _assignable(evidence, sbdf)]
        if len(found) < 2:
            continue
        direct = [each for each in found if each.parent == bridge and each.physfn is None]
        known = [(each, own_resets(each, evidence)) for each in direct]
        unread = [each.sbdf for each, methods in known if methods is None]
        for other in found if unread else ():
            if other.sbdf != unread[0]:
                yield Doubt(unread[0], other.sbdf, unread[0], "reset support")
        helpless = [each.sbdf for each, methods in known if methods == ()]
        for other in found if helpless else ():
            if other.sbdf != helpless[0] and other.physfn not in helpless:
                text = f"{names(helpless)} can be reset only with everything below {bridge}"
                yield Edge(helpless[0], other.sbdf, Why.RESET, f"{text}, {other.sbdf} too")


def own_resets(function: Function, evidence: Evidence) -> tuple[str, ...] | None:
    """Return the ways to reset this function alone, in Linux's words: by Linux if it tells them, else by the
    registers. None if neither is known.
    """
    told = evidence.facts_of(function.sbdf).reset_methods
    if told is not None:
        return tuple(method for method in told if method not in ("bus", "cxl_bus"))
    told = function.isolation.resets if function.isolation is not None else None
    useless = useless_resets(function) if told else ()
    return tuple(method for method in told if method not in useless) if told is not None else None


def linux(evidence: Evidence) -> Found:
    """Yield edges between the functions that Linux has in one IOMMU group. Under Xen Linux has no groups."""
    first: dict[int, Sbdf] = {}
    for sbdf in evidence.machine.functions:
        group = evidence.facts_of(sbdf).iommu_group
        if group is not None and first.setdefault(group, sbdf) != sbdf:
            yield Edge(
                first[group], sbdf, Why.LINUX, f"Linux has {first[group]} and {sbdf} in IOMMU group {group}"
            )


def _replaces_ids(bridge: Function) -> bool:
    """Return True if requests from below the bridge carry its requester id, or another one of its bus.

    True is returned too if the capabilities of the bridge are not known.
    """
    return bridge.express is None or bridge.express.port_type in (_TO_PCI, _FROM_PCI)


def _assignable(evidence: Evidence, sbdf: Sbdf) -> bool:
    """Return True if a guest can be given the function."""
    return not belongs_to_machine(evidence.machine.functions[sbdf])


RULES: tuple[EdgeRule, ...] = (
    requester_ids, aliases, phantoms, vmd, ports, functions, switches, regions, pages, resets, linux,
)  # fmt: skip


def find_edges(evidence: Evidence) -> tuple[tuple[Edge, ...], tuple[Doubt, ...]]:
    """Return all edges of a machine and all doubts, each in the order of the rules.

    An edge by one of Linux's own rules is left out if Linux has its two functions in different IOMMU groups:
    Linux knows of devices that separate without ACS. An edge `LINUX` is left out if other edges connect the
    two functions anyway.
    """
    edges: list[Edge] = []
    doubts: dict[Doubt, None] = {}
    joined = Partition()
    for rule in RULES:
        for each in rule(evidence):
            if isinstance(each, Doubt):
                doubts[each] = None
                continue
            groups = {evidence.facts_of(sbdf).iommu_group for sbdf in (each.one, each.other)}
            if each.why in KERNEL_RULES and len(groups) > 1 and None not in groups:
                continue
            if each.why is Why.LINUX and joined.same(each.one, each.other):
                continue
            joined.join(each.one, each.other)
            edges.append(each)
    return tuple(edges), tuple(doubts)


class Partition:
    """Sets of addresses that are joined step by step."""

    def __init__(self) -> None:
        self._above: dict[Sbdf, Sbdf] = {}

    def top(self, sbdf: Sbdf) -> Sbdf:
        """Return the address that stands for the set of `sbdf`: the lowest one in it."""
        top = sbdf
        while (above := self._above.get(top, top)) != top:
            top = above
        if top != sbdf:
            self._above[sbdf] = top  # so that the next question needs one step
        return top

    def same(self, one: Sbdf, other: Sbdf) -> bool:
        """Return True if both are in one set."""
        return self.top(one) == self.top(other)

    def join(self, one: Sbdf, other: Sbdf) -> None:
        """Make the sets of both one set."""
        low, high = sorted((self.top(one), self.top(other)))
        if low != high:
            self._above[high] = low
