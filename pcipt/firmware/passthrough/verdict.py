"""Decide whether a function can be passed through to a guest: a verdict with its reasons.

Rules are pure functions of the evidence. If the evidence lacks a fact, a rule yields the fact as `Unknown`
and does not judge by it. The gravest reason decides the verdict for a kind of guest; the kind that fares best
decides the verdict, if no kind is given (`Evidence.guest`). Functions that are checked together
(`Evidence.together`) are assumed to leave dom0 together.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from pcipt import values as attrs
from pcipt.firmware.memory_map import MemoryEntry
from pcipt.firmware.passthrough.host import Host
from pcipt.firmware.passthrough.host_rules import NOTHING_KNOWN
from pcipt.firmware.passthrough.index import Index, index_machine
from pcipt.firmware.passthrough.reasons import (
    EVERY_GUEST,
    GRAVEST_FIRST,
    Guest,
    Reason,
    Unknown,
    Verdict,
    by_guest,
    with_step,
)
from pcipt.hints import TYPE_CHECKING
from pcipt.pci import Finding, Function, Machine, Range, Sbdf
from pcipt.pci.raw import LinuxFacts, Use
from pcipt.pci.space.windows import NO_ROOTS, RootWindows

if TYPE_CHECKING:
    from pcipt.firmware.coverage import IommuScope
    from pcipt.firmware.regions.regions import Regions
    from pcipt.pci.notation.xl_guest import XlGuest

__all__ = [
    "GRAVEST_FIRST", "NO_FACTS", "CutSegment", "Evidence", "FixedRange", "Guest", "Reason", "Report", "Rule",
    "Said", "Unknown", "Verdict", "judge", "names",
]  # fmt: skip

NO_FACTS = LinuxFacts()
RELAXED = ",rdm_policy=relaxed"  # stands behind an address in the line `pci` of a guest's file for xl
SHOWN_GUESTS = frozenset({Guest.PV, Guest.HVM})  # a PVH guest never takes a device: only the host says so


Said = Iterator[Reason | Unknown]


@attrs.frozen
class FixedRange:
    """Addresses at which no BAR may be: IO-APICs, interrupt messages, MMCFG.

    `what` is a word for a report.
    """

    range: Range
    what: str


@attrs.frozen
class CutSegment:
    """A VMD controller whose functions Xen lists without an owner, because Linux cut their segment.

    `text` is the daemon's finding about it. `panics` is True if this Xen panics when the controller leaves
    Linux.
    """

    text: str
    panics: bool


@attrs.frozen
class Evidence:
    """All facts about a machine that the rules use. None means unknown; an empty mapping has no facts.

    `config_sizes`: the number of bytes of config space that were read. `carriers`: functions that carry the
    root file system. `consoles`: functions that carry a console of dom0. `uses`: what dom0 uses each function
    for: disks, mounts, network interfaces. `unseen_uses`: those of them that nobody looked for. `xen`:
    functions about which Xen and the machine disagree, each with the code of the daemon's finding. `owners`:
    the owner of each function as a word. `guests`: for each function the findings about a guest that has
    access which it should not have, or lacks access which it should have. `cut_segments`: the VMD
    controllers whose functions Xen has without an owner. `unsized`: physical functions for whose virtual
    functions Xen has no BAR sizes. `together`: the functions that leave dom0 together. `host`: what the host
    can do. `guest`: the only kind of guest to judge for; None is any. `xl`: the guest's configuration file;
    None if no file is judged. `live`: this is the running machine, so Xen could be asked. `pinless`:
    functions that have no interrupt pin. `root_windows`: what host bridges pass on, by root bus; read only if
    a BAR has no address. `index`: computed from `machine` if it is not given.
    """

    machine: Machine
    config_sizes: Mapping[Sbdf, int]
    facts: Mapping[Sbdf, LinuxFacts] = attrs.field(factory=dict)
    carriers: frozenset[Sbdf] | None = None
    consoles: frozenset[Sbdf] | None = None
    uses: Mapping[Sbdf, tuple[Use, ...]] = attrs.field(factory=dict)
    unseen_uses: tuple[str, ...] = ("disks and mounts", "network interfaces")
    regions: "Regions | None" = None
    iommu: "IommuScope | None" = None
    memory: tuple[MemoryEntry, ...] | None = None
    fixed: tuple[FixedRange, ...] | None = None
    xen: Mapping[Sbdf, str] | None = None
    owners: Mapping[Sbdf, str] = attrs.field(factory=dict)
    guests: Mapping[Sbdf, tuple[Finding, ...]] = attrs.field(factory=dict)
    cut_segments: Mapping[Sbdf, CutSegment] = attrs.field(factory=dict)
    unsized: frozenset[Sbdf] = frozenset()
    together: frozenset[Sbdf] = frozenset()
    host: Host = NOTHING_KNOWN
    guest: Guest | None = None
    xl: "XlGuest | None" = None
    live: bool = False
    pinless: frozenset[Sbdf] = frozenset()
    root_windows: RootWindows = NO_ROOTS
    index: Index = attrs.Factory(lambda self: index_machine(self.machine), takes_self=True)

    def leaving(self, sbdfs: Iterable[Sbdf]) -> "Evidence":
        """Return a copy of the evidence with `together` set to these functions."""
        return attrs.evolve(self, together=frozenset(sbdfs))

    def facts_of(self, sbdf: Sbdf) -> LinuxFacts:
        """Return the facts that Linux has about the function; `NO_FACTS` if there are none.

        `NO_FACTS` has None in every field.
        """
        return self.facts.get(sbdf, NO_FACTS)

    def knows_capabilities(self, sbdf: Sbdf) -> bool:
        """Return True if more than 64 bytes (the header) of the function's config space were read."""
        return self.config_sizes.get(sbdf, 0) > 64

    def knows_extended(self, sbdf: Sbdf) -> bool:
        """Return True if more than 256 bytes of the function's config space were read.

        The extended config space begins at byte 256.
        """
        return self.config_sizes.get(sbdf, 0) > 256

    def relaxed(self, sbdf: Sbdf) -> bool | None:
        """Return True if the guest's file has rdm_policy=relaxed for the function; None without a file."""
        if self.xl is None:
            return None
        return any(each.relaxed for each in self.xl.devices if each.names(sbdf))

    def remains(self, function: Function, sbdfs: Iterable[Sbdf]) -> list[Sbdf]:
        """Return those of `sbdfs` that stay in dom0, in their order.

        `function` itself and the functions in `together` are left out. The owner is not looked at.
        """
        return [sbdf for sbdf in sbdfs if sbdf != function.sbdf and sbdf not in self.together]


Rule = Callable[[Function, Evidence], Said]


@attrs.frozen
class Report:
    """The verdict on one function.

    `path` is its PCI path as text; None if it is not known. `reasons` are those of all rules, REFUSE first,
    then WARN, then OK. `unknown` names the facts that rules lacked. `guests` has the verdict for each kind of
    guest that was asked about. `relaxed` is True if xl needs rdm_policy=relaxed.
    """

    sbdf: Sbdf
    path: str | None
    verdict: Verdict
    reasons: tuple[Reason, ...]
    unknown: tuple[str, ...]
    relaxed: bool = False
    guests: Mapping[Guest, Verdict] = attrs.field(factory=dict)

    @property
    def only(self) -> frozenset[Guest]:
        """The kinds of guest that are possible, if another kind is refused; empty if all or none are."""
        possible = {guest for guest in SHOWN_GUESTS if self.guests.get(guest) is not Verdict.REFUSE}
        asked = SHOWN_GUESTS.intersection(self.guests)
        return frozenset(possible & asked) if possible & asked != asked else frozenset()


def judge(function: Function, evidence: Evidence, rules: Iterable[Rule]) -> Report:
    """Return the report of all `rules` on one function.

    Its verdict for a kind of guest is that of the gravest reason that holds for that kind, or UNKNOWN
    (`Unknown.hides`). Its verdict is that of the kind that fares best, of those asked about. A reason that
    holds for some kinds only is left out if the verdict is less grave: the kinds' own verdicts tell it.
    Shape:  reasons: REFUSE first, then WARN, then OK, in the order of `rules` within each; unknown facts in
            the order of `rules`, without repetitions.
    """
    reasons: list[Reason] = []
    unknown: list[Unknown] = []
    for rule in rules:
        for said in rule(function, evidence):
            if isinstance(said, Unknown):
                unknown.append(said)
            else:
                reasons.append(with_step(said, function.sbdf))
    asked = frozenset({evidence.guest}) if evidence.guest is not None else EVERY_GUEST
    guests = {guest: verdict for guest, verdict in by_guest(reasons, unknown).items() if guest in asked}
    verdict = max(guests.values(), key=GRAVEST_FIRST.index)
    shown = asked & SHOWN_GUESTS or asked
    kept = [each for each in reasons if each.guests & shown and _counts(each, verdict, asked)]
    kept.sort(key=lambda reason: GRAVEST_FIRST.index(reason.verdict))
    held = evidence.regions.of(function.sbdf) if evidence.regions is not None else ()
    return Report(
        function.sbdf,
        str(function.path) if function.path is not None else None,
        verdict,
        tuple(kept),
        tuple(dict.fromkeys(each.what for each in unknown)),
        any(region.needs_relaxed for region in held),
        guests,
    )


def _counts(reason: Reason, verdict: Verdict, asked: frozenset[Guest]) -> bool:
    """Return True if a reason holds for all kinds asked about, or is not graver than the verdict."""
    return asked <= reason.guests or reason.verdict is not Verdict.REFUSE or verdict is Verdict.REFUSE


def names(sbdfs: Iterable[Sbdf], shown: int = 4) -> str:
    """Return up to `shown` addresses as text, joined by ", "; if more are given, "and N more" follows."""
    found = [str(sbdf) for sbdf in sbdfs]
    more = len(found) - shown
    return ", ".join(found[:shown]) + (f" and {more} more" if more > 0 else "")
