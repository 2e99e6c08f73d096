"""The findings that hold now: of the service, of disagreements between the three views, of single functions.

Findings are kept by function: replacing those of some functions costs the same on a machine of any size.
"""

from collections.abc import Iterable

from pcipt.engine.late import finding_of_late
from pcipt.engine.open_actions import OpenActions, finding_of_action
from pcipt.engine.views.faults import faults_of, faults_of_service
from pcipt.engine.views.policy.ports import absent_ports, findings_of_port
from pcipt.engine.views.protection import root_windows
from pcipt.engine.views.regions import lost_regions
from pcipt.engine.views.shared_entries import finding_of_entry
from pcipt.engine.views.views import Views
from pcipt.engine.views.vpci_picture import hazards_of, ignored_of, lost_of, sizes_in_vpci
from pcipt.pci import Finding, Sbdf
from pcipt.pci.space.shortage import helpful_findings, lacks_addresses
from pcipt.pci.space.windows import NO_ROOTS, RootWindows
from pcipt.remap.actions import RewriteBar
from pcipt.remap.holes import finding_of_hole
from pcipt.remap.ignored import finding_of
from pcipt.remap.kinds.virtual import unsized_finding
from pcipt.remap.view import disagreements
from pcipt.remap.vpci.shape import finding_of_altered
from pcipt.remap.vpci.sizes import oversized
from pcipt.remap.vpci.trapped import finding_of_reset, names_lost_bar

Told = tuple[Sbdf | None, Finding]  # None: the service itself, or the machine as a whole


class Findings:
    """All findings, by the address of their function; None is the service or the machine as a whole.

    `unlisted` are the functions of the machine that Xen did not list when their findings were last replaced.
    """

    def __init__(self) -> None:
        self._held: dict[Sbdf | None, tuple[Finding, ...]] = {}
        self._before: dict[Sbdf | None, tuple[Finding, ...]] = {}
        self._count = 0
        self.unlisted: set[Sbdf] = set()

    def __len__(self) -> int:
        """Return the number of findings."""
        return self._count

    @property
    def subjects(self) -> list[Sbdf]:
        """Return the addresses that have findings."""
        return [sbdf for sbdf in self._held if sbdf is not None]

    def find_in_service(self, views: Views, own: Iterable[Finding]) -> None:
        """Replace the findings of the service.

        The new findings are: `own`; those about the memory maps; one if hot-plug messages were lost in this
        boot; one if the last question to Xen about functions failed; one if the last question about reserved
        regions failed; those of policed ports that are not there; those of Xen's complaints and of refused
        DMA that name no function of the machine.
        """
        troubles = (views.trouble, views.reserved.trouble)
        last = [trouble for trouble in troubles if trouble is not None]
        printed = [*views.complaints.of(None), *faults_of_service(views)]
        self.put(None, [*own, *views.memory_findings, *_doubts(views), *last, *printed, *absent_ports(views)])

    def find_in_functions(self, views: Views, open_actions: OpenActions, scope: Iterable[Sbdf]) -> None:
        """Replace the findings of the functions in `scope`, by what was read and asked last.

        If the last question to Xen failed, disagreements with Xen are left out.
        """
        scope = frozenset(scope)
        found: dict[Sbdf, list[Finding]] = {sbdf: [] for sbdf in scope}
        if views.trouble is None:
            cut = views.state.cut_addresses()
            for sbdf, finding in disagreements(views.machine, views.view, views.state.renumbered, scope, cut):
                found.setdefault(sbdf, []).append(open_actions.explained(sbdf, finding))
            for told in views.cut_orphans():
                if told.subject in scope:
                    found[told.subject].append(Finding("orphan", told.text))
        functions = (views.machine.functions.get(sbdf) for sbdf in found)
        lacking = any(function is not None and lacks_addresses(function) for function in functions)
        roots = root_windows(views.host) if lacking else NO_ROOTS
        for sbdf, disagreeing in found.items():
            self.put(sbdf, [*disagreeing, *self._of_function(views, open_actions, sbdf, roots)])

    def _of_function(
        self, views: Views, open_actions: OpenActions, sbdf: Sbdf, roots: RootWindows
    ) -> Iterable[Finding]:
        """Yield the findings about one function. `roots` are the windows of root buses.

        They are: those of its open actions, of ignored writes, of lost BARs, of a late add and of an entry of
        the IOMMU that is gone; those about reserved regions that cannot be mapped, about a guest's pages and
        ports, about unmapped pages that came back; Xen's complaints; refused DMA; that it is not what the
        policy keeps in its place; that it waits below a policed port; those of its last reading, except notes
        and those about lost BARs.
        Disagreements with Xen are not yielded.
        `unlisted` is updated.
        """
        function = views.machine.functions.get(sbdf)
        lost = lost_of(views, sbdf)
        unlisted = function is not None and sbdf not in views.view.known
        (self.unlisted.add if unlisted else self.unlisted.discard)(sbdf)
        acted = (finding_of_action(outcome) for outcome in open_actions.of(sbdf))
        yield from (finding for finding in acted if finding is not None)
        yield from (finding_of(write) for write in ignored_of(views, [sbdf]))
        late = finding_of_late(views, sbdf)
        yield from () if late is None else (late,)
        entry = finding_of_entry(views, sbdf)
        yield from () if entry is None else (entry,)
        yield from lost_regions(views, sbdf)
        yield from views.guests.findings.get(sbdf, ())
        yield from (each for hole in views.memory.holes.of(sbdf) if (each := finding_of_hole(hole)))
        if function is None:
            return
        completed = helpful_findings(views.machine, function, roots)
        told = [each for each in completed if not each.is_note and not names_lost_bar(each, lost)]
        if altered := views.memory.altered.get(sbdf):
            yield finding_of_altered(altered)
        yield from views.complaints.of(sbdf, told)
        yield from faults_of(views, sbdf)
        yield from views.state.kept.findings_of(function, views.state.raws.get(sbdf))
        yield from findings_of_port(views, function)
        if lost:
            yield finding_of_reset(function, lost, open_actions.why_refused(sbdf, RewriteBar))
        yield from told
        yield from hazards_of(views, function)
        yield from oversized(function, sizes_in_vpci(views, function))
        yield from unsized_finding(sbdf, views.view, views.memory.ledger.unsized(), views.state.renumbered)

    def put(self, subject: Sbdf | None, findings: Iterable[Finding]) -> None:
        """Replace the findings of one subject; equal findings count once."""
        now, held = tuple(dict.fromkeys(findings)), self._held.get(subject, ())
        if now == held:
            return
        self._before.setdefault(subject, held)
        self._count += len(now) - len(held)
        if now:
            self._held[subject] = now
        else:
            del self._held[subject]

    def all(self) -> list[Told]:
        """Return all findings: those of the service first, the others in the order of their addresses."""
        order: list[Sbdf | None] = [None, *sorted(self.subjects)]
        return [(subject, finding) for subject in order for finding in self._held.get(subject, ())]

    def news(self) -> tuple[list[Told], list[Told]]:
        """Return two lists: the findings that are new since the last call, and the findings that have ended.

        A finding that appeared and ended between two calls is in neither list.
        """
        new: list[Told] = []
        gone: list[Told] = []
        for subject, before in self._before.items():
            now = self._held.get(subject, ())
            new += [(subject, finding) for finding in now if finding not in before]
            gone += [(subject, finding) for finding in before if finding not in now]
        self._before.clear()
        return new, gone


def _doubts(views: Views) -> Iterable[Finding]:
    """Yield a finding if hot-plug messages were lost in this boot, if what came and left while no service ran
    is not known (`engine/views/meanwhile.py`), or if an earlier service could not write what it knew.

    The finding stays until reboot, because pages of a function that came and left unseen may be mapped, and
    Xen has no call that tells which pages are mapped.
    """
    when = views.memory.ledger.messages_lost
    if when is not None:
        yield Finding(
            "messages-lost",
            f"around {when} hot-plug messages were lost, or the service did not run and the kernel's log "
            "does not cover that time, or an earlier service ended while it could not write its state. A "
            "function that came, moved or left then may have left pages mapped in dom0. Xen has no call that "
            "shows such pages; only a reboot ends this finding",
        )
