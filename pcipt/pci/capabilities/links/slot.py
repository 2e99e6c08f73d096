"""The slot below a port, and the registers of a root: hot plug, power, events.

Source: PCI Express Base 6.0 §7.5.3.9-11 (Slot), §7.5.3.12-14 (Root); PCI-to-PCI Bridge 1.2 §13 (Slot
        Identification).
"""

from pcipt.pci.capabilities.fields import Field, Register, Structure, Value, flag, flags, hexa, one_of
from pcipt.pci.capabilities.ports import root, slot

SLOT_ID, BRIDGE_SUBSYSTEM = 0x04, 0x0D
_INDICATOR = one_of({1: "On", 2: "Blink", 3: "Off"})
_MILLIWATTS = 1000
_FROM_TABLE = 0xF0


def slot_power(raw: int) -> int | None:
    """Return a slot power limit in milliwatts: eight bits of value, two bits of scale.

    With scale 0 the values from f0 on are steps of 25 W from 250 W. Return None for the last of them, which
    means "more than 600 W".
    """
    value, scale = raw & 0xFF, raw >> 8
    if scale == 0 and value >= _FROM_TABLE:
        return (250 + 25 * (value - _FROM_TABLE)) * _MILLIWATTS if value < 0xFF else None
    return value * (_MILLIWATTS, 100, 10, 1)[scale]


def watts(value: Value) -> str:
    """Return milliwatts as watts."""
    return f"{value / _MILLIWATTS:g}W" if isinstance(value, int) else "unknown"


SLOT = (
    Register(
        "slot_capability",
        "SltCap",
        0x14,
        4,
        (
            *flags(
                (0, "AttnBtn", "attention_button"),
                (1, "PwrCtrl", "power_controller"),
                (2, "MRL", "latch_sensor"),
                (3, "AttnInd", "attention_indicator"),
                (4, "PwrInd", "power_indicator"),
                (6, "HotPlug", "hot_plug"),
                (5, "Surprise", "surprise"),
            ),
            Field("number", "Slot", 19, 13, form="#{}"),
            Field("power_limit_mw", "PowerLimit", 7, 10, slot_power, watts),
            flag(17, "Interlock", "interlock"),
            flag(18, "NoCompl", "no_command_completed"),
        ),
        when=slot,
    ),
    Register(
        "slot_control",
        "SltCtl",
        0x18,
        2,
        (
            *flags(
                (0, "AttnBtn", "attention_button"),
                (1, "PwrFlt", "power_fault"),
                (2, "MRL", "latch_changed"),
                (3, "PresDet", "presence_changed"),
                (4, "CmdCplt", "command_completed"),
                (5, "HPIrq", "hot_plug_interrupt"),
                (12, "LinkChg", "link_changed"),
            ),
            Field("attention_indicator", "AttnInd", 6, 2, _INDICATOR),
            Field("power_indicator", "PwrInd", 8, 2, _INDICATOR),
            flag(10, "Power", "power_off"),
            flag(11, "Interlock", "interlock"),
        ),
        when=slot,
    ),
    Register(
        "slot_status",
        "SltSta",
        0x1A,
        2,
        flags(
            (0, "AttnBtn", "attention_button"),
            (1, "PowerFlt", "power_fault"),
            (5, "MRL", "latch_open"),
            (4, "CmdCplt", "command_completed"),
            (6, "PresDet", "present"),
            (7, "Interlock", "interlock"),
            (2, "MRLChanged", "latch_changed"),
            (3, "PresDetChanged", "presence_changed"),
            (8, "LinkStateChanged", "link_changed"),
        ),
        when=slot,
    ),
)

ROOT = (
    Register("root_capability", "RootCap", 0x1E, 2, (flag(0, "CRSVisible", "retry_visible"),), when=root),
    Register(
        "root_control",
        "RootCtl",
        0x1C,
        2,
        flags(
            (0, "ErrCorrectable", "correctable_errors"),
            (1, "ErrNon-Fatal", "nonfatal_errors"),
            (2, "ErrFatal", "fatal_errors"),
            (3, "PMEIntEna", "pme_interrupt"),
            (4, "CRSVisible", "retry_visible"),
        ),
        when=root,
    ),
    Register(
        "root_status",
        "RootSta",
        0x20,
        4,
        (
            Field("pme_requester", "PME ReqID", 0, 16, hexa(4)),
            flag(16, "PMEStatus", "pme_status"),
            flag(17, "PMEPending", "pme_pending"),
        ),
        when=root,
    ),
)

STRUCTURES = (
    Structure(
        SLOT_ID,
        False,
        (
            Register(
                "slots",
                "Slots",
                2,
                2,
                (
                    Field("count", "Count", 0, 5),
                    flag(5, "First", "first_in_chassis"),
                    Field("chassis", "Chassis", 8, 8, hexa(2)),
                ),
            ),
        ),
    ),
    Structure(
        BRIDGE_SUBSYSTEM,
        False,
        (
            Register(
                "subsystem",
                "Subsystem",
                4,
                4,
                (
                    Field("vendor", "Vendor", 0, 16, hexa(4)),
                    Field("device", "Device", 16, 16, hexa(4)),
                ),
            ),
        ),
    ),
)
