"""Which functions need which reserved region, as Xen tells; and which regions somebody has claimed.

Regions, and the addresses they are for, are frozen when Xen boots: a function is asked about when it is seen
first, and nothing is asked where there is no region. A claim keeps a region in dom0 while a device of it is
on its way back.
"""

from collections import Counter
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
        self._claims: Counter[Frames] = Counter()
        self.trouble: Finding | None = None

    @property
    def scopes(self) -> Scopes:
        return self._scopes

    @property
    def claimed(self) -> Collection[Frames]:
        return self._claims.keys()

    def of(self, sbdf: Sbdf) -> tuple[Frames, ...]:
        return self._of.get(sbdf, ())

    def about(self, functions: Iterable[Sbdf]) -> Scopes:
        """Give the regions of these functions, each with all its devices."""
        return {frames: self._scopes[frames] for sbdf in functions for frames in self.of(sbdf)}

    def read(self, functions: Iterable[Sbdf]) -> None:
        """Ask about all regions, and about these functions; nothing that was said before counts any more."""
        self.trouble = None
        try:
            regions = self._xen.reserved_regions()
        except (HypervisorError, UnsupportedError) as error:
            self._say(error)
            return
        self._scopes = {frames: frozenset() for frames in regions}
        self._of = {}
        self.learn(functions)

    def learn(self, functions: Iterable[Sbdf]) -> None:
        """Ask about those of these functions that were not asked about yet."""
        for sbdf in functions if self._scopes else ():
            if sbdf in self._of or not sbdf.fits_xen:
                continue
            try:
                self._of[sbdf] = self._xen.reserved_regions(sbdf)
            except (HypervisorError, UnsupportedError) as error:
                self._say(error)
                return
            for frames in self._of[sbdf]:
                self._scopes[frames] = self._scopes.get(frames, frozenset()) | {sbdf}

    def claim(self, regions: Iterable[Frames]) -> None:
        self._claims.update(regions)

    def release(self, regions: Iterable[Frames]) -> None:
        """Undo a claim."""
        self._claims -= Counter(regions)

    def _say(self, error: Exception) -> None:
        if isinstance(error, UnsupportedError):
            return  # this Xen or its libraries never tell: there is no region to care for
        why = f"{error}: which devices need which reserved region is unknown, none is withdrawn"
        self.trouble = Finding("regions-not-asked", why)
