"""What Xen prints when an IOMMU refuses DMA: each line of both vendors, and what is not believed."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pcipt.pci import parse_sbdf
from pcipt.xen.dma_faults import Cause, Fault, Hearing, hearing_of, parse_faults
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from tests.xen.damaged import damaged
from tests.xen.devices import device

NIC, VF = parse_sbdf("0000:03:00.0"), parse_sbdf("0001:ff:1f.7")
WRITE = "[VT-D]DMAR:[DMA Write] Request device [0000:03:00.0] fault addr 7fff0000"
READ = "[VT-D]DMAR:[DMA Read] Request device [0001:ff:1f.7] fault addr 0"
AMD = "AMD-Vi: IO_PAGE_FAULT: 0000:03:00.0 d0 addr 000000007fff0010 flags 0x20 RW"
WRITTEN = Fault(NIC, "write", 0x7FFF_0000)

#  the lines without Xen's prefix, what they say
LINES = [
    ([WRITE], WRITTEN),
    ([WRITE, "[VT-D]DMAR: reason 05 - PTE Write access is not set"],
     Fault(NIC, "write", 0x7FFF_0000, Cause.PAGE)),
    ([READ, "[VT-D]DMAR: reason 06 - PTE Read access is not set"], Fault(VF, "read", 0, Cause.PAGE)),
    ([READ, "[VT-D]DMAR: reason 06 - PTE Read access is not set on iommu:1"],  # from 4.23 on
     Fault(VF, "read", 0, Cause.PAGE)),
    ([WRITE, "[VT-D]DMAR: reason 02 - Present bit in context entry is clear"],
     Fault(NIC, "write", 0x7FFF_0000, Cause.ENTRY)),
    ([WRITE, "[VT-D]DMAR: reason 04 - Access beyond MGAW"], Fault(NIC, "write", 0x7FFF_0000, Cause.LIMIT)),
    ([WRITE, "[VT-D]DMAR: reason 0c - non-zero reserved fields in PTE"],
     Fault(NIC, "write", 0x7FFF_0000, Cause.TABLES)),
    (["[VT-D]UNKNOWN: Request device [0000:03:00.0] fault addr 10", "[VT-D]UNKNOWN: reason 71 - Unknown"],
     Fault(NIC, "", 0x10)),
    ([AMD], Fault(NIC, "write", 0x7FFF_0010, Cause.PAGE)),
    (["AMD-Vi: IO_PAGE_FAULT: 0000:03:00.0 d32754 addr 0000000000000000 flags 0"],
     Fault(NIC, "read", 0, Cause.PAGE)),
    (["AMD-Vi: IO_PAGE_FAULT: 0001:ff:1f.7 d3 addr ffffffffffffffff flags 0xe77 ?? PE RW PR US NX GN"],
     Fault(VF, "write", (1 << 64) - 1, Cause.PAGE)),
    (["ILLEGAL_DEV_TABLE_ENTRY 00000300 20000000 7fff0000 00000001"],
     Fault(NIC, "", 0x1_7FFF_0000, Cause.ENTRY)),
    (["INVALID_DEV_REQUEST 00000300 80000000 fdf00000 000000fd"],
     Fault(NIC, "", 0xFD_FDF0_0000, Cause.ENTRY)),
    (["PAGE_TABLE_HW_ERROR 00000300 40000000 00001000 00000000"], Fault(NIC, "", 0x1000, Cause.TABLES)),
    (["DEV_TABLE_HW_ERROR 00000300 30000000 00001000 00000000"], Fault(NIC, "", 0x1000, Cause.TABLES)),
]  # fmt: skip


def told(*lines):
    return list(parse_faults("".join(f"{line}\n" for line in lines)))


@pytest.mark.parametrize(("lines", "expected"), LINES)
@pytest.mark.parametrize("prefix", ["(XEN) ", "(XEN) [2026-01-01 10:00:00] ", "(XEN) [   12.345678] "])
def test_each_line(lines, expected, prefix):
    assert told(*(prefix + line for line in lines)) == [expected]


@pytest.mark.parametrize(("lines", "expected"), LINES)
def test_a_line_that_interrupts_another_line_of_xen(lines, expected):
    first, *more = lines
    text = [f"(XEN) 0000:02:00.0 - d0 - node -1 (XEN) {first}", *(f"(XEN) {line}" for line in more)]
    assert told(*text, " - MSIs < 28 >") == [expected]


#  what is no refused DMA, or whose printer may not be believed
OTHERS = [
    f"(d1) {WRITE}",  # a guest chooses its text
    f"(d1) (XEN) {WRITE}",
    f"(d1) {AMD}",
    f"(d12) x (XEN) {AMD}",
    f"(XEN) d1v0 {WRITE}",  # Xen's own line about a guest
    f"(XEN) d1v0 {AMD}",
    f"(XEN) HVM1 save: {WRITE}",
    WRITE,  # dom0's own output has no prefix
    AMD,
    f"(XEN) {WRITE} and more",
    f"(XEN) {AMD}; more",
    "(XEN) [VT-D]DMAR:[DMA Write] Request device [0000:03:20.0] fault addr 0",
    "(XEN) [VT-D]DMAR: reason 06 - PTE Read access is not set",  # alone, it is about nobody
    "(XEN) [VT-D]INTR-REMAP: Request device [0000:03:00.0] fault index 1f",
    "(XEN) AMD-Vi: IO_PAGE_FAULT: 0000:03:00.0 d0 addr 00000000fee00000 flags 0x8 I",  # an interrupt
    "(XEN) ILLEGAL_COMMAND_ERROR 00000300 50000000 00001000 00000000",  # Xen's own commands
    "(XEN) COMMAND_HW_ERROR 00000300 60000000 00001000 00000000",
    "(XEN) IOTLB_INV_TIMEOUT 00000300 70000000 00001000 00000000",
    "(XEN) event 00000300 f0000000 00001000 00000000",
    "(XEN) EAX 00000300 f0000000 00001000 00000000",
    "",
]


@pytest.mark.parametrize("line", OTHERS)
def test_what_is_no_refused_dma(line):
    assert told(line) == []


def test_a_reason_is_not_given_to_another_access():
    """Xen leaves messages out: the first reason and the second access were not printed."""
    text = (f"(XEN) {WRITE}", "(XEN) printk: 2 messages suppressed.", "(XEN) [VT-D]DMAR: reason 02 - x")
    assert told(*text) == [WRITTEN]
    text = (f"(XEN) {WRITE}", f"(XEN) {AMD}", "(XEN) [VT-D]DMAR: reason 02 - x")
    assert [fault.cause for fault in told(*text)] == [Cause.UNTOLD, Cause.PAGE]


def test_a_guests_line_between_access_and_reason_changes_nothing():
    text = (f"(XEN) {WRITE}", "(d1) [VT-D]DMAR: reason 02 - x", "(XEN) [VT-D]DMAR: reason 05 - x")
    assert told(*text) == [Fault(NIC, "write", 0x7FFF_0000, Cause.PAGE)]


@settings(max_examples=300)
@given(damaged([line for group, _ in LINES for line in group], most=5))
def test_no_text_is_an_error(text):
    found = list(parse_faults(text))
    assert len(found) <= text.count("(XEN) ")
    assert all(0 <= fault.at < 1 << 64 for fault in found)


@settings(max_examples=300)
@given(st.text(st.characters(codec="ascii", exclude_characters="\n")), st.sampled_from(LINES))
def test_no_text_of_a_guest_is_believed(before, case):
    """Whatever a guest prints stands behind its prefix, and has no line end in it (guest_console_write)."""
    for line in case[0]:
        assert told(f"(d7) {before}{line}", f"(d7) (XEN) {line}", f"(d7) {before}(XEN) {line}") == []


def test_ten_thousand_accesses_are_parsed_in_less_than_two_seconds():
    lines = [f"(XEN) {WRITE}", "(XEN) [VT-D]DMAR: reason 05 - x"] * 10_000
    began = time.process_time()
    assert len(told(*lines)) == 10_000
    assert time.process_time() - began < 2.0


BELIEVED, FORGED = Hearing(believed=True, vtd=True), "console_to_ring is on Xen's command line"
#  command line, what was built into Xen, what may be heard
HEARINGS = [
    ("console=com1 dom0=pvh", "", BELIEVED),
    ("", "", BELIEVED),
    ("console_to_ring", "", Hearing(believed=False, vtd=True, why=FORGED)),
    ("console_to_ring=yes", "", Hearing(believed=False, vtd=True, why=FORGED)),
    ("console_to_ring=off", "", BELIEVED),
    ("no-console_to_ring", "", BELIEVED),
    ("no-console_to_ring=off", "", Hearing(believed=False, vtd=True, why=FORGED)),  # as Xen reads it
    ("console_to_ring no-console_to_ring", "", BELIEVED),
    ("console_to_ring=perhaps", "", BELIEVED),
    ("console-to-ring", "", BELIEVED),  # is another word to Xen
    ("dom0=pvh -- console_to_ring", "", BELIEVED),  # is dom0's
    ("", "console_to_ring", Hearing(believed=False, vtd=True, why=FORGED)),
    ("no-console_to_ring", "console_to_ring", BELIEVED),
    (None, "", Hearing(believed=False, vtd=True, why="Xen does not tell its command line")),
    ("guest_loglvl=none", "", Hearing(True, False, "guest_loglvl=none is on Xen's command line")),
    ("guest_loglvl=error", "", Hearing(True, False, "guest_loglvl=error is on Xen's command line")),
    ("guest_loglvl=error/warning", "", BELIEVED),
    ("guest_loglvl=none/all", "", BELIEVED),
    ("guest_loglvl=warning", "", BELIEVED),
    ("guest_loglvl=all", "", BELIEVED),
    ("guest_loglvl=none guest_loglvl=all", "", BELIEVED),
    ("loglvl=none", "", BELIEVED),  # is about Xen's own messages
]


@pytest.mark.parametrize(("line", "built_in", "expected"), HEARINGS)
def test_what_may_be_heard(line, built_in, expected):
    text = f"(XEN) Built-in command line: {built_in}\n" if built_in else "(XEN) Xen version 4.20\n"
    assert hearing_of(line, f"(XEN) x\n{text}(d1) Built-in command line: console_to_ring\n") == expected


def test_hearings_are_held_against_the_levels_of_the_simulated_xen():
    """What `hearing_of` says of guest_loglvl is what the model of printk prints."""
    for line, built_in, expected in HEARINGS:
        if line is None or built_in:
            continue
        xen = SimulatedXen(BusHardware([device("03:00.0", command=6)]), command_line=line)
        xen.dma.access(NIC, 0x7FFF_0000, write=True)
        assert bool(list(parse_faults(xen.console()))) is expected.vtd, line
