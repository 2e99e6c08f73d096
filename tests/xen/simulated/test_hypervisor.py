import errno

import pytest

from pcipt.errors import HypervisorError, StateError, UnsupportedError
from pcipt.pci import Frames, Gfn, parse_sbdf
from pcipt.xen.interface import (
    Abilities,
    Custody,
    DeviceFlags,
    Dom0Kind,
    Hypervisor,
    Owner,
    OwnerKind,
    Permissions,
    XenIdentity,
)
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import EVERYTHING, coverage_from_boot
from pcipt.xen.simulated.faults import Call
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Catastrophe, Presence, SimulatedHardware

NIC, DISK, GONE = (parse_sbdf(text) for text in ("0000:02:00.0", "0000:00:1f.2", "0000:09:00.0"))
VMD = parse_sbdf("10000:00:00.0")
GUEST, ORPHAN = Owner(OwnerKind.DOMAIN, 5), Owner(OwnerKind.NOBODY)
NO_FLAGS = DeviceFlags()
PVH = XenIdentity("4.17.7", Dom0Kind.PVH)
FRAMES = Frames(Gfn(0xFE604), 4)


@pytest.fixture
def hardware():
    return SimulatedHardware([NIC, DISK, VMD])


@pytest.fixture
def xen(hardware):
    return SimulatedXen(hardware)


def errno_of(action, *arguments):
    with pytest.raises(HypervisorError) as caught:
        action(*arguments)
    return caught.value.errno


def test_it_is_a_hypervisor(xen):
    checked: Hypervisor = xen
    assert checked.identity.full == "4.17.7"


def test_boot_takes_in_what_is_present_and_can_be_named(xen):
    assert xen.known([NIC, DISK, GONE, VMD]) == [True, True, False, False]
    assert xen.owners() == {NIC: Owner(OwnerKind.DOMAIN, 0), DISK: Owner(OwnerKind.DOMAIN, 0)}


def test_xen_may_not_know_what_is_present_and_know_what_is_not(hardware):
    xen = SimulatedXen(hardware, known=[DISK, GONE])
    assert xen.known([NIC, DISK, GONE]) == [False, True, True]


# who has it, what the silent question answers
CUSTODY = [
    (Owner(OwnerKind.DOMAIN, 0), Custody.HARDWARE_DOMAIN),
    (Owner(OwnerKind.QUARANTINE), Custody.HARDWARE_DOMAIN),  # Xen answers alike for dom_io
    (GUEST, Custody.ELSEWHERE),
    (Owner(OwnerKind.XEN), Custody.ELSEWHERE),
    (ORPHAN, Custody.ELSEWHERE),
]


@pytest.mark.parametrize(("owner", "custody"), CUSTODY)
def test_custody(xen, owner, custody):
    xen.give(NIC, owner)
    assert xen.custody(NIC) is custody
    assert xen.known([NIC]) == [True]
    assert xen.owners()[NIC] == owner


def test_custody_of_what_xen_does_not_know(xen):
    assert xen.custody(GONE) is Custody.ELSEWHERE


def test_custody_is_untold_without_an_iommu(hardware):
    assert SimulatedXen(hardware, iommu=None).custody(NIC) is Custody.UNTOLD


def test_pvh_needs_an_iommu(hardware):
    with pytest.raises(StateError):
        SimulatedXen(hardware, XenIdentity("4.17.7", Dom0Kind.PVH), iommu=None)


def test_what_xen_cannot_name(xen):
    for action in (
        lambda: xen.add_device(VMD, NO_FLAGS),
        lambda: xen.remove_device(VMD),
        lambda: xen.custody(VMD),
    ):
        with pytest.raises(UnsupportedError):
            action()
    assert xen.calls == []


def test_calls_are_logged_in_order_with_their_results(xen):
    xen.known([NIC, VMD])
    xen.custody(GONE)
    xen.remove_device(NIC)
    assert errno_of(xen.remove_device, NIC) == errno.ENODEV
    xen.add_device(NIC, NO_FLAGS)
    xen.known([])
    assert xen.calls == [
        Call(Op.KNOWN, (NIC,), 0),
        Call(Op.CUSTODY, (GONE,), -errno.EINVAL),
        Call(Op.REMOVE, (NIC,), 0),
        Call(Op.REMOVE, (NIC,), -errno.ENODEV),
        Call(Op.ADD, (NIC,), 0),
    ]
    assert xen.changes == tuple(xen.calls[2:])


def test_asking_changes_nothing(xen):
    before = dict(xen.devices)
    xen.known([NIC, GONE])
    xen.custody(NIC)
    xen.owners()
    assert xen.changes == ()
    assert xen.devices == before


def test_the_kernel_announces_on_its_own(xen, hardware):
    hardware.pull(NIC)
    assert xen.kernel_remove(NIC) == 0
    hardware.plug(GONE, Presence(flags=DeviceFlags(extended=True), node=3))
    assert xen.kernel_add(GONE) == 0
    assert xen.known([NIC, GONE]) == [False, True]
    assert (xen.devices[GONE].flags.extended, xen.devices[GONE].node) == (True, 3)
    assert xen.kernel_add(VMD) == -errno.EINVAL
    assert xen.changes == ()


# the call that is to fail, the same call
FAILING = {
    Op.ADD: lambda xen: xen.add_device(NIC, NO_FLAGS),
    Op.REMOVE: lambda xen: xen.remove_device(NIC),
    Op.KNOWN: lambda xen: xen.known([NIC]),
    Op.CUSTODY: lambda xen: xen.custody(NIC),
    Op.KEY: lambda xen: xen.owners(),
    Op.CONSOLE: lambda xen: xen.owners(),
    Op.MAP: lambda xen: xen.map_mmio(FRAMES),
    Op.UNMAP: lambda xen: xen.unmap_mmio(FRAMES),
    Op.RESERVED: lambda xen: xen.reserved_regions(),
    Op.COMMAND_LINE: lambda xen: xen.command_line(),
    Op.ABILITIES: lambda xen: xen.abilities(),
}


@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("number", [1, 2, 3])
def test_any_call_can_be_told_to_fail(op, number, hardware):
    xen = SimulatedXen(hardware, PVH)
    xen.fail(op, errno.ENOMEM, call=number)
    for turn in (1, 2, 3, 4):
        before = xen.known([NIC]) if op is not Op.KNOWN else [True]
        if op is Op.UNMAP:
            xen.p2m.set_identity(FRAMES)
        if turn == number:
            # libxc's undoing fails at the first page where none was mapped, and leaves its own errno
            undone = op is Op.MAP and not xen.p2m.touched(FRAMES)
            assert errno_of(FAILING[op], xen) == (errno.EINVAL if undone else errno.ENOMEM)
            assert [NIC in xen.devices] == before
        else:
            FAILING[op](xen)
        if op is Op.REMOVE:
            xen.give(NIC, Owner(OwnerKind.DOMAIN, 0))


# errno, pages done first, whether the two pages behind were mapped before; the errno that comes
PARTIAL = [
    ("at once, in a hole", errno.ENOMEM, 0, False, errno.EINVAL),
    ("half way", errno.ENOMEM, 2, False, errno.EINVAL),
    ("half way, the rest was mapped before", errno.ENOMEM, 2, True, errno.ENOMEM),
    ("at the end", errno.EBUSY, 4, False, errno.EBUSY),
]


@pytest.mark.parametrize(
    ("number", "pages", "mapped", "told"), [row[1:] for row in PARTIAL], ids=[row[0] for row in PARTIAL]
)
def test_a_map_that_fails_half_way_leaves_nothing_mapped(hardware, number, pages, mapped, told):
    xen = SimulatedXen(hardware, PVH)
    if mapped:
        xen.p2m.set_identity(Frames(Gfn(FRAMES.start + 2), 2))
    xen.fail(Op.MAP, number, pages=pages)
    assert errno_of(xen.map_mmio, FRAMES) == told
    assert not xen.p2m.touched(FRAMES)
    assert xen.changes == (Call(Op.MAP, (), -told, FRAMES),)


def test_a_refused_map_changes_nothing(hardware):
    xen = SimulatedXen(hardware, PVH)
    xen.map_mmio(FRAMES)
    for number in (errno.EPERM, errno.EACCES):
        xen.fail(Op.MAP, number)
        assert errno_of(xen.map_mmio, FRAMES) == number
        assert xen.p2m.mapped(FRAMES)


def test_an_unmap_that_fails_half_way_has_done_half(hardware):
    xen = SimulatedXen(hardware, PVH)
    xen.map_mmio(FRAMES)
    xen.fail(Op.UNMAP, errno.EPERM, pages=1)
    assert errno_of(xen.unmap_mmio, FRAMES) == errno.EPERM
    assert xen.p2m.direct() == [Frames(Gfn(FRAMES.start + 1), 3)]
    assert errno_of(xen.unmap_mmio, FRAMES) == errno.EINVAL
    assert xen.p2m.direct() == []


def test_an_interruption_is_not_noticed(hardware):
    xen = SimulatedXen(hardware, PVH)
    xen.map_mmio(FRAMES)
    for op, call, left in ((Op.MAP, xen.map_mmio, [FRAMES]), (Op.UNMAP, xen.unmap_mmio, [])):
        xen.fail(op, errno.EINTR)
        call(FRAMES)
        assert xen.p2m.direct() == left


def test_a_pv_dom0_has_nothing_to_map(xen):
    for action in (xen.map_mmio, xen.unmap_mmio):
        with pytest.raises(StateError):
            action(FRAMES)
    assert xen.calls == []


def test_permissions_of_dom0_and_of_guests(xen):
    xen.grants[5] = Permissions((FRAMES,), ())
    found = xen.permissions()
    assert found[5].memory == (FRAMES,)
    # the hole of the local APIC and of interrupts, as measured
    assert Frames(Gfn(0xFEC01), 0xFEE00 - 0xFEC01) in found[0].memory
    assert not any(span.overlaps(Frames(Gfn(0xFEE00), 0x100)) for span in found[0].memory)


def test_a_call_may_fail_after_it_was_done(xen):
    xen.fail(Op.REMOVE, errno.EIO, performed=True)
    assert errno_of(xen.remove_device, NIC) == errno.EIO
    assert NIC not in xen.devices
    assert xen.changes == (Call(Op.REMOVE, (NIC,), -errno.EIO),)


def test_two_faults_of_one_kind_strike_in_turn(xen):
    xen.fail(Op.ADD, errno.EBUSY)
    xen.fail(Op.ADD, errno.EPERM, call=2)
    assert [errno_of(xen.add_device, NIC, NO_FLAGS) for _ in range(2)] == [errno.EBUSY, errno.EPERM]
    xen.add_device(NIC, NO_FLAGS)


def test_a_refused_toolstack_leaves_custody_untold_and_physdev_working(xen):
    for op in (Op.KNOWN, Op.CUSTODY):
        xen.fail(op, errno.EACCES)
    with pytest.raises(UnsupportedError):
        xen.known([NIC])
    assert xen.custody(NIC) is Custody.UNTOLD
    xen.add_device(NIC, NO_FLAGS)


def dead_host(kind):
    """Give a Xen 4.17 and a call that panics it."""
    hardware = SimulatedHardware([DISK])
    dom0 = Dom0Kind.PV if kind == "orphan" else Dom0Kind.PVH
    xen = SimulatedXen(hardware, XenIdentity("4.17.7", dom0), iommu=coverage_from_boot([DISK]))
    if kind == "orphan":
        xen.give(NIC, ORPHAN)
        return xen, lambda: xen.remove_device(NIC)
    if kind == "kernel":
        xen.give(NIC, ORPHAN)
        return xen, lambda: xen.kernel_remove(NIC)
    hardware.plug(NIC, Presence(decodes_memory=True))
    return xen, lambda: xen.add_device(NIC, NO_FLAGS)


@pytest.mark.parametrize("kind", ["orphan", "kernel", "uncovered"])
def test_a_dead_host_stays_dead(kind):
    xen, deadly = dead_host(kind)
    with pytest.raises(Catastrophe) as first:
        deadly()
    assert str(NIC) in first.value.why
    assert xen.catastrophe is first.value
    assert [call.result for call in xen.changes] == ([] if kind == "kernel" else [None])
    after = (
        lambda: xen.known([DISK]),
        lambda: xen.custody(DISK),
        xen.owners,
        lambda: xen.add_device(DISK, NO_FLAGS),
        lambda: xen.remove_device(DISK),
        lambda: xen.kernel_add(DISK),
        lambda: xen.kernel_remove(DISK),
    )
    for action in after:
        with pytest.raises(Catastrophe):
            action()
    xen.close()


def test_a_catastrophe_is_not_caught_as_an_error():
    assert not issubclass(Catastrophe, Exception)


def test_after_close_nothing_is_answered(xen):
    with xen:
        assert xen.known([NIC]) == [True]
    xen.close()
    for action in (
        lambda: xen.known([NIC]),
        lambda: xen.known([]),
        lambda: xen.custody(NIC),
        xen.owners,
        lambda: xen.add_device(NIC, NO_FLAGS),
        lambda: xen.remove_device(NIC),
    ):
        with pytest.raises(StateError):
            action()


@pytest.mark.parametrize("iommu", [EVERYTHING, None])
def test_what_it_can_do_says_whether_it_uses_an_iommu(iommu, hardware):
    xen = SimulatedXen(hardware, iommu=iommu)
    assert xen.abilities() == Abilities(pv=True, hvm=True, iommu=iommu is not None)
    assert xen.changes == ()
