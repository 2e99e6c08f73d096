"""Judges what is wrong: in the service, between the three views, in single functions that are looked at."""

from collections.abc import Callable, Collection, Iterable

from pcipt.engine.findings import Complaints
from pcipt.engine.open_actions import Standing, complaint_of
from pcipt.engine.views import Situation
from pcipt.pci import Finding, Sbdf
from pcipt.remap.ignored import IgnoredWrite, finding_of
from pcipt.remap.view import disagreements


class Judge:
    """`unlisted` are the functions of the machine that Xen does not list."""

    def __init__(self, situation: Situation, standing: Standing) -> None:
        self._situation = situation
        self._standing = standing
        self.complaints = Complaints()
        self.unlisted: set[Sbdf] = set()

    def judge_service(self, findings: Iterable[Finding]) -> None:
        """Take in the service's own findings, and those of the machine as a whole."""
        troubles = (self._situation.trouble, self._situation.reserved.trouble)
        last = [trouble for trouble in troubles if trouble is not None]
        self.complaints.put(None, [*findings, *self._situation.memory_findings, *last])

    def judge_functions(
        self, scope: Collection[Sbdf] | None, ignored: Callable[[Iterable[Sbdf]], Iterable[IgnoredWrite]]
    ) -> None:
        """Find anew what is wrong with the functions in `scope`; None is all of them."""
        if scope is not None and not scope:
            return
        situation = self._situation
        found: dict[Sbdf, list[Finding]] = {}
        if situation.trouble is None:
            moves = situation.picture.moves
            for sbdf, finding in disagreements(situation.machine, situation.view, moves, scope):
                found.setdefault(sbdf, []).append(self._standing.explained(sbdf, finding))
        if scope is None:
            others = {*found, *self.complaints.subjects, *self._standing.subjects}
            scope = others | situation.machine.functions.keys()
        for sbdf in scope:
            self.complaints.put(sbdf, [*found.get(sbdf, ()), *self._findings_of(sbdf, ignored)])

    def _findings_of(
        self, sbdf: Sbdf, ignored: Callable[[Iterable[Sbdf]], Iterable[IgnoredWrite]]
    ) -> Iterable[Finding]:
        situation = self._situation
        function = situation.machine.functions.get(sbdf)
        unlisted = function is not None and sbdf not in situation.view.known
        (self.unlisted.add if unlisted else self.unlisted.discard)(sbdf)
        told = (complaint_of(outcome) for outcome in self._standing.of(sbdf))
        yield from (complaint for complaint in told if complaint is not None)
        yield from (finding_of(write) for write in ignored([sbdf]))
        yield from situation.guests.findings.get(sbdf, ())
        if function is not None:
            yield from (finding for finding in function.findings if not finding.is_note)
