"""BARs that make vPCI fail, forget, or take the host down: what pcipt tells and undoes, by release."""

import pytest

from pcipt.remap.desired import By
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.releases import MSIX_CHECKED
from pcipt.xen.simulated.model import Catastrophe
from tests.engine.stage import BusStage, S, codes, compare, right, settled, told
from tests.xen.devices import device
from tests.xen.truth import mapped_pages, p2m_truth
from tests.xen.versions import VERSIONS, version_of

RELEASES = [
    (4, 17, 7),
    (4, 18, 6),
    (4, 19, 0),
    (4, 19, 6),
    (4, 20, 0),
    (4, 20, 4),
    (4, 21, 0),
    (4, 21, 2),
    (4, 22, 0),
]
NIC, COMMAND, OVER_RAM = "00:05.0", 0x4, 0x20_0000
BAR0, BAR1, FREE = 0xC000_0000, 0xC010_0000, 0xC020_0000
TELLING = {"decode-refused", "bar-at-the-end", "rom-over-bar", "bar-write-ignored"}


def since(*first):
    return [version for version in RELEASES if version >= first]


def staged(version, *bars, **more):
    return BusStage([device(NIC, *bars, **more)], version=version, dom0="pvh")


def told_of(engine):
    return codes(engine) & TELLING


def text_of(engine, code):
    return next(finding.text for _, finding in engine.findings if finding.code == code)


# Both halves of a 64-bit BAR all ones (O4).


@pytest.mark.parametrize("version", RELEASES)
def test_a_bar_that_a_sizing_left_with_all_ones_is_told_before_decode_takes_the_host_down(version):
    stage = staged(version, (BAR0, 0x4000), (0x4_0000_0000, 0x4000, "64"), command=0)
    engine = settled(stage)
    assert told_of(engine) == set()
    for offset in (0x14, 0x18):
        stage.write(NIC, offset, 4, 0xFFFF_FFFF)
    stage.settle(engine)
    compare(engine)
    assert told_of(engine) == {"bar-at-the-end"}
    assert "BAR 1" in text_of(engine, "bar-at-the-end")
    assert stage.xen.changes == ()
    with pytest.raises(Catastrophe):
        stage.write(NIC, COMMAND, 2, 2)


def test_a_usual_sizing_is_not_told():
    stage = staged((4, 20, 4), (BAR0, 0x4000), (0x4_0000_0000, 0x4000, "64"), command=0)
    engine = settled(stage)
    for offset, value in ((0x14, 0xFFFF_FFFF), (0x18, 0xFFFF_FFFF), (0x14, 4), (0x18, 4)):
        stage.write(NIC, offset, 4, value)
    stage.settle(engine)
    assert told_of(engine) == set()


# An own ROM over an own BAR (O12).


@pytest.mark.parametrize("version", RELEASES)
def test_a_page_that_the_own_rom_takes_out_is_mapped_again(version):
    stage = staged(version, (BAR0, 0x4000), rom=(BAR1 | 0, 0x1000))
    engine = settled(stage)
    stage.write(NIC, 0x30, 4, BAR0 | 1)
    stage.settle(engine)
    assert ("rom-over-bar" in codes(engine)) is (version >= (4, 19, 0))
    right(stage)
    stage.write(NIC, 0x30, 4, 0)
    missing, _ = p2m_truth(stage.hardware, stage.xen).mistakes(mapped_pages(stage.xen))
    assert bool(missing) is (version >= (4, 19, 0))
    outcomes = told(stage.settle(engine))
    assert outcomes == ([("map-mmio", f"0000:{NIC}", "done")] if version >= (4, 19, 0) else [])
    right(stage)
    assert told_of(engine) == set()
    assert {run.by for run in engine.ledger.mapped} == {By.XEN}
    stage.write(NIC, COMMAND, 2, 0)
    stage.settle(engine)
    right(stage)


# vPCI refuses to switch decode on.


@pytest.mark.parametrize("version", RELEASES)
def test_an_msix_table_over_ram_keeps_decode_off(version):
    stage = staged(version, (BAR0, 0x4000), (BAR1, 0x4000), msix=(1, 0, 0x800), command=0)
    engine = settled(stage)
    stage.write(NIC, 0x14, 4, OVER_RAM)
    stage.settle(engine)
    assert told_of(engine) == set()  # nobody has asked for decode yet
    stage.write(NIC, COMMAND, 2, 2)
    assert len(mapped_pages(stage.xen)) == 4  # vPCI has mapped BAR 0 before it failed, and forgets it
    stage.settle(engine)
    assert told_of(engine) == {"decode-refused"}
    right(stage)
    text = text_of(engine, "decode-refused")
    assert "MSI-X table lies over RAM" in text
    lasting = version >= (4, 21, 2)
    assert ("ignores all writes to the BARs" in text) is lasting
    stage.write(NIC, COMMAND, 2, 0)
    stage.write(NIC, 0x14, 4, FREE)
    stage.settle(engine)
    assert (told_of(engine) == {"decode-refused"}) is lasting
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(engine)
    compare(engine)
    assert stage.hardware.decodes_memory(S(NIC)) is not lasting
    assert (told_of(engine) == {"decode-refused"}) is lasting
    right(stage)
    if lasting:  # the cure
        raw = device(NIC, (0, 0x4000), (0, 0x4000), msix=(1, 0, 0x800), command=0)
        stage.pull(NIC)
        stage.settle(engine)
        stage.plug(raw)
        for offset, value in ((0x10, BAR0), (0x14, FREE), (COMMAND, 2)):
            stage.write(NIC, offset, 4 if offset != COMMAND else 2, value)
        stage.settle(engine)
        compare(engine)
        assert stage.hardware.decodes_memory(S(NIC))
        assert told_of(engine) == set()
        right(stage)


@pytest.mark.parametrize("version", [each for each in VERSIONS if not MSIX_CHECKED.of(version_of(*each))])
@pytest.mark.parametrize("command", [0, 2])
def test_an_msix_table_in_no_bar_keeps_decode_off(version, command):
    """As of an integrated SATA controller: such a Xen looks for the table at page 0, which is RAM.

    If decode was on when Xen booted, its pages are mapped, and left.
    """
    stage = staged(version, (BAR0, 0x4000), msix=(5, 0, 0x800), command=command)
    assert len(mapped_pages(stage.xen)) == 2 * command
    engine = settled(stage)
    assert told_of(engine) == {"decode-refused"}
    right(stage)
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(engine)
    assert not stage.hardware.decodes_memory(S(NIC))
    assert told_of(engine) == {"decode-refused"}
    assert "lies in no BAR" in text_of(engine, "decode-refused")
    assert "Xen 4.21.0 hides its MSI-X" in text_of(engine, "decode-refused")
    compare(engine)
    assert told_of(engine) == {"decode-refused"}
    right(stage)


@pytest.mark.parametrize("version", since(4, 19, 0))
@pytest.mark.parametrize(
    ("bar", "words"),
    [((0xFEE0_0000, 0), "dom0 may not access"), ((0xC000_0000, 0xFFFF_FFFE), "above 48 bits")],
)
def test_a_refused_map_leaves_vpci_in_charge_with_decode_off(version, bar, words):
    stage = staged(version, (BAR0, 0x4000), (0x4_0000_0000, 0x4000, "64"), command=0)
    engine = settled(stage)
    stage.write(NIC, 0x14, 4, bar[0] | 4)
    stage.write(NIC, 0x18, 4, bar[1])
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(engine)
    assert told_of(engine) == {"decode-refused"}
    assert words in text_of(engine, "decode-refused")
    assert stage.xen.vpci.traps(S(NIC))
    right(stage)
    stage.write(NIC, 0x14, 4, FREE | 4)
    stage.write(NIC, 0x18, 4, 0)
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(engine)
    assert told_of(engine) == set()
    right(stage)


@pytest.mark.parametrize("build", ["4.19.2-qubes", "4.19.6-vendor", "4.20.1.1", "4.20.4-1"])
def test_a_vendors_build_is_judged_by_what_hardware_shows(build):
    """Whether it checks MSI-X tables is not known: decode goes on, or is refused."""
    numbers = tuple(int(number) for number in build.split("-")[0].split(".")[:3])
    stage = staged(numbers, (BAR0, 0x4000), msix=(5, 0, 0x800), command=0)
    stage.xen._identity = XenIdentity(build, Dom0Kind.PVH)
    engine = settled(stage)
    assert told_of(engine) == set()
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(engine)
    compare(engine)
    on = stage.hardware.decodes_memory(S(NIC))
    assert on == MSIX_CHECKED.of(version_of(*numbers))
    assert told_of(engine) == (set() if on else {"decode-refused"})
    right(stage)


@pytest.mark.parametrize("version", since(4, 19, 0))
def test_what_vpci_maps_at_each_attempt_is_unmapped_each_time(version):
    stage = staged(version, (BAR0, 0x4000), (BAR1, 0x4000), command=0)
    engine = settled(stage)
    stage.write(NIC, 0x14, 4, 0xFEE0_0000)
    for _ in range(3):
        stage.write(NIC, COMMAND, 2, 2)
        assert len(mapped_pages(stage.xen)) == 4
        stage.settle(engine)
        right(stage)
        assert told_of(engine) == {"decode-refused"}


@pytest.mark.parametrize("version", RELEASES)
def test_decode_that_nobody_asked_for_is_not_told(version):
    stage = staged(version, (OVER_RAM, 0x4000), msix=(0, 0, 0x800), command=0)
    engine = settled(stage)
    stage.write(NIC, COMMAND, 2, 2)
    stage.write(NIC, COMMAND, 2, 0)
    stage.settle(engine)
    assert told_of(engine) == set()


# A BAR at 0 or over an entry of the memory map counts as mapped (O7, O8).


@pytest.mark.parametrize("version", RELEASES)
def test_a_bar_at_0_gets_the_address_that_linux_has_for_it(version):
    stage = staged(version, (BAR0, 0x4000), command=0)
    engine = settled(stage)
    stage.write(NIC, 0x10, 4, 0)
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(engine)
    assert stage.hardware.config(S(NIC))[0x10:0x14] == BAR0.to_bytes(4, "little")
    right(stage)
    assert told_of(engine) == set()


@pytest.mark.parametrize("version", RELEASES)
def test_a_write_that_such_a_bar_swallows_is_repeated_with_decode_off(version):
    stage = staged(version, (BAR0, 0x4000), command=0)
    engine = settled(stage)
    stage.write(NIC, 0x10, 4, OVER_RAM)
    stage.write(NIC, COMMAND, 2, 2)
    stage.settle(engine)
    stage.write(NIC, 0x10, 4, FREE)
    swallowed = stage.hardware.config(S(NIC))[0x10:0x14] != FREE.to_bytes(4, "little")
    assert swallowed is (version in {(4, 19, 6), (4, 20, 4), (4, 21, 0), (4, 21, 2), (4, 22, 0)})
    stage.settle(engine)
    compare(engine)
    assert stage.hardware.config(S(NIC))[0x10:0x14] == FREE.to_bytes(4, "little")
    right(stage)
    assert told_of(engine) == set()
