"""The facts from which the guards decide. They are read right before the action. Pure."""

import enum
from collections.abc import Callable, Collection, Mapping
from collections.abc import Set as AbstractSet
from types import MappingProxyType
from typing import Any

import attrs

from pcipt.firmware.coverage import IommuScope
from pcipt.pci import Frames, Function, Machine, Sbdf
from pcipt.remap.bar_index import BarIndex
from pcipt.remap.desired import NOWHERE, Desired, Followed, LostBar, desired_of, is_trapped, place_of
from pcipt.remap.guard.protected import Protected
from pcipt.remap.holes import Holes
from pcipt.remap.kinds.conventional import NO_BRIDGES, Bridges
from pcipt.remap.mapped_pages import MappedPages
from pcipt.remap.plan_moves import NO_MOVES, Moves
from pcipt.remap.plan_reserved import Locations
from pcipt.remap.view import XenView
from pcipt.remap.vpci.shape import Altered, doubt_of
from pcipt.remap.vpci.sizes import Sizes
from pcipt.remap.writes.vpci import Counted
from pcipt.xen.releases import Version


@attrs.frozen
class Facts:
    """All facts that the guards look at. The function of the action was just read again.

    `version` is that of Xen. `unserved` are addresses of which Xen said that no IOMMU unit serves them,
    `untyped` those of orphans of which Xen does not know what they are and cannot make another record,
    `served` those at which it has taken a function since boot. `moves` and `followed` are by Linux's address
    (`find_moves`, `Ledger.followed`). `bars` must be those of `machine`; if none are given, they are computed
    here, in a time that grows with the machine. `unsized` are those of `Ledger.unsized`. `regions` has for
    each reserved region the functions for which it is reserved, whoever owns them, and `home` tells where
    these are now (`Locations.home`). `answered` returns the function at Linux's address as it was when it
    answered last. `holes` are pages that pcipt unmapped for good. `outside_window` returns for a place the
    BARs that decoded where vPCI maps nothing (`Desired.outside_window`), `sizes` the sizes that vPCI has of
    Resizable BARs. `lost` returns for a function the BARs that vPCI takes for mapped although a reset has
    cleared them (`lost_bars`); `counted` has where vPCI has them, for all functions of which that is known.
    `given_up` are the places of functions that vPCI does not handle any more, `faulty` those of
    `Ledger.faulty`, `severed` those of `Ledger.severed`. `hidden_msix` are the functions of which Xen hides
    the MSI-X structure from dom0 and may trap its pages. `altered` are the functions whose read-only
    registers are not those that Xen handles.
    """

    machine: Machine
    xen: XenView
    pvh: bool
    version: Version
    iommu: IommuScope
    unserved: Collection[Sbdf] = ()
    untyped: Collection[Sbdf] = ()
    served: Collection[Sbdf] = ()
    bars: BarIndex = attrs.Factory(lambda self: BarIndex(self.machine.functions.values()), takes_self=True)
    mapped: MappedPages = attrs.Factory(MappedPages)
    protected: Protected = attrs.Factory(Protected)
    moves: Moves = NO_MOVES
    followed: Followed = NOWHERE
    unsized: Collection[Sbdf] = ()
    bridges: Bridges = NO_BRIDGES
    regions: Mapping[Frames, frozenset[Sbdf]] = MappingProxyType({})
    holes: Holes = attrs.Factory(Holes)
    home: Callable[[Sbdf], Sbdf | None] = lambda sbdf: sbdf
    answered: Callable[[Sbdf], Function | None] = lambda _sbdf: None
    outside_window: Callable[[str], Collection[int]] = lambda _place: ()
    lost: Callable[[Sbdf], tuple[LostBar, ...]] = lambda _sbdf: ()
    counted: Mapping[Sbdf, Counted] = MappingProxyType({})
    given_up: AbstractSet[str] = frozenset()
    faulty: AbstractSet[str] = frozenset()
    severed: AbstractSet[str] = frozenset()
    hidden_msix: AbstractSet[Sbdf] = frozenset()
    altered: Mapping[Sbdf, Altered] = MappingProxyType({})
    sizes: Callable[[str], Sizes | None] = lambda _place: None
    _desired: dict[Sbdf, Desired] = attrs.field(factory=dict, init=False)

    @property
    def where(self) -> Locations:
        """Where the devices of reserved regions are now."""
        return Locations(self.home, self.moves, self.followed)

    def desired(self, sbdf: Sbdf) -> Desired | None:
        """Return the desired pages of the function at Linux's address `sbdf`; None if Linux has none there.

        The result is computed once for each function; later changes of the facts do not change it.
        """
        function = self.machine.functions.get(sbdf)
        if function is None:
            return None
        if sbdf not in self._desired:
            place = place_of(function)
            self._desired[sbdf] = desired_of(
                function, self.machine.functions, self.xen, pvh=self.pvh, version=self.version,
                protected=self.protected, followed=self.followed, outside_window=self.outside_window(place),
                lost=self.lost(sbdf), given_up=place in self.given_up, sizes=self.sizes(place),
                doubt=doubt_of(self.altered, function),
            )  # fmt: skip
        return self._desired[sbdf]

    def is_trapped(self, function: Function) -> bool:
        """Return True if the vPCI of a PVH dom0 must trap the function's MSI-X pages (`is_trapped`)."""
        given_up = place_of(function) in self.given_up
        return is_trapped(function, self.xen, version=self.version, followed=self.followed, given_up=given_up)


class Precaution(enum.Enum):
    """What must be done around an allowed action.

    NONE: nothing. DECODE_OFF: memory decode is switched off before an add, and on again after it. A function
    with `moved_from` can be reached at Linux's address only: to switch its decode, the bridges above it get
    for a moment the bus numbers that Linux has for them.
    """

    NONE = "none"
    DECODE_OFF = "decode-off"


Rule = Callable[[Any, Facts], str | None]
