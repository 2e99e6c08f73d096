"""Advanced Features, and how long a function takes to be ready after a reset.

Source: PCI Express Base 6.0 §7.9.16 (Readiness Time Reporting); PCI-SIG ECN Conventional PCI Advanced
        Capabilities 2006 (AF).
"""

from pcipt.pci.capabilities.fields import Field, Register, Structure, View, flag, flags
from pcipt.pci.structures import AF

READINESS = 0x0022
_TIME_UNITS = {0: 1, 1: 32, 2: 1024, 3: 32_768, 4: 1_048_576, 5: 33_554_432}  # nanoseconds


def _time(raw: int) -> int | None:
    """Return a readiness time in nanoseconds; None if its scale is reserved."""
    unit = _TIME_UNITS.get(raw >> 9 & 7)
    return None if unit is None else (raw & 0x1FF) * unit


def _valid(view: View) -> bool:
    return bool(view.bits(4, 4, 31, 1))


STRUCTURES = (
    Structure(
        AF,
        False,
        (
            Register(
                "capability", "AFCap", 3, 1, flags((0, "TP", "transactions_pending"), (1, "FLR", "flr"))
            ),
            Register("control", "AFCtrl", 4, 1, (flag(0, "FLR", "flr"),)),
            Register("status", "AFStatus", 5, 1, (flag(0, "TP", "transactions_pending"),)),
        ),
    ),
    Structure(
        READINESS,
        True,
        (
            Register(
                "times1",
                "RTR1",
                4,
                4,
                (
                    flag(31, "Valid", "valid"),
                    Field("reset_ns", "Reset", 0, 12, _time, "{}ns", when=_valid),
                    Field("link_up_ns", "DL_Up", 12, 12, _time, "{}ns", when=_valid),
                ),
            ),
            Register(
                "times2",
                "RTR2",
                8,
                4,
                (
                    Field("flr_ns", "FLR", 0, 12, _time, "{}ns"),
                    Field("d3hot_to_d0_ns", "D3hot to D0", 12, 12, _time, "{}ns"),
                ),
                when=_valid,
            ),
        ),
    ),
)
