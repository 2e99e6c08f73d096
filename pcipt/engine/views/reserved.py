"""Asks Xen which reserved regions there are, and for which functions.

The regions and their functions do not change after Xen has booted. So Xen is asked once about each function,
and about no function if there is no region. If a question fails, it is asked again with the next question.
"""

from collections.abc import Collection, Iterable

from pcipt.errors import HypervisorError, UnsupportedError
from pcipt.pci import Finding, Frames, Sbdf
from pcipt.remap.plan_reserved import Scopes
from pcipt.xen.interface import Hypervisor


class Reserved:
    """The reserved regions that Xen lists, and the functions that need each of them.

    `trouble` is a finding if the last question to Xen failed, else None. No region may be withdrawn unless
    `complete` is True; who plans while it is False sets `plan_again`, which the next `read` clears.
    """

    def __init__(self, xen: Hypervisor) -> None:
        self._xen = xen
        self._scopes: dict[Frames, frozenset[Sbdf]] = {}
        self._of: dict[Sbdf, tuple[Frames, ...]] = {}
        self._listed = False
        self._read = False  # Xen was asked about all functions, or was to be asked: `_open` has the others
        self._open: set[Sbdf] = set()
        self.plan_again = False
        self.trouble: Finding | None = None

    @property
    def scopes(self) -> Scopes:
        """Return the functions for which each region is reserved, by the pages of the region."""
        return self._scopes

    @property
    def open(self) -> Collection[Sbdf]:
        """The functions whose regions are unknown, because Xen could not be asked about them.

        While there is such a function, every region may be reserved for it. The next `read` or `learn` asks
        Xen about it again.
        """
        return self._open

    @property
    def complete(self) -> bool:
        """True if Xen was asked about all functions: no region has a device that is unknown."""
        return self._read and not self._open

    @property
    def devices(self) -> Collection[Sbdf]:
        """The functions that have a region, as Xen names them: by their addresses at boot."""
        return [sbdf for sbdf, regions in self._of.items() if regions]

    def of(self, sbdf: Sbdf) -> tuple[Frames, ...]:
        """Return the regions of one function; empty if it has none or if Xen was not asked about it."""
        return self._of.get(sbdf, ())

    def about(self, functions: Iterable[Sbdf]) -> Scopes:
        """Return the regions of these functions, each with all functions for which it is reserved."""
        return {frames: self._scopes[frames] for sbdf in functions for frames in self.of(sbdf)}

    def read(self, functions: Iterable[Sbdf]) -> None:
        """Ask Xen for all regions, and for the regions of these functions.

        If Xen lists the regions, all earlier answers are forgotten. If Xen cannot be asked for the list, the
        earlier answers stay. A Xen that does not have the call has no regions.
        """
        self._read, self.plan_again = True, False
        self._listed, self._open = False, {sbdf for sbdf in functions if sbdf.fits_xen}
        self._ask()

    def learn(self, functions: Iterable[Sbdf]) -> None:
        """Ask Xen for the regions of those of these functions whose regions are not known yet."""
        if self._listed and not self._scopes:
            return
        self._open |= {sbdf for sbdf in functions if sbdf not in self._of and sbdf.fits_xen}
        self._ask()

    def _ask(self) -> None:
        """Ask Xen for the list of regions if it is unknown, and about all functions in `open`."""
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
            why = f"{error}: pcipt does not know which devices need which reserved region, and withdraws none"
            self.trouble = Finding("regions-not-asked", why)
        except UnsupportedError:  # this Xen or its libraries do not tell: there is no region to care for
            self._listed, self._scopes, self._of = True, {}, {}
            self._open.clear()
        else:
            self._open.clear()
