"""Devices with known trouble at a reset: a small table, facts only.

Source: linux drivers/pci/quirks.c, of 6.18 and what was added until the middle of 2026: quirk_no_flr,
        quirk_no_flr_snet, quirk_no_bus_reset, quirk_nvidia_no_bus_reset, quirk_no_pm_reset,
        pci_dev_reset_methods; for AMD's graphics github.com/gnif/vendor-reset, src/device-db.h (the parts on
        cards) and README.md. Navi 23 is not in device-db.h: issues there report the same trouble.
"""

import enum

from pcipt import values as attrs
from pcipt.pci import Function

_VGA = 0x0300


class Trouble(enum.Enum):
    """The kind of trouble: code of the reason, what it is, and what helps."""

    HANGS = (
        "reset-hangs",
        "its function-level reset may hang it; newer versions of Linux do not use it",
        "in dom0 use a Linux whose file reset_method of this function does not have flr",
    )
    BUS = (
        "reset-kills",
        "after a reset of its bus it is dead, and an access may hang the host; newer Linux avoids this reset",
        "in dom0 use a Linux whose file reset_method of this function does not have bus",
    )
    POWER = (
        "reset-without-effect",
        "a change of its power state does not reset it, though its registers say so",
        "power the machine off between users",
    )
    NEVER_AGAIN = (
        "reset-fails",
        "after the reset that Linux does it does not work: only the first guest can use it, and only once",
        "load the module vendor-reset in dom0 before its first reset (it does not know Navi 23)",
    )
    SPECIFIC = (
        "reset-specific",
        "it needs a reset of its own kind, which Linux has for it (device_specific)",
        "check that its file reset_method has device_specific",
    )

    @property
    def code(self) -> str:
        """Return the code of the reason."""
        return self.value[0]

    @property
    def text(self) -> str:
        """Return what the trouble is."""
        return self.value[1]

    @property
    def cure(self) -> str:
        """Return what helps."""
        return self.value[2]


@attrs.frozen
class Row:
    """Devices of one vendor with one kind of trouble.

    Only devices with `device & mask` in `devices` count (`devices` None: all), of class `kind` (class code >>
    8; None: any) and revision `revision` (None: any).
    """

    trouble: Trouble
    vendor: int
    devices: frozenset[int] | None
    mask: int = 0xFFFF
    kind: int | None = None
    revision: int | None = None


def _row(
    trouble: Trouble, vendor: int, *devices: int, mask: int = 0xFFFF, revision: int | None = None
) -> Row:
    """Return a row for these devices of any class."""
    return Row(trouble, vendor, frozenset(devices), mask, revision=revision)


# AMD Polaris 10 to 12, Vega 10 and 20, Navi 10 to 14 and 23, Arcturus.
_AMD_GRAPHICS = (
    0x67C0, 0x67C1, 0x67C2, 0x67C4, 0x67C7, 0x67C8, 0x67C9, 0x67CA, 0x67CC, 0x67CF, 0x67D0, 0x67DF, 0x6FDF,
    0x67E0, 0x67E1, 0x67E3, 0x67E7, 0x67E8, 0x67E9, 0x67EB, 0x67EF, 0x67FF,
    0x6980, 0x6981, 0x6985, 0x6986, 0x6987, 0x6995, 0x6997, 0x699F,
    0x6860, 0x6861, 0x6862, 0x6863, 0x6864, 0x6867, 0x6868, 0x6869, 0x686A, 0x686B, 0x686C, 0x686D, 0x686E,
    0x686F, 0x687F, 0x66A0, 0x66A1, 0x66A2, 0x66A3, 0x66A4, 0x66A7, 0x66AF,
    0x7310, 0x7312, 0x7318, 0x7319, 0x731A, 0x731B, 0x731E, 0x731F, 0x7340, 0x7341, 0x7347, 0x734F,
    0x7360, 0x7362, 0x73FF, 0x738C,
)  # fmt: skip

ROWS: tuple[Row, ...] = (
    _row(Trouble.HANGS, 0x1022, 0x1487, 0x148C, 0x149C, 0x7901),  # AMD: audio, USB, SATA of Zen boards
    _row(Trouble.HANGS, 0x1022, 0x1502, 0x17F0),  # AMD: neural processor of Ryzen 7040 to AI 300
    _row(Trouble.HANGS, 0x8086, 0x1502, 0x1503),  # Intel 82579
    _row(Trouble.HANGS, 0x14C3, 0x0616),  # Mediatek MT7922
    _row(Trouble.HANGS, 0xD063, 0x1000, revision=1),  # SolidRun SNET
    _row(Trouble.BUS, 0x168C, 0x0030, 0x0032, 0x0033, 0x0034, 0x003C, 0x003E),  # Atheros AR9xxx, QCA988x
    _row(Trouble.BUS, 0x10DE, 0x2340, mask=0xFFC0),  # NVIDIA
    _row(Trouble.BUS, 0x104C, 0xB005),  # TI KeyStone
    _row(Trouble.BUS, 0x1B21, 0x1164),  # ASMedia ASM1164 (SATA): its link does not come back
    _row(Trouble.NEVER_AGAIN, 0x1002, *_AMD_GRAPHICS),
    Row(Trouble.POWER, 0x1002, None, kind=_VGA),  # AMD/ATI graphics
    _row(Trouble.POWER, 0x15B3, 0xCB84, 0xCF6C, 0xCF70, 0xCF80),  # Mellanox Spectrum
    _row(Trouble.SPECIFIC, 0x8086, 0x10ED),  # virtual function of 82599: FLR that no register tells
    _row(Trouble.SPECIFIC, 0x8086, 0x0156, 0x0166),  # graphics of Ivy Bridge
    _row(Trouble.SPECIFIC, 0x144D, 0xA804),  # Samsung SM961: FLR kills it unless it is disabled first
    _row(Trouble.SPECIFIC, 0x8086, 0x0953, 0x0A54),  # Intel P3700: not ready at once after FLR
    _row(Trouble.SPECIFIC, 0x025E, 0xF1AC),  # Solidigm P44 Pro: the same
    _row(Trouble.SPECIFIC, 0x1425, 0x4000, mask=0xF000),  # Chelsio T4
    _row(Trouble.SPECIFIC, 0x19E5, 0x375E),  # virtual function of Huawei HiNIC
)

# the words of Linux's reset_method that a kind of trouble makes useless
_USELESS = {Trouble.HANGS: {"flr", "af_flr"}, Trouble.POWER: {"pm"}, Trouble.BUS: {"bus"}}


def troubles_of(function: Function) -> tuple[Trouble, ...]:
    """Return the kinds of trouble that the table has for the function, in its order, each once."""
    ids = function.ids
    return tuple(
        dict.fromkeys(
            row.trouble
            for row in ROWS
            if row.vendor == ids.vendor
            and (row.devices is None or (ids.device is not None and ids.device & row.mask in row.devices))
            and (row.kind is None or (ids.class_code or 0) >> 8 == row.kind)
            and (row.revision is None or row.revision == ids.revision)
        )
    )


def useless_resets(function: Function) -> frozenset[str]:
    """Return the ways of reset, in Linux's words, that do not work with the function or harm it."""
    return frozenset(word for trouble in troubles_of(function) for word in _USELESS.get(trouble, ()))


def is_possible(trouble: Trouble, function: Function) -> bool:
    """Return False if the registers of the function show no way of reset that the trouble is about."""
    shown = function.isolation.resets if function.isolation is not None else None
    words = _USELESS.get(trouble, set())
    return shown is None or trouble not in (Trouble.HANGS, Trouble.POWER) or bool(words & set(shown))
