"""Power: Power Management, L1 PM Substates, Latency Tolerance Reporting.

Source: PCI Bus Power Management Interface 1.2 §3.2; PCI Express Base 6.0 §7.5.2 (PM), §7.8.3 (L1 PM
        Substates), §7.8.2 (LTR).
"""

from pcipt.pci.capabilities.fields import (
    Field,
    Register,
    Structure,
    View,
    flag,
    flags,
    one_of,
)
from pcipt.pci.config import HeaderType
from pcipt.pci.structures import PM

LTR, L1_SUBSTATES = 0x0018, 0x001E
_AUX_CURRENT = one_of(dict(enumerate((0, 55, 100, 160, 220, 270, 320, 375))))  # mA
_STATES = one_of({0: "D0", 1: "D1", 2: "D2", 3: "D3hot"})
_POWER_ON_UNITS = {0: 2, 1: 10, 2: 100}  # microseconds
_LARGEST_SCALE = 5


def _power_on(raw: int) -> int | None:
    """Return T_POWER_ON in microseconds: two bits of scale, a reserved bit, five bits of value."""
    unit = _POWER_ON_UNITS.get(raw & 3)
    return None if unit is None else unit * (raw >> 3)


def _latency(raw: int) -> int | None:
    """Return a latency in nanoseconds: ten bits of value, three of scale; 6 and 7 are reserved."""
    scale = raw >> 10 & 7
    return (raw & 0x3FF) << 5 * scale if scale <= _LARGEST_SCALE else None


def _threshold(raw: int) -> int | None:
    """Return the threshold of LTR in nanoseconds: ten bits of value, three others, three bits of scale."""
    return _latency(raw & 0x3FF | raw >> 13 << 10)


def _l12(view: View) -> bool:
    return bool(view.bits(4, 4, 0, 4) & 0b0101)


def _aspm_l12(view: View) -> bool:
    return bool(view.bits(4, 4, 2, 1))


def _is_bridge(view: View) -> bool:
    return view.header is HeaderType.BRIDGE


_SUBSTATES = flags(
    (0, "PCI-PM_L1.2", "pm_l1_2"),
    (1, "PCI-PM_L1.1", "pm_l1_1"),
    (2, "ASPM_L1.2", "aspm_l1_2"),
    (3, "ASPM_L1.1", "aspm_l1_1"),
)

STRUCTURES = (
    Structure(
        PM,
        False,
        (
            Register(
                "capability",
                "PMCap",
                2,
                2,
                (
                    Field("version", "Version", 0, 3),
                    *flags(
                        (3, "PMEClk", "pme_clock"),
                        (5, "DSI", "device_specific_initialization"),
                        (9, "D1", "d1"),
                        (10, "D2", "d2"),
                    ),
                    Field("aux_current_ma", "AuxCurrent", 6, 3, _AUX_CURRENT, "{}mA"),
                    *flags(
                        (11, "PME_D0", "pme_from_d0"),
                        (12, "PME_D1", "pme_from_d1"),
                        (13, "PME_D2", "pme_from_d2"),
                        (14, "PME_D3hot", "pme_from_d3hot"),
                        (15, "PME_D3cold", "pme_from_d3cold"),
                    ),
                ),
            ),
            Register(
                "control_status",
                "PMCSR",
                4,
                2,
                (
                    Field("power_state", "State", 0, 2, _STATES),
                    *flags((3, "NoSoftRst", "no_soft_reset"), (8, "PME-Enable", "pme_enable")),
                    Field("data_select", "DSel", 9, 4),
                    Field("data_scale", "DScale", 13, 2),
                    flag(15, "PME", "pme_status"),
                ),
            ),
            Register(
                "bridge",
                "Bridge",
                6,
                1,
                (flag(7, "PM", "bus_power_clock_control"), flag(6, "B2", "b2_in_d3hot")),
                when=_is_bridge,
            ),
        ),
    ),
    Structure(
        LTR,
        True,
        (
            Register(
                "max_snoop",
                "Max snoop latency",
                4,
                2,
                (Field("latency_ns", "", 0, 13, _latency, "{}ns"),),
            ),
            Register(
                "max_no_snoop",
                "Max no snoop latency",
                6,
                2,
                (Field("latency_ns", "", 0, 13, _latency, "{}ns"),),
            ),
        ),
    ),
    Structure(
        L1_SUBSTATES,
        True,
        (
            Register(
                "capability",
                "L1SubCap",
                4,
                4,
                (
                    *_SUBSTATES,
                    flag(4, "L1_PM_Substates", "l1_pm_substates"),
                    Field(
                        "common_mode_restore_us",
                        "PortCommonModeRestoreTime",
                        8,
                        8,
                        form="{}us",
                        when=_l12,
                    ),
                    Field("power_on_us", "PortTPowerOnTime", 16, 8, _power_on, "{}us", when=_l12),
                ),
            ),
            Register(
                "control1",
                "L1SubCtl1",
                8,
                4,
                (
                    *_SUBSTATES,
                    Field("common_mode_us", "T_CommonMode", 8, 8, form="{}us", when=_l12),
                    Field("threshold_ns", "LTR1.2_Threshold", 16, 16, _threshold, "{}ns", when=_aspm_l12),
                ),
            ),
            Register(
                "control2",
                "L1SubCtl2",
                12,
                4,
                (Field("power_on_us", "T_PwrOn", 0, 8, _power_on, "{}us"),),
                when=_l12,
            ),
        ),
    ),
)
