"""Precision Time Measurement, and the serial number of a device.

Source: PCI Express Base 6.0 §7.9.15 (PTM), §7.9.3 (Device Serial Number).
"""

from pcipt.pci.capabilities.fields import Field, Register, Structure, Value, flag, flags
from pcipt.pci.structures import SERIAL_NUMBER

TIME_MEASUREMENT = 0x001F
_MOST = 255  # this and more


def _granularity(raw: int) -> int | None:
    """Return nanoseconds; 255 is more than 254. None: not implemented or not known."""
    return raw or None


def _shown(value: Value) -> str:
    return ">254ns" if value == _MOST else f"{value}ns"


def _serial(raw: int) -> str:
    """Return the eight bytes of an EUI-64, the first one first."""
    return raw.to_bytes(8, "big").hex("-")


STRUCTURES = (
    Structure(
        SERIAL_NUMBER,
        True,
        (Register("serial", "Serial", 4, 8, (Field("number", "", 0, 64, _serial),)),),
    ),
    Structure(
        TIME_MEASUREMENT,
        True,
        (
            Register(
                "capability",
                "PTMCap",
                4,
                4,
                (
                    *flags((0, "Requester", "requester"), (1, "Responder", "responder"), (2, "Root", "root")),
                    Field("granularity_ns", "ClockGranularity", 8, 8, _granularity, _shown),
                ),
            ),
            Register(
                "control",
                "PTMControl",
                8,
                4,
                (
                    flag(0, "Enabled", "enable"),
                    flag(1, "RootSelected", "root_selected"),
                    Field("granularity_ns", "EffectiveGranularity", 8, 8, _granularity, _shown),
                ),
            ),
        ),
    ),
)
