"""Resizable BARs on a PVH dom0: what vPCI maps of them, release by release, and what pcipt maps."""

import struct

import attrs
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pcipt.engine.queue import Reason
from pcipt.remap.desired import By
from pcipt.xen.interface import Owner, OwnerKind
from pcipt.xen.simulated.model import DOM0
from tests.engine.stage import BusStage, S, codes, compare, look, right, settled, told
from tests.xen.devices import device
from tests.xen.truth import mapped_pages, p2m_truth

MIB = 1 << 20
OLD = [(4, 17, 7), (4, 18, 6), (4, 19, 0), (4, 19, 6), (4, 20, 0), (4, 20, 4)]
NEW = [(4, 21, 0), (4, 21, 2), (4, 22, 0)]
GPU, REBAR_AT, COMMAND = "00:05.0", 0x100, 0x4
FIRST, SECOND, AWAY = 0x40_0000_0000, 0x41_0000_0000, 0x48_0000_0000
RESULTS = ("map-mmio", f"0000:{GPU}", "done")


def gpu(*, size=4, command=2, driver=None, second=2):
    """Make a function with 64-bit BARs 0 and 2, which can be resized to 1 MiB to 1 GiB; sizes in MiB."""
    raw = device(GPU, (FIRST, size * MIB, "64"), (SECOND, second * MIB, "64"), command=command, driver=driver)
    data = bytearray(raw.config).ljust(4096, b"\0")
    supported = ((1 << 11) - 1) << 4
    words = (0x1_0015, supported, control(0, size, count=2), supported, control(2, second))
    struct.pack_into("<5I", data, REBAR_AT, *words)
    return attrs.evolve(raw, config=bytes(data))


def control(index, size, *, count=0):
    return index | count << 5 | (size.bit_length() - 1) << 8


def register(index):
    return REBAR_AT + (8 if index == 0 else 16)


def staged(version, **more):
    return BusStage([gpu(**more)], version=version, dom0="pvh")


def resize(write, *, index=0, size, address=AWAY):
    """Resize a BAR and give it another address, as Linux's pci_resize_resource does, with decode off."""
    write(GPU, COMMAND, 2, 0)
    write(GPU, register(index), 4, control(index, size, count=2 if index == 0 else 0))
    write(GPU, 0x10 + 4 * index, 4, address & 0xFFFF_FFFF | 0x4)
    write(GPU, 0x14 + 4 * index, 4, address >> 32)
    write(GPU, COMMAND, 2, 2)


def bind(stage, driver):
    """Let Linux have another driver for the function, of which no message tells."""
    stage.files.raws[S(GPU)] = attrs.evolve(stage.files.raws[S(GPU)], driver=driver)


def grown(version):
    """Give a stage and its engine after BAR 0 has grown from 4 to 64 MiB while the service runs."""
    stage = staged(version)
    engine = settled(stage)
    resize(stage.write, size=64)
    stage.settle(engine)
    return stage, engine


def unseen(stage):
    """Write while no daemon runs."""
    return lambda address, *write: stage.xen.write_config(S(address), *write)


def runs(engine, index=0):
    return {(run.frames.range.start, run.frames.range.size, run.by) for run in engine.ledger.mapped
            if run.bar == index}  # fmt: skip


def too_many(stage):
    """Give the pages that are missing, and the number of those that are mapped and nothing decodes."""
    missing, stale = p2m_truth(stage.hardware, stage.xen).mistakes(mapped_pages(stage.xen))
    return missing, len(stale)


@pytest.mark.parametrize("version", OLD)
def test_what_a_bar_has_grown_by_is_mapped_by_pcipt(version):
    stage = staged(version)
    engine = settled(stage)
    assert stage.xen.changes == ()
    resize(stage.write, size=64)
    assert told(stage.settle(engine)) == [RESULTS]
    assert runs(engine) == {(AWAY, 4 * MIB, By.XEN), (AWAY + 4 * MIB, 60 * MIB, By.US)}
    right(stage)
    assert codes(engine) == {"bar-resized", "bar-drift"}  # Linux's files stay as they were here
    stage.write(GPU, COMMAND, 2, 0)
    stage.settle(engine)
    right(stage)
    assert runs(engine) == set()


@pytest.mark.parametrize("version", NEW)
def test_where_vpci_sees_it_there_is_nothing_to_do(version):
    stage = staged(version)
    engine = settled(stage)
    resize(stage.write, size=64)
    assert told(stage.settle(engine)) == []
    assert runs(engine) == {(AWAY, 64 * MIB, By.XEN)}
    right(stage)
    resize(stage.write, size=1, address=FIRST)
    assert told(stage.settle(engine)) == []
    right(stage)
    assert "resized-behind-vpci" not in codes(engine)


@pytest.mark.parametrize("version", OLD)
def test_a_bar_that_has_shrunk_is_told_and_its_pages_are_left_to_vpci(version):
    stage = staged(version)
    engine = settled(stage)
    resize(stage.write, size=1)
    assert told(stage.settle(engine)) == []
    assert too_many(stage) == ([], 3 * MIB >> 12)
    assert runs(engine) == {(AWAY, 4 * MIB, By.XEN)}
    assert "resized-behind-vpci" in codes(engine)
    compare(engine)
    assert stage.xen.changes == ()
    stage.write(GPU, COMMAND, 2, 0)  # vPCI finds all its pages
    stage.settle(engine)
    right(stage)
    assert stage.xen.vpci.traps(S(GPU))
    assert "resized-behind-vpci" not in codes(engine)


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("size", [1, 64])
def test_all_of_it_goes_when_the_function_is_unplugged(version, size):
    stage = staged(version)
    engine = settled(stage)
    resize(stage.write, size=size)
    stage.settle(engine)
    stage.pull(GPU)
    stage.settle(engine)
    compare(engine)
    assert mapped_pages(stage.xen) == set()
    assert engine.ledger.sizes == {}


@pytest.mark.parametrize("version", OLD)
def test_several_bars(version):
    stage = staged(version)
    engine = settled(stage)
    resize(stage.write, size=64)
    resize(stage.write, index=2, size=8, address=0x49_0000_0000)
    stage.settle(engine)
    assert runs(engine, 2) == {(0x49_0000_0000, 2 * MIB, By.XEN), (0x49_0020_0000, 6 * MIB, By.US)}
    right(stage)
    resize(stage.write, size=2, address=FIRST)
    stage.settle(engine)
    assert too_many(stage) == ([], 2 * MIB >> 12)


@pytest.mark.parametrize("version", OLD)
def test_a_bar_that_is_resized_to_and_fro(version):
    stage = staged(version)
    engine = settled(stage)
    for size in (64, 256, 4, 128, 4):
        resize(stage.write, size=size, address=AWAY if size == 64 else FIRST)
        stage.settle(engine)
        right(stage)
    assert runs(engine) == {(FIRST, 4 * MIB, By.XEN)}


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("size", [1, 64])
def test_it_is_resized_while_the_daemon_is_down(version, size):
    stage = staged(version)
    settled(stage)
    bind(stage, "amdgpu")
    resize(unseen(stage), size=size)
    engine = settled(stage)
    if size == 1:
        assert too_many(stage) == ([], 3 * MIB >> 12)
        assert "resized-behind-vpci" in codes(engine)
        return
    assert runs(engine) == {(AWAY, 4 * MIB, By.XEN), (AWAY + 4 * MIB, 60 * MIB, By.US)}
    right(stage)


@pytest.mark.parametrize("version", OLD)
def test_a_driver_has_resized_it_before_the_first_start(version):
    stage = staged(version)
    resize(unseen(stage), size=64)
    bind(stage, "amdgpu")
    engine = settled(stage)
    assert runs(engine) == {(AWAY, 64 * MIB, By.US)}  # nobody knows how much of it vPCI has mapped
    right(stage)
    stage.write(GPU, COMMAND, 2, 0)
    stage.settle(engine)
    right(stage)
    stage.write(GPU, COMMAND, 2, 2)
    stage.settle(engine)
    right(stage)


@pytest.mark.parametrize("version", OLD)
def test_a_function_that_is_announced_again_has_its_new_size(version):
    stage, engine = grown(version)
    raw = attrs.evolve(gpu(), config=stage.hardware.config(S(GPU)))
    stage.pull(GPU)
    stage.settle(engine)
    lines = (attrs.evolve(raw.resources[0], start=AWAY, size=64 * MIB), *raw.resources[1:])
    stage.plug(attrs.evolve(raw, resources=lines))
    stage.settle(engine)
    compare(engine)
    assert runs(engine) == {(AWAY, 64 * MIB, By.XEN)}
    right(stage)
    assert codes(engine) == set()


@pytest.mark.parametrize("version", OLD)
def test_a_function_that_comes_back_from_a_guest(version):
    """vPCI keeps what it has up to 4.18, and reads the size anew from 4.19 on."""
    stage, engine = grown(version)
    bind(stage, "pciback")
    stage.xen.write_config(S(GPU), COMMAND, 2, 0)
    stage.xen.give(S(GPU), Owner(OwnerKind.DOMAIN, 3))
    look(engine, [S(GPU)], Reason.OWNER)
    bind(stage, None)
    stage.xen.give(S(GPU), DOM0)
    look(engine, [S(GPU)], Reason.OWNER)
    stage.write(GPU, COMMAND, 2, 2)
    stage.settle(engine)
    compare(engine)
    right(stage)
    if version < (4, 19):
        assert runs(engine) == {(AWAY, 4 * MIB, By.XEN), (AWAY + 4 * MIB, 60 * MIB, By.US)}
    else:
        assert runs(engine) == {(AWAY, 64 * MIB, By.XEN)}


@pytest.mark.parametrize("version", OLD)
def test_without_vpci_all_of_it_is_pcipts(version):
    stage = BusStage([gpu(driver="amdgpu")], version=version, known=[])
    engine = stage.start()
    compare(engine)
    assert runs(engine) == {(FIRST, 4 * MIB, By.US)}
    resize(stage.write, size=64)
    stage.settle(engine)
    right(stage)
    assert runs(engine) == {(AWAY, 64 * MIB, By.US)}


@pytest.mark.parametrize("version", OLD[::2])
def test_a_bar_that_was_never_resized_needs_no_call(version):
    stage = staged(version)
    engine = settled(stage)
    assert stage.xen.changes == ()
    assert {run.by for run in engine.ledger.mapped} == {By.XEN}
    assert engine.ledger.sizes == {"00_05.0": {0: 4 * MIB, 2: 2 * MIB}}


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("resize"), st.sampled_from([0, 2]), st.sampled_from([1, 2, 4, 16, 64]), st.integers(0, 3)
        ),
        st.tuples(st.just("decode"), st.booleans()),
        st.tuples(st.just("restart")),
        st.tuples(st.just("again")),
    ),
    max_size=8,
)  # fmt: skip


@example([("resize", 0, 1, 3), ("resize", 2, 4, 1), ("resize", 0, 1, 0)], (4, 17, 7))  # over one another
@given(STEPS, st.sampled_from([*OLD, *NEW]))
@settings(deadline=None, max_examples=40)
def test_no_page_is_missing_and_none_is_left(steps, version):
    """Whatever is resized when, the daemon running or not: at last the function is unplugged."""
    stage = staged(version)
    engine = settled(stage)
    for kind, *what in steps:
        if kind == "resize":
            index, size, where = what
            resize(stage.write, index=index, size=size, address=AWAY + (index + where << 32))
        elif kind == "decode":
            stage.write(GPU, COMMAND, 2, 2 if what[0] else 0)
        elif kind == "restart":
            engine = settled(stage)
        else:
            stage.settle(engine)
            compare(engine)
        stage.settle(engine)
        missing, extra = too_many(stage)
        assert missing == []
        assert (extra == 0) or "resized-behind-vpci" in codes(engine)
        assert stage.xen.vpci.traps(S(GPU))
    stage.pull(GPU)
    stage.settle(engine)
    compare(engine)
    assert mapped_pages(stage.xen) == set()


@pytest.mark.parametrize("version", OLD)
def test_a_function_that_xen_pciback_had_and_no_guest_keeps_the_size_that_vpci_has(version):
    stage, engine = grown(version)
    for driver in ("pciback", None):
        bind(stage, driver)
        look(engine, [S(GPU)], Reason.OWNER)
        stage.settle(engine)
    stage.write(GPU, COMMAND, 2, 0)
    stage.settle(engine)
    compare(engine)
    assert too_many(stage) == ([], 0)
    resize(stage.write, size=64, address=FIRST)
    stage.settle(engine)
    compare(engine)
    assert too_many(stage) == ([], 0)
