import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.pci import Sbdf, parse_sbdf
from pcipt.pci.address import LIMITS
from pcipt.pci.notation.meant import MOST, nearest, suggestions

MACHINE = ["00:00.0", "00:1f.0", "00:1f.3", "01:00.0", "01:00.1", "10:00.0", "0001:02:00.0", "10000:01:00.0"]
EXISTING = [parse_sbdf(text) for text in MACHINE]

NEAREST = [
    # typed, existing, meant
    ("02:00.1", ["00:00.0", "02:00.0", "03:00.0"], "02:00.0"),
    ("00:1f.7", ["00:1f.0", "00:1f.6", "00:17.7"], "00:1f.6"),
    ("0001:00:00.0", ["00:00.0"], "00:00.0"),  # another segment
    ("10000:00:00.0", ["10001:00:00.0", "00:00.0"], "10001:00:00.0"),
    ("20:00.0", ["00:00.0", "02:00.0", "1f:00.0"], None),  # another bus is never meant
    ("00:1f.3", ["00:1e.3"], None),
    ("00:00.0", [], None),
]


@pytest.mark.parametrize(("typed", "existing", "meant"), NEAREST)
def test_the_nearest_has_the_same_bus_and_device(typed, existing, meant):
    found = nearest(map(parse_sbdf, existing), parse_sbdf(typed))
    assert found == (parse_sbdf(meant) if meant is not None else None)


MEANT = [
    # typed, what is suggested
    ("01:00:0", ["01:00.0"]),  # a colon for the point
    ("0000:01:00:0", ["01:00.0"]),
    ("0000:01:00:1", ["01:00.1"]),
    ("01.00.1", ["01:00.1"]),
    ("0000.01.00.1", ["01:00.1"]),
    ("01:00,1", ["01:00.1"]),
    ("01-00-1", ["01:00.1"]),
    ("0000_01_00_1", ["01:00.1"]),
    ("01:00.7", ["01:00.1"]),
    ("01:00.9", ["01:00.0"]),  # no function can be 9
    ("01:00.x", ["01:00.0"]),
    ("0000:01:00.0 VGA compatible controller", ["01:00.0"]),
    ("nvme 0000:01:00.1: enabling device", ["01:00.1"]),
    ("pci = [ '01:00.0', '01:00.1@5' ]", ["01:00.0", "01:00.1"]),
    ("0/0000:01:00.0,0/0000:01:00.1", ["01:00.0", "01:00.1"]),
    (" 01:00.0", ["01:00.0"]),
    ("01:00.0 ", ["01:00.0"]),
    ("0002:02:00.0", ["0001:02:00.0"]),
    ("PCI:1:0", ["01:00.0"]),  # never 00:01.0
    ("PCI:1:0:5", ["01:00.1"]),
    ("PCI:10:0", []),  # decimal for Xorg: bus 0a
    ("pci_0000_01_00_7", ["01:00.1"]),
    ("zz:1f.3", ["00:1f.3"]),  # the only one with that device and function
    ("zz:00.0", []),  # four have them
    ("00:22.0", []),  # 22 was readable, and no function has it
    ("00:1e.0", []),
    ("02:00.*", ["0001:02:00.0"]),
    ("0002:02:00", ["0001:02:00.0"]),  # segment, bus, device
    ("0002:01:00", ["01:00.0"]),  # bus 01, never bus 02
    ("0000:02:00", ["0001:02:00.0"]),
    ("0001:00:02", []),
    ("0:00:1f", ["00:1f.0"]),  # no function can be 1f, a device can
    ("00:1f:9", ["00:1f.0"]),
    ("09:00.*", []),
    ("00_1c.0-00_05.0", []),  # the bridge above is not what was meant
    ("00_1f.0-00:00.0", []),
    ("\uff10\uff11:00.0", []),  # digits of full width are not readable
    ("\uff10\uff11:1f.3", ["00:1f.3"]),
    ("01:\uff10\uff10.0", ["01:00.0"]),  # the only one of bus 01 with function 0
    ("xyz", []),
    ("", []),
    ("1", []),
    ("a:b:c:d:e", []),
    ("f" * 9000, []),
    (":" * 9000, []),
    ("01:00.0 " * 2000, ["01:00.0"]),
]


@pytest.mark.parametrize(("typed", "meant"), MEANT, ids=lambda each: str(each)[:30])
def test_what_was_readable_is_kept(typed, meant):
    assert suggestions(EXISTING, typed) == tuple(map(parse_sbdf, meant))


SBDFS = st.builds(Sbdf, *(st.integers(0, limit) for limit in LIMITS.values()))


@given(st.lists(SBDFS, max_size=30), SBDFS, st.sampled_from(":._-,/ "))
def test_with_any_separators_nothing_else_is_suggested(existing, meant, separator):
    text = separator.join(
        (f"{meant.segment:04x}", f"{meant.bus:02x}", f"{meant.device:02x}", f"{meant.function}")
    )
    found = suggestions([*existing, meant], text)
    assert found == (meant,)
    assert all(sbdf[1:3] == meant[1:3] for sbdf in suggestions(existing, text))


@given(st.lists(SBDFS, max_size=30), st.text(max_size=60))
def test_any_text_gets_few_suggestions_and_no_error(existing, text):
    found = suggestions(existing, text)
    assert len(found) <= MOST
    assert set(found) <= set(existing)
