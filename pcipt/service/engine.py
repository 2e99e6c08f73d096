"""The engine: the one place where the rooms meet.

It reads the machine, asks Xen, plans, has every action guarded and performed, and keeps what is told of it.
It opens nothing itself: host, hypervisor, keeper and clock are given, so the same engine runs live, on a
recorded machine and in every test. On a machine whose three views agree it changes nothing.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping

import attrs

from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.firmware.acpi import parse_table
from pcipt.firmware.coverage import BootSnapshot, IommuScope, snapshot_from_machine
from pcipt.firmware.dmar import SIGNATURES, parse_dmar
from pcipt.firmware.ivrs import SIGNATURE as IVRS
from pcipt.firmware.ivrs import parse_ivrs
from pcipt.pci import Finding, Machine, RawFunction, Sbdf, decode_machine
from pcipt.remap.actions import Action, Outcome, Result
from pcipt.remap.guard import Facts, quirks_of_version
from pcipt.remap.plan import plan_announcements
from pcipt.remap.view import XenView, disagreements, ghosts
from pcipt.service.performer import Performer
from pcipt.service.ports import Host, Keeper
from pcipt.service.question import ask_about, ghost_candidates
from pcipt.service.settings import Settings
from pcipt.xen.interface import Dom0Kind, Hypervisor

HISTORY = 200


@attrs.frozen
class Record:
    """What came of an action, and when (UTC, RFC 3339)."""

    when: str
    outcome: Outcome


class Engine:
    def __init__(
        self, host: Host, xen: Hypervisor, keeper: Keeper, settings: Settings, clock: Callable[[], str]
    ) -> None:
        self._host = host
        self._xen = xen
        self._clock = clock
        self._keeper = keeper
        self._raws: dict[Sbdf, RawFunction] = {}
        self._departed: set[Sbdf] = set()
        self._refusals: dict[Sbdf, str] = {}
        self._xen_trouble: Finding | None = None
        self._disk_trouble: dict[str, Finding] = {}
        self.service_findings: list[Finding] = []
        self.interrupted: Callable[[], bool] = lambda: False
        self.settings = settings
        self.machine = Machine({})
        self.view = XenView()
        self.records: deque[Record] = deque(maxlen=HISTORY)
        self.since = clock()
        ledger, snapshot, keeper_findings = keeper.load(host.boot_id)
        self.service_findings += keeper_findings
        self._performer = Performer(host, xen, keeper, ledger)
        self._read_everything()
        self._unsaved: BootSnapshot | None = None
        if snapshot is None:
            self._unsaved = snapshot = snapshot_from_machine(host.boot_id, self.machine)
            self._save_snapshot()
        self._iommu = _iommu_scope(IommuScope(snapshot), host.iommu_tables())

    def reconcile(self, *, dry_run: bool = False) -> list[Outcome]:
        """Compare everything and repair what may be repaired; nothing remembered is trusted."""
        self._save_snapshot()
        self._read_everything()
        candidates = {
            *self.machine.functions,
            *ghost_candidates(self.machine),
            *self._departed,
            *self.view.known,
        }
        if not self._ask(candidates, everything=True):
            return []
        self._save("ledger", lambda: self._performer.settle(self.view.known))
        return self._act(None, dry_run=dry_run)

    def follow(self, changed: Collection[Sbdf]) -> list[Outcome]:
        """Do the same for these functions only: they came, went or changed hands."""
        self.reread(changed)
        if not self._ask(changed, everything=False):
            return []
        return self._act(frozenset(changed), dry_run=False)

    def reread(self, changed: Collection[Sbdf]) -> None:
        """Read these functions again: registers were written, which changes nothing in Xen's list."""
        for sbdf in changed:
            raw = self._host.read_function(sbdf)
            if raw is not None:
                self._raws[sbdf] = raw
                self._departed.discard(sbdf)
            elif self._raws.pop(sbdf, None) is not None:
                self._departed.add(sbdf)
        self.machine = decode_machine(self._raws.values())

    def _save_snapshot(self) -> None:
        snapshot = self._unsaved
        if snapshot is not None and self._save("boot-snapshot", lambda: self._keeper.save_snapshot(snapshot)):
            self._unsaved = None

    def _save(self, name: str, save: Callable[[], None]) -> bool:
        """Save a document; a disk that does not take it is a finding until the next try."""
        self._disk_trouble.pop(name, None)
        try:
            save()
        except OSError as error:
            why = f"the {name} cannot be saved ({error.strerror or error}): free the disk, then pcipt resync"
            self._disk_trouble[name] = Finding(f"{name}-unsaved", why)
            return False
        return True

    def _read_everything(self) -> None:
        before = self._raws.keys()
        self._raws = {raw.sbdf: raw for raw in self._host.read_machine()}
        self._departed = (self._departed | set(before)) - self._raws.keys()
        self.machine = decode_machine(self._raws.values())

    def _ask(self, functions: Iterable[Sbdf], *, everything: bool) -> bool:
        """Refresh Xen's view; False where Xen cannot be asked: no action is taken on a partial view."""
        try:
            answer = ask_about(self._xen, functions, None if everything else self.view)
        except (UnsupportedError, HypervisorError) as error:
            text = f"{error}; hardware and Linux are watched, nothing can be compared with Xen"
            self._xen_trouble = Finding("xen-not-asked", text)
            return False
        self._xen_trouble = None
        asked = frozenset(functions)
        self.view = answer if everything else _merged(self.view, answer, asked)
        self._iommu = attrs.evolve(self._iommu, absent=bool(self.view.known) and not self.view.custody_told)
        self._departed = {sbdf for sbdf in self._departed if sbdf in self.view.known}
        self._refusals = {sbdf: why for sbdf, why in self._refusals.items() if sbdf not in asked}
        return True

    def _act(self, only: frozenset[Sbdf] | None, *, dry_run: bool) -> list[Outcome]:
        plan = plan_announcements(self.machine, self.view, departed=self._departed, only=only)
        outcomes = []
        for action in plan:
            if self.interrupted():
                break  # what is left undone is planned again at the next start
            outcomes.append(self._perform(action, dry_run=dry_run))
        return outcomes

    def _perform(self, action: Action, *, dry_run: bool) -> Outcome:
        allowed = not dry_run and self.settings.performs(action.word)
        try:
            outcome = self._performer.perform(action, lambda: self._facts(action), allowed=allowed)
        except OSError as error:
            outcome = Outcome(action, Result.FAILED, f"the ledger cannot be written: {error}")
            self._ask([action.sbdf], everything=False)  # it may have failed after the hypercall
        if outcome.result is Result.DONE:
            self._ask([action.sbdf], everything=False)
        elif outcome.result is not Result.PLANNED:
            self._refusals[action.sbdf] = outcome.detail
        if not dry_run:
            self.records.append(Record(self._clock(), outcome))
        return outcome

    def _facts(self, action: Action) -> Facts:
        """Read again what the guards decide from: the function, and who has it now."""
        raw = self._host.read_function(action.sbdf)
        if raw != self._raws.get(action.sbdf):
            self._raws.pop(action.sbdf, None)
            if raw is not None:
                self._raws[action.sbdf] = raw
            self.machine = decode_machine(self._raws.values())
        self._ask([action.sbdf], everything=False)
        identity = self._xen.identity
        return Facts(
            machine=self.machine,
            xen=self.view,
            pvh=identity.dom0 is Dom0Kind.PVH,
            quirks=quirks_of_version(identity.major, identity.minor),
            iommu=self._iommu,
        )

    @property
    def raws(self) -> Mapping[Sbdf, RawFunction]:
        """What was read of each function last."""
        return self._raws

    @property
    def added(self) -> list[Sbdf]:
        """The functions that Xen knows because pcipt told it, in this boot."""
        return self._performer.ledger.added(self.view.known)

    @property
    def ghosts(self) -> list[Sbdf]:
        return ghosts(self.machine, self.view)

    @property
    def findings(self) -> list[tuple[Sbdf | None, Finding]]:
        """Everything that is wrong now: in the service, between the views, in single functions."""
        found: list[tuple[Sbdf | None, Finding]] = [(None, finding) for finding in self.service_findings]
        found += [(None, finding) for finding in self._disk_trouble.values()]
        if self._xen_trouble is not None:
            found.append((None, self._xen_trouble))
        for sbdf, finding in disagreements(self.machine, self.view) if self._xen_trouble is None else []:
            why = self._refusals.get(sbdf)
            found.append(
                (sbdf, attrs.evolve(finding, text=f"{finding.text}; not mended: {why}") if why else finding)
            )
        return found + [(sbdf, finding) for sbdf, finding in self.machine.findings if not finding.is_note]


def _merged(view: XenView, answer: XenView, asked: frozenset[Sbdf]) -> XenView:
    """Replace in `view` what was asked anew."""
    elsewhere = {sbdf: owner for sbdf, owner in view.elsewhere.items() if sbdf not in asked}
    return XenView(
        known=view.known - asked | answer.known,
        orphans=view.orphans - asked | answer.orphans,
        elsewhere={**elsewhere, **answer.elsewhere},
        custody_told=view.custody_told if not answer.known else answer.custody_told,
    )


def _iommu_scope(scope: IommuScope, tables: Iterable[bytes]) -> IommuScope:
    for data in tables:
        table = parse_table(data)
        if table is None:
            continue
        if table.signature in SIGNATURES:
            scope = attrs.evolve(scope, dmar=parse_dmar(table))
        elif table.signature == IVRS:
            scope = attrs.evolve(scope, ivrs=parse_ivrs(table))
    return scope
