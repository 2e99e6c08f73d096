"""Decide whether a function can be passed through to a guest: a verdict with its reasons.

Rules are pure functions of the evidence. If the evidence lacks a fact, a rule names the unknown fact and
judges nothing. The gravest reason decides. Functions that are checked together are assumed to leave dom0
together.
"""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping

import attrs

from pcipt.firmware.coverage import IommuScope
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.passthrough.index import Index, index_machine
from pcipt.firmware.regions.regions import Regions
from pcipt.pci import Finding, Function, Machine, Range, Sbdf
from pcipt.pci.linux_facts import LinuxFacts

NO_FACTS = LinuxFacts()


class Verdict(enum.Enum):
    """How grave a reason is, or the whole report. A reason that is only information is `OK` too."""

    OK = "ok"
    WARN = "warn"
    REFUSE = "refuse"


GRAVEST_FIRST = (Verdict.REFUSE, Verdict.WARN, Verdict.OK)


@attrs.frozen
class Reason:
    """One reason for the verdict.

    `code` is a stable word for programs. `cure` is text that tells how to change it; empty if nothing helps.
    """

    code: str
    verdict: Verdict
    text: str
    cure: str = ""


@attrs.frozen
class Unknown:
    """A fact that a rule needs and the evidence does not contain."""

    what: str


Said = Iterator[Reason | Unknown]


@attrs.frozen
class FixedRange:
    """Addresses at which no BAR may be: IO-APICs, interrupt messages, MMCFG.

    `what` is a word for a report.
    """

    range: Range
    what: str


@attrs.frozen
class Evidence:
    """All facts about a machine that the rules use. None means unknown.

    `config_sizes`: bytes of config space that were read. `carriers`: functions that carry the root file
    system. `consoles`: functions that carry a console of dom0. `xen`: functions about which Xen and the
    machine disagree, with the code of the daemon's finding. `owners`: the owner of each function as a word.
    `guests`: findings about functions to which a guest has access that it should not have, or lacks access
    that it should have. `together`: the functions that leave dom0 together.
    """

    machine: Machine
    config_sizes: Mapping[Sbdf, int]
    facts: Mapping[Sbdf, LinuxFacts] = attrs.field(factory=dict)
    carriers: frozenset[Sbdf] | None = None
    consoles: frozenset[Sbdf] | None = None
    regions: Regions | None = None
    iommu: IommuScope | None = None
    memory: tuple[MemoryEntry, ...] | None = None
    fixed: tuple[FixedRange, ...] | None = None
    xen: Mapping[Sbdf, str] | None = None
    owners: Mapping[Sbdf, str] = attrs.field(factory=dict)
    guests: Mapping[Sbdf, tuple[Finding, ...]] = attrs.field(factory=dict)
    together: frozenset[Sbdf] = frozenset()
    index: Index = attrs.Factory(lambda self: index_machine(self.machine), takes_self=True)

    def leaving(self, sbdfs: Iterable[Sbdf]) -> "Evidence":
        """Return the evidence with these functions as those that leave dom0 together."""
        return attrs.evolve(self, together=frozenset(sbdfs))

    def facts_of(self, sbdf: Sbdf) -> LinuxFacts:
        """Return what Linux tells of the function; without any fact if nothing is known."""
        return self.facts.get(sbdf, NO_FACTS)

    def knows_capabilities(self, sbdf: Sbdf) -> bool:
        """Return True if more than the header of the function's config space was read (64 bytes)."""
        return self.config_sizes.get(sbdf, 0) > 64

    def knows_extended(self, sbdf: Sbdf) -> bool:
        """Return True if extended config space of the function was read (above 256 bytes)."""
        return self.config_sizes.get(sbdf, 0) > 256

    def above(self, function: Function) -> Iterator[Function]:
        """Yield the bridges above the function, the nearest one first."""
        at = function.parent
        while at is not None:
            bridge = self.machine.functions[at]
            yield bridge
            at = bridge.parent

    def remains(self, function: Function, sbdfs: Iterable[Sbdf]) -> list[Sbdf]:
        """Return those of `sbdfs` that stay in dom0.

        The function itself and those in `together` are left out.
        """
        return [sbdf for sbdf in sbdfs if sbdf != function.sbdf and sbdf not in self.together]


Rule = Callable[[Function, Evidence], Said]


@attrs.frozen
class Report:
    """The verdict on one function.

    `unknown` are the facts that rules lacked. `relaxed` is True if xl needs rdm_policy=relaxed.
    """

    sbdf: Sbdf
    path: str | None
    verdict: Verdict
    reasons: tuple[Reason, ...]
    unknown: tuple[str, ...]
    relaxed: bool = False


def judge(function: Function, evidence: Evidence, rules: Iterable[Rule]) -> Report:
    """Return the report of all rules on one function. The gravest reasons come first."""
    reasons: list[Reason] = []
    unknown: list[str] = []
    for rule in rules:
        for said in rule(function, evidence):
            if isinstance(said, Unknown):
                unknown.append(said.what)
            else:
                reasons.append(said)
    reasons.sort(key=lambda reason: GRAVEST_FIRST.index(reason.verdict))
    held = evidence.regions.of(function.sbdf) if evidence.regions is not None else ()
    return Report(
        function.sbdf,
        str(function.path) if function.path is not None else None,
        reasons[0].verdict if reasons else Verdict.OK,
        tuple(reasons),
        tuple(dict.fromkeys(unknown)),
        any(region.needs_relaxed for region in held),
    )


def names(sbdfs: Iterable[Sbdf], shown: int = 4) -> str:
    """Return up to `shown` addresses as text, followed by the number of those left out."""
    found = [str(sbdf) for sbdf in sbdfs]
    more = len(found) - shown
    return ", ".join(found[:shown]) + (f" and {more} more" if more > 0 else "")
