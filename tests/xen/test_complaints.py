"""What Xen complains about on its console: each message of each release, as its source formats it."""

import pytest
from hypothesis import given, settings

from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.xen.complaint_texts import finding_of_complaint
from pcipt.xen.complaints import (
    LASTING,
    SORTS,
    Code,
    Complaint,
    complaint_from,
    drop_words,
    parse_complaints,
    words_of,
)
from pcipt.xen.releases import NEWEST, parse_version
from tests.xen.damaged import damaged

NIC, VF = parse_sbdf("0000:03:00.0"), parse_sbdf("0001:ff:1f.7")

#  the message without Xen's prefix, what it says
MESSAGES = [
    ("d0 0000:03:00.0: init legacy cap 17 fail rc=-17, mask it",
     Complaint(Code.HIDDEN, NIC, kind="legacy", capability=0x11, rc=17)),
    ("d0 0001:ff:1f.7: init extended cap 21 fail rc=-22, mask it",
     Complaint(Code.HIDDEN, VF, kind="extended", capability=0x15, rc=22)),
    ("d[IO] 0000:03:00.0: init legacy cap 5 fail rc=-12, mask it",
     Complaint(Code.HIDDEN, NIC, kind="legacy", capability=5, rc=12)),
    ("d0 0000:03:00.0: hide legacy cap 17 fail rc=-2",
     Complaint(Code.NOT_HIDDEN, NIC, kind="legacy", capability=0x11, rc=2)),
    ("setup of vPCI for d0 failed: -17", Complaint(Code.NO_VPCI, rc=17)),
    ("setup of vPCI for d0 failed: -19", Complaint(Code.NO_VPCI, rc=19)),
    ("setup 0000:03:00.0 for d0 failed (-19)", Complaint(Code.NO_SETUP, NIC, rc=19)),
    # 4.17 to 4.20 have no blank before "type"
    ("d0v1 0000:03:00.0: existing mapping (mfn: 00000000000fe500type: 5) at 0xfe500 clobbers MSIX MMIO area",
     Complaint(Code.MSIX, NIC, at=0xFE500)),
    ("d0v0 0000:03:00.0: existing mapping (mfn: 00000000000fe500 type: 5) at 0xfe500 clobbers MSIX MMIO area",
     Complaint(Code.MSIX, NIC, at=0xFE500)),
    ("DEVICE BUG: 0000:03:00.0: MSI-X vector table with out of range BIR 7", Complaint(Code.MSIX, NIC)),
    ("DEVICE BUG: 0000:03:00.0: MSI-X PBA table at invalid BAR1 with type 0", Complaint(Code.MSIX, NIC)),
    ("DEVICE BUG: 0000:03:00.0: MSI-X vector table offset 0x2000 size 0x800 outside of BAR0 size 0x1000",
     Complaint(Code.MSIX, NIC)),
    ("DEVICE BUG: 0000:03:00.0: MSI-X vector table offset 0 size 0x800 outside of BAR0 size 0",
     Complaint(Code.MSIX, NIC)),
    ("Failed to identity map [fe500, fe503] for d0: -22",
     Complaint(Code.MAP, pages=Frames(Gfn(0xFE500), 4), rc=22)),
    ("Failed to identity unmap [fe500, fe500] for d0: -22",
     Complaint(Code.MAP, pages=Frames(Gfn(0xFE500), 1), kind="un", rc=22)),
    ("Failed to map [fe500 fe503] -> [fe500 fe504] for d0: -12",
     Complaint(Code.MAP, pages=Frames(Gfn(0xFE500), 4), rc=12)),
    ("Failed to unmap [fe500 fe503] -> [fe500 fe504] for d0: -22",
     Complaint(Code.MAP, pages=Frames(Gfn(0xFE500), 4), kind="un", rc=22)),
    ("d0 denied access to MMIO range [0xfee00, 0xfee0f]",
     Complaint(Code.MAP, pages=Frames(Gfn(0xFEE00), 16))),
    ("d0 denied access to MMIO range [0, 0xf]", Complaint(Code.MAP, pages=Frames(Gfn(0), 16))),
    ("d0 XSM denied access to MMIO range [0xfee00, 0xfee0f]: -13",
     Complaint(Code.MAP, pages=Frames(Gfn(0xFEE00), 16), rc=13)),
    ("d0v0 0000:03:00.0: failed to sanitize BAR#2 memory: -22", Complaint(Code.MAP, NIC, bar=2, rc=22)),
    ("0000:03:00.0: not mapping BAR [7f000, 7f00f] invalid position",
     Complaint(Code.MISPLACED, NIC, pages=Frames(Gfn(0x7F000), 16))),
    ("d0v3 0000:03:00.0: ignored BAR 1 write while mapped", Complaint(Code.DROPPED, NIC, bar=1)),
    ("d0v3 0000:03:00.0: ignored ROM BAR write while mapped", Complaint(Code.DROPPED, NIC, kind="ROM")),
    ("d0v0 0000:03:00.0: refuse to resize BAR#2 with memory decoding enabled",
     Complaint(Code.RESIZE, NIC, bar=2)),
    ("[VT-D]INTR-REMAP: Request device [0000:03:00.0] fault index 1f",
     Complaint(Code.INTERRUPT, NIC, at=0x1F)),
    ("AMD-Vi: IO_PAGE_FAULT: 0000:03:00.0 d0 addr 00000000fee00000 flags 0x28 RW I",
     Complaint(Code.INTERRUPT, NIC, at=0xFEE00000)),
    ("AMD-Vi: IO_PAGE_FAULT: 0000:03:00.0 d0 addr 00000000fee00000 flags 0x8 I",
     Complaint(Code.INTERRUPT, NIC, at=0xFEE00000)),
    ("IOMMU: add 0000:03:00.0 failed (-19)", Complaint(Code.IOMMU, NIC, kind="add", rc=19)),
    ("IOMMU: remove 0000:03:00.0 failed (-22)", Complaint(Code.IOMMU, NIC, kind="remove", rc=22)),
    ("d3: assign (0000:03:00.0) failed (-16)", Complaint(Code.ASSIGN, NIC, kind="assign", rc=16)),
    ("d3: assign phantom function (0000:03:00.1) failed (-16)",
     Complaint(Code.ASSIGN, parse_sbdf("03:00.1"), kind="assign", rc=16)),
    ("d[IO]: deassign (0000:03:00.0) failed (-22)", Complaint(Code.ASSIGN, NIC, kind="deassign", rc=22)),
]  # fmt: skip


def told(*lines):
    return list(parse_complaints("".join(f"{line}\n" for line in lines)))


@pytest.mark.parametrize(("message", "expected"), MESSAGES)
@pytest.mark.parametrize("prefix", ["(XEN) ", "(XEN) [2026-01-01 10:00:00] ", "(XEN) [   12.345678] "])
def test_each_message(message, expected, prefix):
    assert told(prefix + message) == [expected]


def test_each_row_has_a_message():
    for sort in SORTS:
        assert [m for m, _ in MESSAGES if sort.pattern.fullmatch(m)], sort.pattern
    for message, expected in MESSAGES:
        assert [s.code for s in SORTS if s.pattern.fullmatch(message)] == [expected.code], message


#  what is no complaint, or whose printer may not be believed
OTHERS = [
    "(d1) d0 0000:03:00.0: init legacy cap 17 fail rc=-17, mask it",  # a guest chooses its text
    "(d1) (XEN) setup of vPCI for d0 failed: -17",
    "setup of vPCI for d0 failed: -17",  # dom0's own output has no prefix
    "(XEN) setup of vPCI for d0 failed: nobody",
    "(XEN) setup of vPCI for d0 failed: -17 and more",
    "(XEN) [VT-D]DMAR:[DMA Write] Request device [0000:03:00.0] fault addr 7fff0000",  # is in dma_faults
    "(XEN) AMD-Vi: IO_PAGE_FAULT: 0000:03:00.0 d0 addr 000000007fff0000 flags 0x20 RW",
    "(XEN) [VT-D]DMAR: reason 06 - PTE Read access is not set",
    "(XEN) [VT-D]DMAR: reason 06 - PTE Read access is not set on iommu:0",  # from 4.23
    "(XEN) [VT-D]DMAR:[DMA Write] Request device [0000:03:20.0] fault addr 0",
    "(XEN) 0000:03:00.0 - d0 - node -1  - MSIs < 28 >",
    "(XEN) memory_map:remove: d0 gfn=fe500 mfn=fe500 nr=4",
    "(XEN) memory_map: error -22 removing d0 access to [fe500,fe503]",
    "(XEN) PCI add device 0000:03:00.0",
    "(XEN) Failed to map [fe503 fe500] -> [fe500 fe504] for nobody: -12",
    "(XEN) AMD-Vi: IVMD: no IOMMU for device 0000:03:00.0 - ignoring constrain",
    "",
]


@pytest.mark.parametrize("line", OTHERS)
def test_what_is_no_complaint(line):
    assert told(line) == []


def test_lines_that_interrupt_each_other():
    lines = ("(XEN) [VT-D]DMAR:[DMA Write] Request device (XEN) setup of vPCI for d0 failed: -17",
             "[0000:03:00.0] fault addr 10")  # fmt: skip
    assert Complaint(Code.NO_VPCI, rc=17) in told(*lines)


def test_complaints_come_in_their_order_among_others():
    many = [f"(XEN) 0000:{n:02x}:00.0 - d0 - node -1 " for n in range(200)]
    lines = [
        *many,
        "(XEN) setup of vPCI for d0 failed: -17",
        *many,
        "(XEN) IOMMU: add 0000:03:00.0 failed (-19)",
    ]
    assert [each.code for each in told(*lines)] == [Code.NO_VPCI, Code.IOMMU]


@settings(max_examples=400)
@given(damaged([message for message, _ in MESSAGES], most=4))
def test_no_text_is_an_error(text):
    found = list(parse_complaints(text))
    assert len(found) <= text.count("(XEN) ")
    for complaint in found:
        assert complaint.rc is None or complaint.rc > 0
        assert complaint.pages is None or complaint.pages.count > 0


def test_pages_in_the_wrong_order_are_left_out():
    assert told("(XEN) Failed to identity map [fe503, fe500] for d0: -22") == [Complaint(Code.MAP, rc=22)]


VERSIONS = [f"{branch}.{patch}" for branch, patch in NEWEST.items()] + ["4.21.0", "4.21.1", "4.19.3-qubes"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("message", [message for message, _ in MESSAGES])
def test_each_has_a_meaning_and_an_end(message, version):
    (complaint,) = told(f"(XEN) {message}")
    finding = finding_of_complaint(complaint, 1, parse_version(version))
    assert finding.code == complaint.code.value
    assert finding.text.startswith("Xen's console: ")
    assert ("resync" in finding.text) is (complaint.code not in LASTING)
    assert "None" not in finding.text
    assert "(3 times)" in finding_of_complaint(complaint, 3, parse_version(version)).text


#  message, version, words of the finding
WORDS = [
    (0, "4.21.0", ("MSI-X", "11h", "Message Control", "File exists", "rescan its bus", "4.21.1 and 4.22.0")),
    (0, "4.21.0-vendor", ("rescan its bus", "4.21.1 and 4.22.0")),
    (0, "4.21.2", ("MSI-X", "Message Control", "rescan its bus")),
    (1, "4.22.0", ("Resizable BAR", "15h", "sizes of its BARs", "Invalid argument")),
    (2, "4.22.0", ("MSI ", "Address and Data")),
    (7, "4.20.4", ("something else is mapped", "rescan its bus")),
    (9, "4.19.5", ("no address of a BAR helps", "no vPCI", "pcipt maps its BARs", "4.21.0")),
    (11, "4.20.4-vendor", ("no address of a BAR helps", "no vPCI")),
    (10, "4.22.0", ("no address of a BAR helps", "hides MSI-X", "MSI or INTx")),
    (13, "4.17.7", ("0xfe500", "does not trap")),
    (13, "4.18.6", ("does not trap",)),
    (15, "4.20.4", ("bind the driver again", "part of its BARs")),
    (25, "4.20.4", ("interrupt 0x1f", "bind the driver again")),
]


@pytest.mark.parametrize(("number", "version", "words"), WORDS)
def test_the_words_of_a_finding(number, version, words):
    text = finding_of_complaint(MESSAGES[number][1], 1, parse_version(version)).text
    assert [word for word in words if word not in text] == [], text


@pytest.mark.parametrize("version", ["4.21.0", "4.21.0-vendor", "4.21.2", "4.22.0"])
def test_an_msix_structure_in_no_bar_is_hidden_whatever_is_done(version):
    """Such as each of a virtual function: to remove it and to rescan its bus changes nothing."""
    (complaint,) = told("(XEN) d0 0000:03:00.0: init legacy cap 17 fail rc=-19, mask it")
    text = finding_of_complaint(complaint, 1, parse_version(version)).text
    assert "MSI or INTx; this Xen never shows MSI-X of virtual functions" in text
    assert "rescan" not in text
    assert "4.21.1" not in text


LAST = [complaint for _, complaint in MESSAGES if complaint.code in LASTING]


@pytest.mark.parametrize("complaint", LAST, ids=str)
def test_what_lasts_can_be_kept_as_text(complaint):
    kept = {words_of(each) for each in LAST}
    assert complaint_from(words_of(complaint)) == complaint
    drop_words(kept, complaint.function)
    assert kept == {words_of(each) for each in LAST if each.function != complaint.function}


@pytest.mark.parametrize(
    "words",
    ["", "setup-failed", "setup-failed 0000:03:00.0 - - - - x", "vpci-map-failed 0000:03:00.0 - - - - 1",
     "setup-failed 0000:03:00.0 - - - - 1 2", "what 0000:03:00.0 - - - - 1"],
)  # fmt: skip
def test_other_text_is_no_complaint(words):
    assert complaint_from(words) is None
