"""Lines of trace_pipe, as kernels print them."""

import pytest

from pcipt.errors import MalformedError
from pcipt.pci import Sbdf
from pcipt.pci.write import ConfigWrite, Lost, Writer
from pcipt.watch.kprobe_text import parse_line

CAPTURED = (
    "setpci-394 [000] d..1. 45.838809: conf1: (pci_conf1_write+0x0/0xf0) "
    "seg=0 bus=0 devfn=251 reg=4 len=2 val=3"
)
WRITE = ConfigWrite(Sbdf(0, 0, 0x1F, 3), 4, 2, 3, 45.838809, Writer("setpci", 394), 7)


def line(
    head="setpci-394 [000] d..1. 45.838809", probe="conf1", reg="4", length="2", val="3", devfn="251", bus="0"
):
    return (
        f"{head}: {probe}: (pci_{probe}_write+0x0/0xf0) "
        f"seg=0 bus={bus} devfn={devfn} reg={reg} len={length} val={val}"
    )


def test_the_captured_line():
    assert parse_line(CAPTURED, number=7) == WRITE
    assert parse_line(CAPTURED + "\n", number=7) == WRITE


# what it shows, line, who wrote
COMMANDS = [
    ("padding", line("          setpci-394     [000] d..1.    45.838809"), Writer("setpci", 394)),
    ("spaces", line("my tool v2-17 [011] ..... 1.5"), Writer("my tool v2", 17)),
    ("dashes and digits", line("kworker/0:1-ev-12 [000] d..1. 1.5"), Writer("kworker/0:1-ev", 12)),
    ("a whole line's look", line("a-1 [000]: conf1-99 [000] d..1. 1.5"), Writer("a-1 [000]: conf1", 99)),
    ("idle", line("<idle>-0 [003] d.h1. 1.5"), Writer("<idle>", 0)),
    ("no name", line("-5 [003] d.h1. 1.5"), Writer("", 5)),
    ("thread group", line("setpci-394 (    390) [000] d..1. 45.8"), Writer("setpci", 394)),
    ("thread group not known", line("setpci-394 (-------) [000] d..1. 45.8"), Writer("setpci", 394)),
    ("without irq-info", line("setpci-394 [000] 45.8"), Writer("setpci", 394)),
    ("named by the record", line("<...>-394 [000] d..1. 45.8") + ' comm="setpci"', Writer("setpci", 394)),
    ("a name with quotes", line("<...>-3 [000] d..1. 45.8") + ' comm="a" comm="b"', Writer('a" comm="b', 3)),
    ("a record without name", line("x-3 [000] d..1. 45.8") + ' comm=""', Writer("", 3)),
    (
        "the group before the event",
        line("x-1 [000] d..1. 1.5", probe="mmcfg").replace(": mmcfg", ": pcipt:mmcfg", 1),
        Writer("x", 1),
    ),
]


@pytest.mark.parametrize(("text", "who"), [case[1:] for case in COMMANDS], ids=[case[0] for case in COMMANDS])
def test_command_names(text, who):
    write = parse_line(text)
    assert isinstance(write, ConfigWrite)
    assert write.who == who


def test_numbers_in_both_notations_and_wider_than_the_access():
    assert parse_line(line(devfn="0xfb", reg="0x4", val="0x3"), number=7) == WRITE
    assert parse_line(line(val="0xffffffff00000003"), number=7) == WRITE


def test_own_writes_are_marked():
    write = parse_line(CAPTURED, {394})
    assert isinstance(write, ConfigWrite)
    assert write.own


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("CPU:1 [LOST 5123 EVENTS]", Lost(5123)),
        ("CPU:0 [LOST EVENTS]\n", Lost()),
        ("# tracer: nop", None),
        ("", None),
        ("   \n", None),
    ],
)
def test_other_lines(text, item):
    assert parse_line(text) == item


@pytest.mark.parametrize(
    "text",
    [
        CAPTURED[:-6],  # cut
        CAPTURED + " more=1",
        "setpci-394 [000] d..1. 45.838809: sys_enter: NR 1",
        line(length="3"),
        line(length="0"),
        line(reg="4096"),
        line(reg="4095"),
        line(reg="-1"),
        line(bus="256"),
        line(devfn="256"),
        line(val="0x1ffffffffffffffff"),
        line(val="ff"),
        line(val="9" * 5000),  # more digits than Python turns into a number
    ],
)
def test_what_is_no_line_of_ours(text):
    with pytest.raises(MalformedError) as caught:
        parse_line(text, number=3, source="trace.txt")
    assert (caught.value.source, caught.value.offset) == ("trace.txt", 3)
