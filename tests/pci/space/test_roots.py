"""The windows of root buses in Linux's memory map."""

from pcipt.pci.space.roots import roots_of_lines
from pcipt.pci.units import Range

LINES = [
    # as /proc/iomem has them: a window, what is in it, what is in that, another window, a segment of VMD
    (Range(0x10_0000, 0x7FF0_0000), "System RAM", 0),
    (Range(0x8000_0000, 0x1000_0000), "PCI Bus 0000:00", 0),
    (Range(0x8000_0000, 0x20_0000), "PCI Bus 0000:01", 1),
    (Range(0x8000_0000, 0x1000), "0000:01:00.0", 2),
    (Range(0x8800_0000, 0x800_0000), "PCI MMCONFIG 0000 [bus 00-7f]", 1),
    (Range(0x40_0000_0000, 0x1000), "PCI Bus 0000:00", 0),
    (Range(0x50_0000_0000, 0x1000), "PCI Bus 10000:e0", 0),
]


def test_each_line_of_a_bus_is_a_window_with_what_is_directly_in_it():
    assert roots_of_lines(iter(LINES)) == {
        (0, 0): [
            (
                Range(0x8000_0000, 0x1000_0000),
                (Range(0x8000_0000, 0x20_0000), Range(0x8800_0000, 0x800_0000)),
            ),
            (Range(0x40_0000_0000, 0x1000), ()),
        ],
        (0, 1): [(Range(0x8000_0000, 0x20_0000), (Range(0x8000_0000, 0x1000),))],
        (0x10000, 0xE0): [(Range(0x50_0000_0000, 0x1000), ())],
    }


def test_without_such_lines_nothing_is_known():
    assert roots_of_lines([]) == roots_of_lines(LINES[:1]) == {}
