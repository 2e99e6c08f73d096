"""The changes that configuration accesses make: one class a kind, with the state before and after. Pure."""

import enum

import attrs

from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.bars import BarKind
from pcipt.pci.bridge import Window, WindowKind
from pcipt.pci.units import Range
from pcipt.pci.write import ConfigRead, ConfigWrite

Cause = ConfigWrite | ConfigRead


class Assumption(enum.Enum):
    """What happened to a write to a BAR that decodes: hardware took it, or vPCI dropped it."""

    OBEYED = "obeyed"
    IGNORED = "ignored"


class ResetKind(enum.Enum):
    """What was reset: one function (FLR, AF), or all functions behind a bridge (secondary bus reset)."""

    FUNCTION = "function"
    SECONDARY_BUS = "secondary-bus"


@attrs.frozen(kw_only=True)
class Change:
    """A change of one function, and the accesses that caused it, in order.

    `sbdf` is the address at which the last of these accesses reached the function. `place` survives
    renumbering.
    """

    sbdf: Sbdf
    place: PciPath
    causes: tuple[Cause, ...]

    @property
    def number(self) -> int | None:
        """The recording's number of the last access that caused the change, or None if it has no number."""
        return self.causes[-1].number if self.causes else None


@attrs.frozen(kw_only=True)
class BarMapped(Change):
    """A BAR decodes that did not, for the first time or at the same address as last time.

    `bar` 6 is the ROM.
    """

    bar: int
    kind: BarKind
    after: Range


@attrs.frozen(kw_only=True)
class BarUnmapped(Change):
    """A BAR stopped decoding."""

    bar: int
    kind: BarKind
    before: Range


@attrs.frozen(kw_only=True)
class BarMoved(Change):
    """A BAR decodes at another address than it did last.

    `assumed` is set if the BAR was written while it decoded. If it is IGNORED, the BAR still is at `before`.
    """

    bar: int
    kind: BarKind
    before: Range
    after: Range
    assumed: Assumption | None = None


@attrs.frozen
class Decode:
    """The two decode bits of the Command register: I/O ports and memory."""

    io: bool
    memory: bool


@attrs.frozen(kw_only=True)
class DecodeChanged(Change):
    """The decode bits of the Command register changed. `before` None is unknown."""

    before: Decode | None
    after: Decode


@attrs.frozen(kw_only=True)
class RomChanged(Change):
    """The ROM's own enable bit changed; `before` None is unknown.

    BAR changes of BAR 6 tell where the ROM decodes.
    """

    before: bool | None
    after: bool


@attrs.frozen(kw_only=True)
class BridgeWindowChanged(Change):
    """A window of a bridge changed. None is a closed window, or for `before` an unknown one."""

    window: WindowKind
    before: Window | None
    after: Window | None


@attrs.frozen
class Numbers:
    """The bus numbers of a bridge. None is an unknown number."""

    primary: int | None
    secondary: int | None
    subordinate: int | None


@attrs.frozen(kw_only=True)
class BusRenumbered(Change):
    """The bus numbers of a bridge changed.

    `moved` lists the functions behind the bridge with their addresses before and after. None is no address:
    the secondary bus of a bridge above is 0 or unknown.
    """

    before: Numbers
    after: Numbers
    moved: tuple[tuple[Sbdf | None, Sbdf | None], ...]


@attrs.frozen
class VfRange:
    """The range of BAR `bar` of all `count` virtual functions together. They follow each other without gaps.

    `start` and `size` are in bytes; `size` is that of one virtual function.
    """

    bar: int
    start: int
    size: int
    count: int


@attrs.frozen(kw_only=True)
class VfBarsChanged(Change):
    """The ranges that the BARs of virtual functions decode changed."""

    before: tuple[VfRange, ...]
    after: tuple[VfRange, ...]


@attrs.frozen(kw_only=True)
class FunctionReset(Change):
    """A function was reset."""

    kind: ResetKind


@attrs.frozen(kw_only=True)
class RereadWanted(Change):
    """A write of unknown width cannot be folded into the shadow: the function must be read again."""
