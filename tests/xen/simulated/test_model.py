"""What add and remove do to Xen's list, release by release: the table of the facts, enumerated."""

from errno import EBUSY, EINVAL, ENODEV, EOPNOTSUPP

import attrs
import pytest

from pcipt.pci import parse_sbdf
from pcipt.pci.requester import Role, Vendor
from pcipt.xen.interface import DeviceFlags, Dom0Kind, Owner, OwnerKind
from pcipt.xen.simulated.coverage import EVERYTHING, Coverage, coverage_from_boot
from pcipt.xen.simulated.model import (
    DOM0,
    NO_FLAGS,
    NOBODY,
    Catastrophe,
    DeviceList,
    Presence,
    SimulatedHardware,
)
from tests.xen.versions import version_of

PV, PVH = Dom0Kind.PV, Dom0Kind.PVH
PORT, NIC, FAR = parse_sbdf("0000:00:03.0"), parse_sbdf("0000:01:00.0"), parse_sbdf("0000:30:00.0")
PF, VF = parse_sbdf("0000:03:00.0"), parse_sbdf("0000:03:00.1")
OF_PF = DeviceFlags(physfn=PF)
BOOT_BUSES = coverage_from_boot([PORT, NIC, PF])
MINORS = (17, 18, 19, 20, 21, 22)
PANIC = "panic"


def make(minor=17, dom0=PV, iommu=BOOT_BUSES, present=(), boot=()):
    hardware = SimulatedHardware()
    for function, presence in dict(present).items():
        hardware.plug(function, presence)
    numbers = (minor,) if isinstance(minor, int) else minor
    devices = DeviceList(hardware, dom0, version_of(4, *numbers), iommu)
    devices.boot(boot)
    return devices


def outcome(action, *arguments):
    try:
        return action(*arguments)
    except Catastrophe:
        return PANIC


QUIET, DECODING = Presence(), Presence(decodes_memory=True)

# what is added, what is there, IOMMU; result and owner on PV, on PVH up to 4.18, on PVH from 4.19
ORPHANED = (-EOPNOTSUPP, NOBODY)
ADDS = [
    ("present and covered", NIC, QUIET, BOOT_BUSES, (0, DOM0), (0, DOM0), (0, DOM0)),
    ("covered and decoding", NIC, DECODING, BOOT_BUSES, (0, DOM0), (0, DOM0), (0, DOM0)),
    ("not covered", FAR, QUIET, BOOT_BUSES, (-ENODEV, NOBODY), (-ENODEV, NOBODY), (-ENODEV, NOBODY)),
    ("not covered, decoding", FAR, DECODING, BOOT_BUSES, (-ENODEV, NOBODY), PANIC, (-ENODEV, NOBODY)),
    ("covered by INCLUDE_PCI_ALL", FAR, DECODING, EVERYTHING, (0, DOM0), (0, DOM0), (0, DOM0)),
    ("absent", NIC, None, BOOT_BUSES, (-EINVAL, NOBODY), ORPHANED, ORPHANED),
    ("absent, not covered", FAR, None, BOOT_BUSES, (-EINVAL, NOBODY), ORPHANED, ORPHANED),
    ("IOMMU off", FAR, DECODING, None, (0, DOM0), None, None),
    ("absent, IOMMU off: a ghost", NIC, None, None, (0, DOM0), None, None),
]  # fmt: skip


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("row", ADDS, ids=[row[0] for row in ADDS])
def test_add_of_an_unknown_function(row, minor):
    _, function, presence, iommu, on_pv, on_pvh_4_18, on_pvh_4_19 = row
    for dom0, expected in ((PV, on_pv), (PVH, on_pvh_4_18 if minor <= 18 else on_pvh_4_19)):
        if expected is None:
            continue
        devices = make(minor, dom0, iommu, {function: presence} if presence else {})
        result = outcome(devices.add, function, NO_FLAGS)
        if expected is PANIC:
            assert result is PANIC
        else:
            assert (result, devices.devices[function].owner) == expected


# owner; remove's result up to 4.18 and from 4.19; whether it is gone then
REMOVALS = [
    (DOM0, 0, 0),
    (Owner(OwnerKind.DOMAIN, 5), 0, 0),  # nobody asks whose it is
    (Owner(OwnerKind.QUARANTINE), 0, 0),
    (Owner(OwnerKind.XEN), 0, 0),
    (NOBODY, PANIC, -EINVAL),  # freed all the same
]


@pytest.mark.parametrize("dom0", [PV, PVH])
@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("row", REMOVALS)
def test_remove(row, minor, dom0):
    owner, up_to_4_18, from_4_19 = row
    expected = up_to_4_18 if minor <= 18 else from_4_19
    devices = make(minor, dom0, boot=[NIC, PORT])
    devices.devices[NIC].owner = owner
    assert outcome(devices.remove, NIC) == expected
    if expected is not PANIC:
        assert set(devices.devices) == {PORT}
        assert devices.remove(NIC) == -ENODEV


def test_add_of_a_known_function_overwrites_what_xen_knew():
    devices = make(present={PF: Presence(node=1), VF: Presence(flags=OF_PF, node=1)}, boot=[PF, VF])
    assert attrs.astuple(devices.devices[VF], recurse=False)[:3] == (DOM0, OF_PF, 1)
    assert devices.add(VF, NO_FLAGS) == 0
    assert (devices.devices[VF].flags, devices.devices[VF].node) == (NO_FLAGS, None)


@pytest.mark.parametrize(
    "owner", [Owner(OwnerKind.DOMAIN, 5), Owner(OwnerKind.XEN), Owner(OwnerKind.QUARANTINE)]
)
def test_add_of_anothers_function_leaves_its_owner(owner):
    devices = make(boot=[NIC])
    devices.devices[NIC].owner = owner
    assert devices.add(NIC, NO_FLAGS) == 0
    assert devices.devices[NIC].owner == owner


def test_an_orphan_is_cured_once_its_cause_is_gone():
    """Renumbered out of the covered buses and back: the add is retried in full."""
    devices = make(present={FAR: QUIET})
    assert devices.add(FAR, NO_FLAGS) == -ENODEV
    devices.iommu = EVERYTHING
    assert devices.add(FAR, NO_FLAGS) == 0
    assert devices.devices[FAR].owner == DOM0


@pytest.mark.parametrize(("dom0", "first"), [(PV, -EINVAL), (PVH, -EOPNOTSUPP)])
def test_an_orphan_made_without_hardware_keeps_its_unknown_type(dom0, first):
    """Xen reads what a function is when it makes the record, never again."""
    hardware = SimulatedHardware()
    devices = DeviceList(hardware, dom0, version_of(4, 17), EVERYTHING)
    assert devices.add(NIC, NO_FLAGS) == first
    hardware.plug(NIC)
    assert devices.add(NIC, NO_FLAGS) == -EINVAL
    assert devices.devices[NIC].owner == NOBODY


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize(("dom0", "first"), [(PV, 0), (PVH, -EOPNOTSUPP)])
def test_amd_vi_takes_it_all_the_same(minor, dom0, first):
    """AMD-Vi asks for the address only; what the record lacks is whether it is a host bridge."""
    hardware, amd = SimulatedHardware(), attrs.evolve(EVERYTHING, vendor=Vendor.AMD)
    devices = DeviceList(hardware, dom0, version_of(4, minor), amd)
    assert devices.add(NIC, NO_FLAGS) == first
    hardware.plug(NIC)
    assert devices.add(NIC, NO_FLAGS) == 0
    assert devices.devices[NIC].owner == DOM0
    nothing = DeviceList(hardware, PV, version_of(4, minor), Coverage(vendor=Vendor.AMD))
    host = Presence(role=Role.HOST_BRIDGE)
    assert nothing.add(FAR, NO_FLAGS) == -ENODEV
    hardware.plug(FAR, host)
    assert nothing.add(FAR, NO_FLAGS) == -ENODEV
    hardware.plug(PF, host)
    assert nothing.add(PF, NO_FLAGS) == 0


# release; result of adding a VF whose PF is not known; who is known then
LONELY_VFS = [
    (17, 0, {PF, VF}),
    (18, 0, {PF, VF}),
    (19, 0, {PF, VF}),
    ((20, 0), -ENODEV, set()),
    (22, -ENODEV, set()),
]


@pytest.mark.parametrize(("minor", "result", "known"), LONELY_VFS)
def test_a_vf_before_its_pf(minor, result, known):
    devices = make(minor, present={PF: QUIET, VF: QUIET})
    assert devices.add(VF, OF_PF) == result
    assert set(devices.devices) == known


def test_a_pf_that_fails_is_passed_over_or_fails_the_vf():
    # PF absent: its own add gives EINVAL; 4.17 goes on, 4.19.1 does not
    passed, failed = (0, {PF: NOBODY, VF: DOM0}), (-EINVAL, {PF: NOBODY})
    for minor, (result, known) in ((17, passed), ((19, 0), passed), ((19, 1), failed)):
        devices = make(minor, present={VF: QUIET})
        assert devices.add(VF, OF_PF) == result
        assert {function: device.owner for function, device in devices.devices.items()} == known


def test_a_pf_added_for_its_vf_may_panic_the_host():
    far_pf = parse_sbdf("0000:30:00.0")
    devices = make(17, PVH, present={far_pf: DECODING, VF: QUIET})
    assert outcome(devices.add, VF, DeviceFlags(physfn=far_pf)) is PANIC


@pytest.mark.parametrize(
    ("minor", "result"), [(17, 0), (18, 0), ((19, 0), 0), ((19, 1), -EBUSY), ((20, 0), -EBUSY), (22, -EBUSY)]
)
def test_removing_a_pf_before_its_vfs(minor, result):
    vf = Presence(flags=OF_PF)
    devices = make(minor, present={PF: QUIET, VF: vf}, boot=[PF, VF, NIC])
    devices.boot([VF])
    assert devices.remove(PF) == result
    broken = {function for function, device in devices.devices.items() if device.broken}
    assert broken == ({PF, VF} if result else set())
    assert (PF in devices.devices) is bool(result)


def test_a_vf_is_covered_where_its_pf_is():
    """Bus 04 had nothing at boot; the VF that arrives there is served by the unit of bus 03."""
    vf = parse_sbdf("0000:04:00.0")
    devices = make(present={PF: QUIET, vf: QUIET}, boot=[PF])
    assert devices.add(vf, OF_PF) == 0
    assert devices.remove(vf) == 0
    assert devices.add(vf, NO_FLAGS) == -ENODEV
