"""What the kernel's log has told of BARs: sizes by address, of a bounded number of functions."""

from pcipt.pci import Sbdf
from pcipt.pci.notation.read_log import LONGEST, MOST, ReadLog
from tests.engine.kernel_log import Log
from tests.engine.stage import S

NIC, OTHER = S("02:00.0"), S("03:00.0")


def test_lines_that_somebody_else_has_read_still_tell_the_sizes():
    log = Log()
    read = ReadLog(log.read)
    log.found(NIC, [0x2_0000, 0x4000])
    log.assigned(NIC, 0, 0xFE20_0000, 0x2_0000)
    assert [line.sbdf for line in read.read().lines] == [NIC] * 4
    log.assigned(NIC, 1, 0xFE28_0000, 0x4000)
    assert read.sizes(NIC) == {(0, 0xFE20_0000): 0x2_0000, (1, 0xFE28_0000): 0x4000}
    assert read.read().lines == ()
    assert read.sizes(OTHER) == {}


def test_of_two_sizes_at_one_address_the_larger_counts():
    log = Log()
    for size in (0x4000, 0x8000, 0x1000):
        log.assigned(NIC, 0, 0xFE20_0000, size)
    assert ReadLog(log.read).sizes(NIC) == {(0, 0xFE20_0000): 0x8000}


def test_what_was_told_first_is_forgotten_first():
    log = Log()
    functions = [Sbdf(0, bus, device, 0) for bus in range(8) for device in range(32)][: MOST + 1]
    for sbdf in (*functions, functions[1]):
        log.assigned(sbdf, 0, 0xFE20_0000, 0x1000)
    read = ReadLog(log.read)
    assert read.sizes(functions[0]) == {}
    assert read.sizes(functions[1]) == read.sizes(functions[-1]) == {(0, 0xFE20_0000): 0x1000}
    for number in range(LONGEST + 1):
        log.assigned(NIC, 0, 0xFE20_0000 + 0x1000 * number, 0x1000)
    assert [start for _, start in read.sizes(NIC)] == [
        0xFE20_0000 + 0x1000 * n for n in range(1, LONGEST + 1)
    ]


def test_a_host_without_a_log_tells_nothing():
    read = ReadLog(lambda: None)
    assert (read.read(), read.sizes(NIC)) == (None, {})
