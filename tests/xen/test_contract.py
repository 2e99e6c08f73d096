"""What every implementation of the hypervisor must do: one suite for the simulated one and for a real Xen.

The real one needs root in dom0; elsewhere it is skipped, with PCIPT_REQUIRE_XEN=1 it fails. There the
function that is removed and added is a pci-testdev without a driver (QEMU's 1b36:0005), its memory decode off
meanwhile. Nothing here can make an orphan: what is added is present, and was known when the test began.
"""

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import attrs
import pytest

from pcipt.errors import HypervisorError, NotPermittedError, StateError, UnsupportedError
from pcipt.pci import (
    Address,
    Frames,
    Gfn,
    Range,
    Resource,
    Sbdf,
    frames_from_range,
    parse_sbdf,
    sbdf_from_devfn,
)
from pcipt.xen.interface import Custody, DeviceFlags, Dom0Kind, Hypervisor, Owner, OwnerKind, XenIdentity
from pcipt.xen.libxc import open_libxc
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import SimulatedHardware

DEVICES = "/sys/bus/pci/devices"
COMMAND, MEMORY_DECODE = 0x04, 0x2
DOM0 = Owner(OwnerKind.DOMAIN, 0)
NO_FLAGS = DeviceFlags()
EVERYWHERE = ("0000:00:00.0", "0000:00:03.0", "0000:00:06.0", "0000:00:1f.2", "0000:01:00.0", "0000:03:00.1")

# name, Xen, dom0
SIMULATED = {
    "pv-4.17": XenIdentity("4.17.7", Dom0Kind.PV),
    "pvh-4.17": XenIdentity("4.17.7", Dom0Kind.PVH),
    "pv-4.20": XenIdentity("4.20.0", Dom0Kind.PV),
    "pvh-4.20": XenIdentity("4.20.0", Dom0Kind.PVH),
}


@attrs.frozen
class Bench:
    """A hypervisor and the machine it runs on; `lend` gives a function that may be removed and added.

    `pages` tells where a lent function has a memory BAR; nothing is mapped there, for it does not decode.
    """

    xen: Hypervisor
    present: Sequence[Sbdf]
    lend: Callable[[], object]
    pages: Callable[[Sbdf], Frames]


@pytest.fixture(params=[*SIMULATED, "real"])
def bench(request) -> Iterator[Bench]:
    if request.param == "real":
        yield from real_bench()
        return
    present = [parse_sbdf(text) for text in EVERYWHERE]
    with SimulatedXen(SimulatedHardware(present), SIMULATED[request.param]) as xen:
        yield Bench(xen, present, lambda: lent(present[2]), lambda _: Frames(Gfn(0xFEBF1), 1))


@contextmanager
def lent(function: Sbdf) -> Iterator[Sbdf]:
    yield function


def real_bench() -> Iterator[Bench]:
    try:
        xen = open_libxc()
    except (UnsupportedError, NotPermittedError) as exc:
        missing(f"no Xen to test: {exc}")
    with xen:
        functions = [parse_sbdf(name) for name in sorted(os.listdir(DEVICES))]
        here = [function for function in functions if function.fits_xen]
        yield Bench(xen, here, lambda: victim(xen), memory_bar)


def missing(why: str) -> None:
    if os.environ.get("PCIPT_REQUIRE_XEN") == "1":
        pytest.fail(why)
    pytest.skip(why)


def attribute(name: str, file: str) -> str:
    with open(f"{DEVICES}/{name}/{file}", encoding="ascii") as text:
        return text.read().strip()


@contextmanager
def victim(xen: Hypervisor) -> Iterator[Sbdf]:
    """Lend the driverless pci-testdev with memory decode off; afterwards all is as before."""
    found = [
        name
        for name in sorted(os.listdir(DEVICES))
        if (attribute(name, "vendor"), attribute(name, "device")) == ("0x1b36", "0x0005")
        and not os.path.exists(f"{DEVICES}/{name}/driver")
    ]
    if not found:
        missing("there is no pci-testdev without a driver (QEMU's 1b36:0005) to remove and add")
    function = parse_sbdf(found[0])
    if xen.known([function]) != [True] or xen.custody(function) is not Custody.HARDWARE_DOMAIN:
        missing(f"{function} is not known to Xen as dom0's: removing it might panic the host")
    config = os.open(f"{DEVICES}/{found[0]}/config", os.O_RDWR)
    try:
        command = os.pread(config, 2, COMMAND)
        quiet = int.from_bytes(command, "little") & ~MEMORY_DECODE
        os.pwrite(config, quiet.to_bytes(2, "little"), COMMAND)
        try:
            yield function
        finally:
            if xen.known([function]) == [False]:
                xen.add_device(function, NO_FLAGS)
            os.pwrite(config, command, COMMAND)
    finally:
        os.close(config)


def memory_bar(function: Sbdf) -> Frames:
    """Read the first memory BAR of at least a page from sysfs."""
    lines = [line.split() for line in attribute(str(function), "resource").splitlines()[:6]]
    for start, last, flags in ((int(number, 16) for number in line) for line in lines):
        if flags & Resource.MEMORY and start and last - start >= 0xFFF:
            return frames_from_range(Range(Address(start), last - start + 1))
    raise AssertionError(f"{function} has no memory BAR")


@contextmanager
def unmapped_bar(bench: Bench) -> Iterator[Frames]:
    """Give pages where nothing is mapped on a PVH dom0, and see to it that nothing is left there."""
    if bench.xen.identity.dom0 is Dom0Kind.PV:
        pytest.skip("a PV dom0 has no map")
    with bench.lend() as function:
        frames = bench.pages(function)
        try:
            yield frames
        finally:
            with suppress(HypervisorError):
                bench.xen.unmap_mmio(frames)


def absent(bench: Bench) -> Sbdf:
    candidates = (sbdf_from_devfn(0, bus, 0xFF) for bus in range(0xFF, 0, -1))
    return next(function for function in candidates if function not in bench.present)


def test_identity_says_what_is_needed_to_decide(bench):
    identity = bench.xen.identity
    assert identity.version >= (4, 11, 0)
    assert identity.full.startswith(identity.version.branch)
    assert identity.dom0 in Dom0Kind


def test_every_present_function_is_known(bench):
    assert len(bench.present) > 1
    answers = dict(zip(bench.present, bench.xen.known(bench.present), strict=True))
    assert [str(function) for function, known in answers.items() if not known] == []


def test_an_absent_function_is_unknown(bench):
    assert bench.xen.known([absent(bench)]) == [False]


def test_answers_come_in_the_order_of_the_question(bench):
    here, gone = bench.present[0], absent(bench)
    assert bench.xen.known([here, gone, here, here, gone]) == [True, False, True, True, False]


def test_no_question_has_no_answer(bench):
    assert bench.xen.known([]) == []


def test_a_segment_that_nobody_has_and_one_that_xen_cannot_name(bench):
    here = bench.present[0]
    odd = [Sbdf(0xFFFF, 0, 0, 0), here, Sbdf(0xFFFF, 0xFF, 0x1F, 7), Sbdf(0x10000, 0, 0, 0), here]
    assert bench.xen.known(odd) == [False, True, False, False, True]
    for action in (
        lambda: bench.xen.custody(odd[3]),
        lambda: bench.xen.add_device(odd[3], NO_FLAGS),
        lambda: bench.xen.remove_device(odd[3]),
    ):
        with pytest.raises(UnsupportedError):
            action()


def test_four_buses_of_candidates_at_once(bench):
    buses = sorted({(function.segment, function.bus) for function in bench.present})
    unused = ((0, bus) for bus in range(0xFF, 0, -1) if (0, bus) not in buses)
    buses = [*buses, *(next(unused) for _ in range(4))][:4]
    candidates = [sbdf_from_devfn(segment, bus, devfn) for segment, bus in buses for devfn in range(256)]
    assert len(candidates) == 256 * 4
    known = {function for function, yes in zip(candidates, bench.xen.known(candidates), strict=True) if yes}
    assert known == set(candidates) & set(bench.xen.owners())
    assert {function for function in bench.present if (function.segment, function.bus) in buses} <= known


def test_owners_are_those_of_the_known_and_of_no_other(bench):
    owners = bench.xen.owners()
    assert set(bench.present) <= set(owners)
    assert all(bench.xen.known(list(owners)))
    assert absent(bench) not in owners
    assert DOM0 in owners.values()


def test_custody_agrees_with_the_list_of_owners(bench):
    owners = bench.xen.owners()
    for function, owner in owners.items():
        custody = bench.xen.custody(function)
        if custody is Custody.UNTOLD:
            missing("this Xen runs without an IOMMU: custody cannot be told")
        mine = owner == DOM0 or owner.kind is OwnerKind.QUARANTINE
        assert custody is (Custody.HARDWARE_DOMAIN if mine else Custody.ELSEWHERE), f"{function}: {owner}"


def test_what_xen_does_not_know_is_not_dom0s(bench):
    assert bench.xen.custody(absent(bench)) is not Custody.HARDWARE_DOMAIN


def test_add_of_a_known_function_is_idempotent(bench):
    with bench.lend() as function:
        for _ in range(3):
            bench.xen.add_device(function, NO_FLAGS)
            assert bench.xen.known([function]) == [True]
            assert bench.xen.custody(function) is Custody.HARDWARE_DOMAIN


def test_remove_forgets_and_add_brings_back(bench):
    with bench.lend() as function:
        before = bench.xen.owners()
        bench.xen.remove_device(function)
        assert bench.xen.known([function]) == [False]
        assert bench.xen.custody(function) is not Custody.HARDWARE_DOMAIN
        assert set(before) - set(bench.xen.owners()) == {function}
        with pytest.raises(HypervisorError) as caught:
            bench.xen.remove_device(function)
        assert (caught.value.op, caught.value.errno) == ("pci_device_remove", errno.ENODEV)
        assert caught.value.subject == str(function)
        bench.xen.add_device(function, NO_FLAGS)
        assert bench.xen.known([function]) == [True]
        assert bench.xen.custody(function) is Custody.HARDWARE_DOMAIN
        assert bench.xen.owners() == before


def test_removing_what_xen_does_not_know_is_enodev(bench):
    function = absent(bench)
    assert bench.xen.known([function]) == [False]
    with pytest.raises(HypervisorError) as caught:
        bench.xen.remove_device(function)
    assert caught.value.errno == errno.ENODEV


def test_a_hole_is_mapped_and_unmapped_again(bench):
    with unmapped_bar(bench) as frames:
        for _ in range(2):
            bench.xen.map_mmio(frames)  # the second changes nothing
        bench.xen.unmap_mmio(frames)
        bench.xen.map_mmio(frames)
        bench.xen.unmap_mmio(frames)
        with pytest.raises(HypervisorError) as caught:  # nothing of it is mapped now
            bench.xen.unmap_mmio(frames)
        assert caught.value.errno == errno.EINVAL


def test_unmapping_what_is_not_mapped_is_einval(bench):
    with unmapped_bar(bench) as frames:
        for _ in range(2):
            with pytest.raises(HypervisorError) as caught:
                bench.xen.unmap_mmio(frames)
            assert (caught.value.op, caught.value.errno) == ("memory_mapping remove", errno.EINVAL)
            assert caught.value.subject == str(frames)


def test_a_pv_dom0_is_not_pretended_to(bench):
    if bench.xen.identity.dom0 is not Dom0Kind.PV:
        pytest.skip("this dom0 has a map")
    for action in (bench.xen.map_mmio, bench.xen.unmap_mmio):
        with pytest.raises(StateError):
            action(Frames(Gfn(0xFEBF1), 1))


def test_reserved_regions_of_devices_are_among_all(bench):
    everything = bench.xen.reserved_regions()
    assert len(set(everything)) == len(everything)
    for function in bench.present:
        assert set(bench.xen.reserved_regions(function)) <= set(everything), function
    assert bench.xen.reserved_regions(absent(bench)) == ()
    if isinstance(bench.xen, SimulatedXen):
        assert everything == ()


def test_the_command_line_is_one_line(bench):
    line = bench.xen.command_line()
    assert "\n" not in line
    assert "\0" not in line
    assert len(line) < 1024
    assert bench.xen.command_line() == line


def test_what_xen_can_do_does_not_change(bench):
    found = bench.xen.abilities()
    assert found.pv or found.hvm
    assert bench.xen.abilities() == found
    told = bench.xen.custody(next(iter(bench.present))) is not Custody.UNTOLD
    assert found.iommu is told  # without an IOMMU nobody is told who owns a function


def test_what_the_console_has_printed_is_told_once(bench):
    bench.xen.console()
    assert "==== PCI devices ====" not in bench.xen.console()  # no key was pressed
    if isinstance(bench.xen, SimulatedXen):
        bench.xen.prints("AMD-Vi: something")
        assert [bench.xen.console(), bench.xen.console()] == ["(XEN) AMD-Vi: something\n", ""]


def test_dom0_may_reach_almost_everything(bench):
    memory = bench.xen.permissions()[0].memory
    interrupts = Frames(Gfn(0xFEE00), 1)
    assert not any(span.overlaps(interrupts) for span in memory)
    with bench.lend() as function:
        assert any(span.overlaps(bench.pages(function)) for span in memory)


def test_after_closing_nothing_is_answered(bench):
    bench.xen.close()
    bench.xen.close()
    with pytest.raises(StateError):
        bench.xen.known(bench.present)
