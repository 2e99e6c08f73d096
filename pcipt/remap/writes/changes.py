"""What writes meant: one class for each kind of change, with before, after and the accesses that caused
it.
"""

import enum

import attrs

from pcipt.pci.address import PciPath, Sbdf
from pcipt.pci.bars import BarKind
from pcipt.pci.bridge import Window, WindowKind
from pcipt.pci.units import Range
from pcipt.pci.write import ConfigRead, ConfigWrite

Cause = ConfigWrite | ConfigRead


class Assumption(enum.Enum):
    """What became of a BAR written while it decodes: hardware obeys, Xen's vPCI drops the write."""

    OBEYED = "obeyed"
    IGNORED = "ignored"


class ResetKind(enum.Enum):
    FUNCTION = "function"
    SECONDARY_BUS = "secondary-bus"


@attrs.frozen(kw_only=True)
class Change:
    """`sbdf` is the address at which the deciding access found the function; `place` survives renumbering."""

    sbdf: Sbdf
    place: PciPath
    causes: tuple[Cause, ...]

    @property
    def number(self) -> int | None:
        """The recording's number of the deciding access, the last of the causes."""
        return self.causes[-1].number if self.causes else None


@attrs.frozen(kw_only=True)
class BarMapped(Change):
    bar: int
    kind: BarKind
    after: Range


@attrs.frozen(kw_only=True)
class BarUnmapped(Change):
    bar: int
    kind: BarKind
    before: Range


@attrs.frozen(kw_only=True)
class BarMoved(Change):
    """`assumed` is set where the BAR was written while decoding; IGNORED means that it still is at
    `before`.
    """

    bar: int
    kind: BarKind
    before: Range
    after: Range
    assumed: Assumption | None = None


@attrs.frozen
class Decode:
    io: bool
    memory: bool


@attrs.frozen(kw_only=True)
class DecodeChanged(Change):
    before: Decode | None
    after: Decode


@attrs.frozen(kw_only=True)
class RomChanged(Change):
    """The ROM's own enable bit; where it then decodes is told as BAR 6."""

    before: bool | None
    after: bool


@attrs.frozen(kw_only=True)
class BridgeWindowChanged(Change):
    """None is a closed window."""

    window: WindowKind
    before: Window | None
    after: Window | None


@attrs.frozen
class Numbers:
    """The bus numbers of a bridge; None is not known."""

    primary: int | None
    secondary: int | None
    subordinate: int | None


@attrs.frozen(kw_only=True)
class BusRenumbered(Change):
    """`moved` lists the functions behind the bridge with their addresses before and after.

    None is out of reach: behind a bridge whose secondary bus is 0.
    """

    before: Numbers
    after: Numbers
    moved: tuple[tuple[Sbdf | None, Sbdf | None], ...]


@attrs.frozen
class VfRange:
    """BAR `bar` of all `count` virtual functions: `size` is that of one, they follow each other."""

    bar: int
    start: int
    size: int
    count: int


@attrs.frozen(kw_only=True)
class VfBarsChanged(Change):
    before: tuple[VfRange, ...]
    after: tuple[VfRange, ...]


@attrs.frozen(kw_only=True)
class FunctionReset(Change):
    kind: ResetKind


@attrs.frozen(kw_only=True)
class RereadWanted(Change):
    """A write that cannot be understood: its width is unknown. The function must be read again."""
