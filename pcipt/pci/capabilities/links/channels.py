"""Virtual Channel, both kinds: how a port arbitrates, and one register for each channel.

Source: PCI Express Base 6.0 §7.9.1 (Virtual Channel).
"""

from collections.abc import Iterator

from pcipt.pci.capabilities.fields import (
    Field,
    Register,
    Structure,
    View,
    flag,
    flags,
    hexa,
    one_of,
    plus,
    power_of_two,
)

CHANNEL, CHANNEL_WITH_FUNCTIONS = 0x0002, 0x0009
_PORT_ARBITERS = ("Fixed", "WRR32", "WRR64", "WRR128")
_CHANNEL_ARBITERS = (*_PORT_ARBITERS, "TWRR128", "WRR256")
_FIRST, _SIZE = 0x10, 12  # bytes: where the first channel is, and how far apart they are
_CONTROL, _STATUS = 32, 80  # bits: where control and status of a channel begin
_CHANNEL_FIELDS = (
    Field("table_offset", "PATOffset", 24, 8, hexa(2)),
    Field("max_time_slots", "MaxTimeSlots", 16, 7, plus(1)),
    flag(15, "RejSnoopTrans", "rejects_snoop"),
    *flags(*((bit, word, word.lower()) for bit, word in enumerate(_CHANNEL_ARBITERS))),
    flag(_CONTROL + 31, "Enable", "enable"),
    Field("id", "ID", _CONTROL + 24, 3),
    Field("arbiter", "ArbSelect", _CONTROL + 17, 3, one_of(dict(enumerate(_CHANNEL_ARBITERS)))),
    Field("traffic_classes", "TC/VC", _CONTROL, 8, hexa(2)),
    *flags((_STATUS + 1, "NegoPending", "negotiates"), (_STATUS, "InProgress", "loads_table")),
)
_PORT = (
    Register(
        "capability",
        "Caps",
        4,
        4,
        (
            Field("low_priority_channels", "LPEVC", 4, 3),
            Field("reference_clock_ns", "RefClk", 8, 2, one_of({0: 100}), "{}ns"),
            Field("table_entry_bits", "PATEntryBits", 10, 2, power_of_two()),
        ),
    ),
    Register(
        "arbitration",
        "Arb",
        8,
        4,
        flags(*((bit, word, word.lower()) for bit, word in enumerate(_PORT_ARBITERS))),
    ),
    Register(
        "control",
        "Ctrl",
        12,
        2,
        (Field("arbiter", "ArbSelect", 1, 3, one_of(dict(enumerate(_PORT_ARBITERS)))),),
    ),
    Register("status", "Status", 14, 2, (flag(0, "InProgress", "loads_table"),)),
)


def _registers(view: View) -> Iterator[Register]:
    """Yield the registers of the port, then one for each channel: channel 0 and the extended ones."""
    yield from _PORT
    for number in range(1 + view.bits(4, 4, 0, 3)):
        yield Register("channels", f"VC{number}", _FIRST + _SIZE * number, _SIZE, _CHANNEL_FIELDS, many=True)


STRUCTURES = tuple(Structure(each, True, _registers) for each in (CHANNEL, CHANNEL_WITH_FUNCTIONS))
