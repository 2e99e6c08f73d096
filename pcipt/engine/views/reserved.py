"""Which functions need which reserved region, as Xen says.

Regions, and the addresses they are for, are frozen when Xen boots: a function is asked about when it is seen
first, and nothing is asked where there is no region. What Xen could not be asked about is asked again with
the next question.
"""

from collections.abc import Collection, Iterable

from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Finding, Frames, Sbdf
from pcipt.remap.plan_reserved import Scopes
from pcipt.xen.interface import Hypervisor


class Reserved:
    """`trouble` is set where Xen could not be asked: what is not known is not withdrawn."""

    def __init__(self, xen: Hypervisor) -> None:
        self._xen = xen
        self._scopes: dict[Frames, frozenset[Sbdf]] = {}
        self._of: dict[Sbdf, tuple[Frames, ...]] = {}
        self._listed = False
        self._open: set[Sbdf] = set()
        self.trouble: Finding | None = None

    @property
    def scopes(self) -> Scopes:
        return self._scopes

    @property
    def open(self) -> Collection[Sbdf]:
        """The functions that Xen could not be asked about: any region may be theirs."""
        return self._open

    def of(self, sbdf: Sbdf) -> tuple[Frames, ...]:
        return self._of.get(sbdf, ())

    def about(self, functions: Iterable[Sbdf]) -> Scopes:
        """Give the regions of these functions, each with all its devices."""
        return {frames: self._scopes[frames] for sbdf in functions for frames in self.of(sbdf)}

    def read(self, functions: Iterable[Sbdf]) -> None:
        """Ask about all regions, and about these functions; nothing that was said before counts any more."""
        self._listed, self._open = False, {sbdf for sbdf in functions if sbdf.fits_xen}
        self._ask()

    def learn(self, functions: Iterable[Sbdf]) -> None:
        """Ask about those of these functions that were not asked about yet."""
        self._open |= {sbdf for sbdf in functions if sbdf not in self._of and sbdf.fits_xen}
        self._ask()

    def _ask(self) -> None:
        self.trouble = None
        try:
            if not self._listed:
                self._scopes = {frames: frozenset() for frames in self._xen.reserved_regions()}
                self._of, self._listed = {}, True
            for sbdf in sorted(self._open) if self._scopes else ():
                self._of[sbdf] = self._xen.reserved_regions(sbdf)
                for frames in self._of[sbdf]:
                    self._scopes[frames] = self._scopes.get(frames, frozenset()) | {sbdf}
                self._open.discard(sbdf)
        except HypervisorError as error:
            why = f"{error}: which devices need which reserved region is unknown, none is withdrawn"
            self.trouble = Finding("regions-not-asked", why)
        except UnsupportedError:  # this Xen or its libraries do not tell: there is no region to care for
            self._listed, self._scopes, self._of = True, {}, {}
            self._open.clear()
        else:
            self._open.clear()
