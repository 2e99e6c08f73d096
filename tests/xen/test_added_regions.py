"""What rmrr= and ivmd= of Xen's command line add, and what Xen does not take."""

import pytest

from pcipt.pci import parse_sbdf
from pcipt.xen.added_regions import parse_added_regions

A, B = parse_sbdf("0000:00:1d.0"), parse_sbdf("0000:00:1a.0")


def test_what_xens_documentation_shows():
    found = parse_added_regions(
        "rmrr=d5d45=0:0:1d.0;0xd5d46-0xd5d48=0:0:1a.0 ivmd=d5d45=0:1d.0;0xd5d46-0xd5d48=0:1a.0-0:1a.3"
    )
    assert found.rmrr == ((0xD5D45, 0xD5D45, (A,)), (0xD5D46, 0xD5D48, (B,)))
    assert found.ivmd == ((0xD5D45, 0xD5D45, 0xE8, None), (0xD5D46, 0xD5D48, 0xD0, 0xD3))
    assert found.faults == ()


@pytest.mark.parametrize(
    ("line", "count", "words"),
    [
        ("rmrr=7d000-7d00f=0:2.0", 1, None),
        ("rmrr=7d000-7d010=0:2.0", 0, "are not 1 to 16 pages"),
        ("rmrr=7d001-7d000=0:2.0", 0, "are not 1 to 16 pages"),
        ("rmrr=7d000", 0, "names no function"),
        ("rmrr=7d000;7e000=0:2.0", 1, "names no function"),
        ("rmrr=zz=0:2.0", 0, "is no page number"),
        ("rmrr=7d000=0:2", 0, "is no address of a function"),
        ("rmrr=7d000=0:20.0", 0, "is no address of a function"),
        ("rmrr=7d000=0:2.8", 0, "is no address of a function"),
        ("rmrr=7d000=0:2.0/7e000=0:3.0", 1, "is not understood"),
        ("rmrr=7d000=0:2.0;zz", 1, "is no page number"),
        (" ".join(f"rmrr=7d0{n:02x}=0:2.0" for n in range(11)), 10, "more than 10 regions"),
        ("rmrr=1=" + ",".join(["0:1.0"] * 20), 1, None),
        ("-- rmrr=zz", 0, None),
        ("no-rmrr rmrr", 0, None),
    ],
)
def test_the_limits_of_rmrr(line, count, words):
    found = parse_added_regions(line)
    assert len(found.rmrr) == count
    assert [words in each for each in found.faults] == ([] if words is None else [True])


@pytest.mark.parametrize(
    ("line", "expected", "words"),
    [
        ("ivmd=7d000-7dfff", [(0x7D000, 0x7DFFF, None, None)], None),
        ("ivmd=7d000=0:2.0,0:3.0", [(0x7D000, 0x7D000, 0x10, None), (0x7D000, 0x7D000, 0x18, None)], None),
        ("ivmd=7d000=0:2.0-0:2.0", [(0x7D000, 0x7D000, 0x10, 0x10)], None),
        ("ivmd=7d001-7d000", [], "end before they begin"),
        ("ivmd=7d000=0:2.1-0:2.0", [], "end before they begin"),
        ("ivmd=7d000=1:0:2.0", [], "is not in segment 0"),
        ("ivmd=7d000=0:2.0,1:0:2.0", [(0x7D000, 0x7D000, 0x10, None)], "is not in segment 0"),
        (" ".join(["ivmd=1=0:2.0"] * 9), [(1, 1, 0x10, None)] * 8, "more than 8 regions"),
    ],
)
def test_the_limits_of_ivmd(line, expected, words):
    found = parse_added_regions(line)
    assert list(found.ivmd) == expected
    assert [words in each for each in found.faults] == ([] if words is None else [True])


def test_a_segment_of_rmrr_counts_for_the_functions_that_follow():
    ((_, _, functions),) = parse_added_regions("rmrr=7d000=2:0:1d.0,0:1a.0,0:0:1a.0").rmrr
    assert [each.segment for each in functions] == [2, 2, 0]


def test_functions_before_a_fault_stay_for_the_next_option():
    """Xen does not clear what it has of a region that it gave up."""
    found = parse_added_regions("rmrr=7d000=0:1d.0,bad rmrr=7e000=0:1a.0")
    assert found.rmrr == ((0x7E000, 0x7E000, (A, B)),)
    assert len(found.faults) == 1


def test_an_option_that_xen_cuts_is_said():
    line = "rmrr=" + ";".join(f"{0x7D000 + n:x}=0:1d.0" for n in range(10))
    found = parse_added_regions(line)
    assert len(found.rmrr) == 9
    assert "Xen cuts the option after 127 bytes" in found.faults[-1]


def test_a_region_has_20_functions_at_most():
    line = "rmrr=1=0:2.0,bad rmrr=1=" + ",".join(["0:1.0"] * 20)
    found = parse_added_regions(line)
    assert [len(functions) for _, _, functions in found.rmrr] == [20]
    assert "',0:1.0' is not understood" in found.faults[1]
