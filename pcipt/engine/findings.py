"""All findings, kept by function: what is new and what is gone costs only as much as what was looked at."""

from collections.abc import Iterable

from pcipt.pci import Finding, Sbdf

Told = tuple[Sbdf | None, Finding]


class Complaints:
    """`None` is the service itself, or the machine as a whole."""

    def __init__(self) -> None:
        self._held: dict[Sbdf | None, tuple[Finding, ...]] = {}
        self._before: dict[Sbdf | None, tuple[Finding, ...]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def subjects(self) -> list[Sbdf]:
        return [sbdf for sbdf in self._held if sbdf is not None]

    def put(self, subject: Sbdf | None, findings: Iterable[Finding]) -> None:
        """Replace what is said of one subject."""
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
        """List everything: the service's own first, then in address order."""
        subjects = sorted(self.subjects)
        order: list[Sbdf | None] = [None, *subjects]
        return [(subject, finding) for subject in order for finding in self._held.get(subject, ())]

    def news(self) -> tuple[list[Told], list[Told]]:
        """Tell what is new and what is gone since this was asked last."""
        new: list[Told] = []
        gone: list[Told] = []
        for subject, before in self._before.items():
            now = self._held.get(subject, ())
            new += [(subject, finding) for finding in now if finding not in before]
            gone += [(subject, finding) for finding in before if finding not in now]
        self._before.clear()
        return new, gone
