"""The link of PCI Express: speed and width now and possible, and its equalization.

Source: PCI Express Base 6.0 §7.5.3.6-8 (Link), §7.5.3.18-20 (Link 2), §7.7.3 (Secondary PCI Express).
"""

from pcipt.pci.capabilities.fields import (
    Field,
    Register,
    Structure,
    Value,
    View,
    flag,
    flags,
    one_of,
)
from pcipt.pci.capabilities.ports import downstream, faces_down, link, reads_on_boundary, second_link

SECONDARY_EXPRESS = 0x0019
SPEEDS = {1: 2500, 2: 5000, 3: 8000, 4: 16_000, 5: 32_000, 6: 64_000}  # MT/s
_EXIT_L0S = one_of(
    dict(enumerate(("<64ns", "<128ns", "<256ns", "<512ns", "<1us", "<2us", "<4us", "unlimited")))
)
_EXIT_L1 = one_of(dict(enumerate(("<1us", "<2us", "<4us", "<8us", "<16us", "<32us", "<64us", "unlimited"))))
_ASPM = one_of({0: "not supported", 1: "L0s", 2: "L1", 3: "L0s L1"})
_ASPM_ON = one_of({0: "Disabled", 1: "L0s Enabled", 2: "L1 Enabled", 3: "L0s L1 Enabled"})
_DEEMPHASIS = one_of({0: "-6dB", 1: "-3.5dB"})
_HALF = "200-400mV(full-swing)/100-200mV(half-swing)"
_MARGINS = one_of(
    {
        0: "Normal Operating Range",
        1: "800-1200mV(full-swing)/400-700mV(half-swing)",
        2: _HALF,
        3: _HALF,
        4: _HALF,
        5: _HALF,
    }
)
_PRESETS = one_of(
    {
        0: "-6dB de-emphasis, 0dB preshoot",
        1: "-3.5dB de-emphasis, 0dB preshoot",
        2: "-4.4dB de-emphasis, 0dB preshoot",
        3: "-2.5dB de-emphasis, 0dB preshoot",
        4: "0dB de-emphasis, 0dB preshoot",
        5: "0dB de-emphasis, 1.9dB preshoot",
        6: "0dB de-emphasis, 2.5dB preshoot",
        7: "-6.0dB de-emphasis, 3.5dB preshoot",
        8: "-3.5dB de-emphasis, 3.5dB preshoot",
        9: "0dB de-emphasis, 3.5dB preshoot",
    }
)
_CROSSLINK = one_of({0: "unsupported", 1: "Upstream Port", 2: "Downstream Port", 3: "incomplete"})
_PRESENCE = one_of(
    {
        0: "Link Down - Not Determined",
        1: "Link Down - Not Present",
        2: "Link Down - Present",
        4: "Link Up - Present",
        5: "Link Up - Present and DRS Received",
    }
)


def speed_text(value: Value) -> str:
    """Return a speed in MT/s as lspci writes it: "2.5GT/s"."""
    return f"{value / 1000:g}GT/s" if isinstance(value, int) else "unknown"


def _target(raw: int) -> int | None:
    return SPEEDS.get(raw or 1)  # zero means that there is only the lowest speed


def _supported(raw: int) -> list[int]:
    """Return the speeds in the vector, in MT/s, in ascending order."""
    return [speed for bit, speed in SPEEDS.items() if raw >> (bit - 1) & 1]


def _range(value: Value) -> str:
    """Return speeds as a range; a function supports all speeds between the lowest and the highest."""
    speeds = [each for each in value if isinstance(each, int)] if isinstance(value, list) else []
    ends = sorted(
        {f"{speed / 1000:g}": speed for speed in (*speeds[:1], *speeds[-1:])}.items(), key=lambda e: e[1]
    )
    return "-".join(text for text, _ in ends) + "GT/s" if ends else "unknown"


def _exits_l0s(view: View) -> bool:
    return bool(view.bits(0xC, 4, 10, 1))


def _exits_l1(view: View) -> bool:
    return bool(view.bits(0xC, 4, 11, 1))


def _readiness(view: View) -> bool:
    return faces_down(view) and bool(view.bits(0x2C, 4, 31, 1))


def _lanes(raw: int) -> list[int]:
    return [lane for lane in range(32) if raw >> lane & 1]


LINK = (
    Register(
        "link_capability",
        "LnkCap",
        0xC,
        4,
        (
            Field("port", "Port", 24, 8, form="#{}"),
            Field("max_speed", "Speed", 0, 4, SPEEDS.get, speed_text),
            Field("max_width", "Width", 4, 6, form="x{}"),
            Field("aspm", "ASPM", 10, 2, _ASPM),
            Field("l0s_exit_latency", "Exit Latency L0s", 12, 3, _EXIT_L0S, when=_exits_l0s),
            Field("l1_exit_latency", "Exit Latency L1", 15, 3, _EXIT_L1, when=_exits_l1),
            *flags(
                (18, "ClockPM", "clock_power_management"),
                (19, "Surprise", "surprise_down"),
                (20, "LLActRep", "link_active_reporting"),
                (21, "BwNot", "bandwidth_notification"),
                (22, "ASPMOptComp", "aspm_optionality"),
            ),
        ),
        when=link,
    ),
    Register(
        "link_control",
        "LnkCtl",
        0x10,
        2,
        (
            Field("aspm", "ASPM", 0, 2, _ASPM_ON),
            Field(
                "read_completion_boundary",
                "RCB",
                3,
                1,
                one_of({0: 64, 1: 128}),
                "{} bytes",
                when=reads_on_boundary,
            ),
            *flags(
                (4, "Disabled", "disabled"),
                (6, "CommClk", "common_clock"),
                (7, "ExtSynch", "extended_synch"),
                (8, "ClockPM", "clock_power_management"),
                (9, "AutWidDis", "autonomous_width_disable"),
                (10, "BWInt", "bandwidth_interrupt"),
                (11, "AutBWInt", "autonomous_bandwidth_interrupt"),
            ),
        ),
        when=link,
    ),
    Register(
        "link_status",
        "LnkSta",
        0x12,
        2,
        (
            Field("speed", "Speed", 0, 4, SPEEDS.get, speed_text),
            Field("width", "Width", 4, 6, form="x{}"),
            *flags(
                (10, "TrErr", "training_error"),
                (11, "Train", "training"),
                (12, "SlotClk", "slot_clock"),
                (13, "DLActive", "data_link_active"),
                (14, "BWMgmt", "bandwidth_management"),
                (15, "ABWMgmt", "autonomous_bandwidth"),
            ),
        ),
        when=link,
    ),
)

LINK2 = (
    Register(
        "link_capability2",
        "LnkCap2",
        0x2C,
        4,
        (
            Field("supported_speeds", "Supported Link Speeds", 1, 6, _supported, _range),
            *flags(
                (8, "Crosslink", "crosslink"),
                (23, "Retimer", "retimer"),
                (24, "2Retimers", "two_retimers"),
                (31, "DRS", "device_readiness"),
            ),
        ),
        when=second_link,
    ),
    Register(
        "link_control2",
        "LnkCtl2",
        0x30,
        2,
        (
            Field("target_speed", "Target Link Speed", 0, 4, _target, speed_text),
            *flags((4, "EnterCompliance", "enter_compliance"), (5, "SpeedDis", "autonomous_speed_disable")),
            Field("selectable_deemphasis", "Selectable De-emphasis", 6, 1, _DEEMPHASIS, when=downstream),
            Field("transmit_margin", "Transmit Margin", 7, 3, _MARGINS),
            *flags(
                (10, "EnterModifiedCompliance", "enter_modified_compliance"),
                (11, "ComplianceSOS", "compliance_sos"),
            ),
            Field("compliance_preset", "Compliance Preset/De-emphasis", 12, 4, _PRESETS),
        ),
        when=second_link,
    ),
    Register(
        "link_status2",
        "LnkSta2",
        0x32,
        2,
        (
            Field("current_deemphasis", "Current De-emphasis Level", 0, 1, _DEEMPHASIS),
            *flags(
                (1, "EqualizationComplete", "equalization_complete"),
                (2, "EqualizationPhase1", "equalization_phase1"),
                (3, "EqualizationPhase2", "equalization_phase2"),
                (4, "EqualizationPhase3", "equalization_phase3"),
                (5, "LinkEqualizationRequest", "equalization_request"),
                (6, "Retimer", "retimer"),
                (7, "2Retimers", "two_retimers"),
            ),
            Field("crosslink_resolution", "CrosslinkRes", 8, 2, _CROSSLINK),
            flag(15, "DRS", "readiness_received", when=_readiness),
            Field("downstream_component", "DownstreamComp", 12, 3, _PRESENCE, when=_readiness),
        ),
        when=second_link,
    ),
)

STRUCTURES = (
    Structure(
        SECONDARY_EXPRESS,
        True,
        (
            Register(
                "link_control3",
                "LnkCtl3",
                4,
                4,
                flags(
                    (1, "LnkEquIntrruptEn", "equalization_interrupt"),
                    (0, "PerformEqu", "perform_equalization"),
                ),
            ),
            Register("lane_errors", "LaneErrStat", 8, 4, (Field("lanes", "", 0, 32, _lanes),)),
        ),
    ),
)
