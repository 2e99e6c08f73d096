import pytest

from pcipt.pci.write import EcamRegion, Writer


@pytest.mark.parametrize(
    ("region", "first", "end"),
    [
        (EcamRegion(0xB000_0000), 0xB000_0000, 0xC000_0000),
        (EcamRegion(0xE000_0000, end_bus=0x7F), 0xE000_0000, 0xE800_0000),
        (EcamRegion(0xE000_0000, 1, 0x80, 0xFF), 0xE800_0000, 0xF000_0000),  # the base is that of bus 0
        (EcamRegion(2**40, start_bus=5, end_bus=5), 2**40 + 0x50_0000, 2**40 + 0x60_0000),
    ],
)
def test_ecam_gives_every_bus_a_mebibyte(region, first, end):
    assert (region.first, region.end) == (first, end)


@pytest.mark.parametrize(
    ("writer", "shown"),
    [(Writer("setpci", 394), "setpci-394"), (Writer(vcpu=1), "vcpu1"), (Writer("a-b", 0), "a-b-0")],
)
def test_a_writer_is_named_as_traces_name_it(writer, shown):
    assert str(writer) == shown
