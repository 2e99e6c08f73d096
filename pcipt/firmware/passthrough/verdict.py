"""Whether a function can be passed through, and what it would drag along: a verdict with reasons.

Rules are pure and look at evidence only; where the evidence lacks something a rule says what is unknown and
judges nothing. The gravest reason decides. Functions that are checked together count as leaving together.
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
    """`OK` is also the verdict of a reason that is only good to know."""

    OK = "ok"
    WARN = "warn"
    REFUSE = "refuse"


GRAVEST_FIRST = (Verdict.REFUSE, Verdict.WARN, Verdict.OK)


@attrs.frozen
class Reason:
    """`code` is a stable word for programs; `cure` is the setting that would change it, or empty."""

    code: str
    verdict: Verdict
    text: str
    cure: str = ""


@attrs.frozen
class Unknown:
    """Something a rule needed and the evidence does not tell."""

    what: str


Said = Iterator[Reason | Unknown]


@attrs.frozen
class FixedRange:
    """Addresses where no BAR may be: IO-APICs, interrupt messages, MMCFG."""

    range: Range
    what: str


@attrs.frozen
class Evidence:
    """All that is known of a machine; None is unknown.

    `config_sizes` are the bytes of config space that were read; `carriers` carry the root file system;
    `consoles` a console of dom0; `xen` is what Xen disagrees about, by the code of the daemon's finding;
    `guests` is what guests may still reach of a function that they should not, or may not and should;
    `together` are the functions to leave together.
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
        """Say which functions are to leave dom0 together."""
        return attrs.evolve(self, together=frozenset(sbdfs))

    def facts_of(self, sbdf: Sbdf) -> LinuxFacts:
        return self.facts.get(sbdf, NO_FACTS)

    def knows_capabilities(self, sbdf: Sbdf) -> bool:
        return self.config_sizes.get(sbdf, 0) > 64

    def knows_extended(self, sbdf: Sbdf) -> bool:
        return self.config_sizes.get(sbdf, 0) > 256

    def above(self, function: Function) -> Iterator[Function]:
        """Give the bridges above a function, the nearest first."""
        at = function.parent
        while at is not None:
            bridge = self.machine.functions[at]
            yield bridge
            at = bridge.parent

    def remains(self, function: Function, sbdfs: Iterable[Sbdf]) -> list[Sbdf]:
        """Leave out the function itself and those that would leave with it."""
        return [sbdf for sbdf in sbdfs if sbdf != function.sbdf and sbdf not in self.together]


Rule = Callable[[Function, Evidence], Said]


@attrs.frozen
class Report:
    """The verdict on one function; `relaxed` tells that only xl's rdm_policy=relaxed will do."""

    sbdf: Sbdf
    path: str | None
    verdict: Verdict
    reasons: tuple[Reason, ...]
    unknown: tuple[str, ...]
    relaxed: bool = False


def judge(function: Function, evidence: Evidence, rules: Iterable[Rule]) -> Report:
    """Ask all rules about one function; graver reasons come first."""
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
    """List a few addresses and count the rest."""
    found = [str(sbdf) for sbdf in sbdfs]
    more = len(found) - shown
    return ", ".join(found[:shown]) + (f" and {more} more" if more > 0 else "")
