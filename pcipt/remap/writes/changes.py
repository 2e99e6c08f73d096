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
    """What is assumed to have happened to a write to a BAR that decodes.

    OBEYED: hardware took the write. IGNORED: vPCI dropped it.
    """

    OBEYED = "obeyed"
    IGNORED = "ignored"


class ResetKind(enum.Enum):
    """What was reset. FUNCTION: one function (FLR or AF). SECONDARY_BUS: all functions behind a bridge."""

    FUNCTION = "function"
    SECONDARY_BUS = "secondary-bus"


@attrs.frozen(kw_only=True)
class Change:
    """A change of one function, and the accesses that caused it (`causes`), the oldest first.

    `sbdf` is the function's address when the change was found. `place` is the function's place, which stays
    the same when buses are renumbered.
    """

    sbdf: Sbdf
    place: PciPath
    causes: tuple[Cause, ...]

    @property
    def number(self) -> int | None:
        """The recording's number of the last access in `causes`; None if there is no number or no access."""
        return self.causes[-1].number if self.causes else None


@attrs.frozen(kw_only=True)
class BarMapped(Change):
    """A BAR decodes that did not decode before: for the first time, or again at the same range as last time.

    `bar` is 0 to 5, or 6 for the ROM. `after` is the range that it decodes.
    """

    bar: int
    kind: BarKind
    after: Range


@attrs.frozen(kw_only=True)
class BarUnmapped(Change):
    """A BAR stopped decoding. `before` is the range that it decoded."""

    bar: int
    kind: BarKind
    before: Range


@attrs.frozen(kw_only=True)
class BarMoved(Change):
    """A BAR decodes another range than it did last. In between it may have decoded nothing.

    `assumed` is None if the BAR decoded nothing in between, else OBEYED or IGNORED. IGNORED: vPCI dropped the
    write; the BAR still decodes `before`, and `after` is the range that was written.
    """

    bar: int
    kind: BarKind
    before: Range
    after: Range
    assumed: Assumption | None = None


@attrs.frozen
class Decode:
    """The two decode bits of the Command register: I/O space and memory space."""

    io: bool
    memory: bool


@attrs.frozen(kw_only=True)
class DecodeChanged(Change):
    """The decode bits of the Command register changed. `before` is None if they were unknown."""

    before: Decode | None
    after: Decode


@attrs.frozen(kw_only=True)
class RomChanged(Change):
    """The enable bit in the ROM BAR changed. `before` is None if it was unknown.

    Where the ROM decodes is reported by the changes of BAR 6.
    """

    before: bool | None
    after: bool


@attrs.frozen(kw_only=True)
class BridgeWindowChanged(Change):
    """A window of a bridge changed.

    `after` is None if the window is closed now. `before` is None if it was closed or unknown.
    """

    window: WindowKind
    before: Window | None
    after: Window | None


@attrs.frozen
class Numbers:
    """The bus numbers of a bridge. A number is None if it is unknown."""

    primary: int | None
    secondary: int | None
    subordinate: int | None


@attrs.frozen(kw_only=True)
class BusRenumbered(Change):
    """The bus numbers of a bridge changed.

    `moved` has for each function behind the bridge whose address changed the address before and after. An
    address is None if the secondary bus of a bridge above is 0 or unknown: then the function cannot be
    reached.
    """

    before: Numbers
    after: Numbers
    moved: tuple[tuple[Sbdf | None, Sbdf | None], ...]


@attrs.frozen
class VfRange:
    """The range of BAR `bar` (0 to 5) of all `count` virtual functions together.

    They follow each other without gaps. `start` is a byte address; `size` is the size in bytes of the BAR of
    one virtual function.
    """

    bar: int
    start: int
    size: int
    count: int


@attrs.frozen(kw_only=True)
class VfBarsChanged(Change):
    """The ranges that the BARs of virtual functions decode changed.

    `before` is empty if they were unknown.
    """

    before: tuple[VfRange, ...]
    after: tuple[VfRange, ...]


@attrs.frozen(kw_only=True)
class FunctionReset(Change):
    """A function was reset. The changes of its registers are reported as changes of their own."""

    kind: ResetKind


@attrs.frozen(kw_only=True)
class RereadWanted(Change):
    """A write of unknown width cannot be applied to the shadow: the function must be read again."""
