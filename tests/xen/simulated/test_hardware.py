import errno

import attrs
import pytest

from pcipt.errors import HypervisorError
from pcipt.pci import Range, decode_function, parse_sbdf
from pcipt.xen.interface import DeviceFlags, OwnerKind
from pcipt.xen.simulated.hardware import BusHardware
from pcipt.xen.simulated.hypervisor import SimulatedXen
from pcipt.xen.simulated.model import Hardware
from pcipt.xen.simulated.vpci import ConfigHardware
from tests.remap.writes.shadows import nic
from tests.xen.devices import SRIOV_AT, device, port

S = parse_sbdf
NIC = S("0000:02:00.0")
VFE, MSE = 0x1, 0x8


@pytest.fixture
def bus():
    """A root port over 02, in which a second port is over 03; 04 is free."""
    return BusHardware(
        [
            port("00:1c.0", 2, 4),
            device("02:00.0", (0xFE600000, 0x4000), (0xFE610000, 0x20), msix=(0, 0x2000, 0x3000)),
            port("02:01.0", 3, 3),
            device("03:00.0", (0x8_0000_0000, 0x100000, "64"), rom=(0xFE700000, 0x10000)),
        ]
    )


def there(bus):
    return sorted(str(function) for function in bus.functions())


def place(bus, function, index):
    return dict(bus.memory_bars(function)).get(index)


def test_it_is_hardware_of_both_kinds(bus):
    plain: Hardware = bus
    assert isinstance(plain, ConfigHardware)


def test_functions_answer_where_they_are(bus):
    assert there(bus) == ["0000:00:1c.0", "0000:02:00.0", "0000:02:01.0", "0000:03:00.0"]
    assert bus.config(S("02:02.0")) is None
    assert bus.presence(S("05:00.0")) is None
    assert bus.presence(NIC).decodes_memory
    bus.write(S("05:00.0"), 4, 2, 7)  # is lost


def test_a_function_whose_registers_read_all_ones_does_not_answer():
    silent = attrs.evolve(device("02:00.0", (0xFE600000, 0x4000)), config=b"\xff" * 256)
    bus = BusHardware([silent])
    bus.write(NIC, 4, 2, 0)  # is lost
    assert bus.config(NIC) == b"\xff" * 256
    assert bus.presence(NIC) is None
    assert not bus.decodes_memory(NIC)


def test_a_function_that_does_not_answer_is_not_recognised_by_xen():
    silent = attrs.evolve(device("02:00.0"), config=b"\xff" * 256)
    xen = SimulatedXen(BusHardware([silent]), known=[])
    with pytest.raises(HypervisorError) as caught:
        xen.add_device(NIC, DeviceFlags())
    assert caught.value.errno == errno.EINVAL
    assert xen.devices[NIC].owner.kind is OwnerKind.NOBODY


# offset, size, value written, what is read back then of the dword at offset & ~3
WRITES = [
    ("the vendor stays", 0x00, 4, 0, 0x10D38086),
    ("command", 0x04, 2, 0xFFFF, 0x00100547),
    ("one byte of command", 0x05, 1, 0xFF, 0x00100502),
    ("sizing", 0x10, 4, 0xFFFFFFFF, 0xFFFFC000),
    ("a BAR", 0x10, 4, 0xFE604000, 0xFE604000),
    ("half a BAR", 0x12, 2, 0xFD00, 0xFD000000),
    ("a BAR smaller than a page", 0x14, 4, 0xFFFFFFFF, 0xFFFFFFE0),
    ("an empty BAR", 0x18, 4, 0xFFFFFFFF, 0),
    ("across two BARs", 0x12, 4, 0x1234_FE70, 0xFE700000),
]


@pytest.mark.parametrize(
    ("offset", "size", "value", "expected"), [row[1:] for row in WRITES], ids=[row[0] for row in WRITES]
)
def test_writes(bus, offset, size, value, expected):
    bus.write(NIC, offset, size, value)
    at = offset & ~3
    assert int.from_bytes(bus.config(NIC)[at : at + 4], "little") == expected


def test_bars_follow_their_registers(bus):
    wide = S("03:00.0")
    assert place(bus, wide, 0) == Range(0x8_0000_0000, 0x100000)
    bus.write(wide, 0x14, 4, 0x9)
    assert place(bus, wide, 0) == Range(0x9_0000_0000, 0x100000)
    assert place(bus, wide, 6) is None
    bus.write(wide, 0x30, 4, 0xFE720001)
    assert place(bus, wide, 6) == Range(0xFE720000, 0x10000)
    assert dict(bus.bar_sizes(wide)) == {0: 0x100000, 6: 0x10000}


def test_a_bridges_bus_numbers_move_what_is_behind(bus):
    bus.write(S("02:01.0"), 0x19, 2, 0x0404)
    assert there(bus) == ["0000:00:1c.0", "0000:02:00.0", "0000:02:01.0", "0000:04:00.0"]
    assert place(bus, S("04:00.0"), 0) == Range(0x8_0000_0000, 0x100000)
    bus.write(S("02:01.0"), 0x18, 4, 0x00_05_05_02)  # the port above passes 2-4 on
    assert "0000:05:00.0" not in there(bus)
    bus.write(S("00:1c.0"), 0x1A, 1, 9)
    assert "0000:05:00.0" in there(bus)
    bus.write(S("00:1c.0"), 0x19, 1, 5)  # both bridges on bus 5: the upper one has it
    assert there(bus) == ["0000:00:1c.0", "0000:05:00.0", "0000:05:01.0"]


def test_of_two_bridges_with_one_number_the_lower_device_has_it():
    both = [port("00:01.0", 1, 3), device("01:00.0"), port("00:02.0", 4, 4), device("04:05.0")]
    bus = BusHardware(both)
    bus.write(S("00:02.0"), 0x19, 2, 0x0202)
    assert there(bus) == ["0000:00:01.0", "0000:00:02.0", "0000:01:00.0"]


def test_plug_and_pull(bus):
    bus.pull(S("02:01.0"))
    assert there(bus) == ["0000:00:1c.0", "0000:02:00.0"]
    bus.pull(S("02:01.0"))
    bus.plug(port("02:01.0", 3, 4))
    bus.plug(device("03:08.0"))
    assert "0000:03:08.0" in there(bus)


@pytest.fixture
def sriov():
    return BusHardware(
        [
            device(
                "00:03.0",
                (0xFE000000, 0x1000),
                sriov=(4, 0x80, 2, [(0xFD000000, 0x4000), (0x4_0000_0000, 0x2000, "64")]),
            )
        ]
    )


def control(bus, value):
    bus.write(S("00:03.0"), SRIOV_AT + 8, 2, value)


def test_virtual_functions_come_and_go(sriov):
    sriov.write(S("00:03.0"), SRIOV_AT + 0x10, 2, 2)
    assert there(sriov) == ["0000:00:03.0"]
    control(sriov, VFE)
    assert there(sriov) == ["0000:00:03.0", "0000:00:13.0", "0000:00:13.2"]
    assert sriov.presence(S("00:13.2")).flags == DeviceFlags(physfn=S("00:03.0"))
    assert not sriov.decodes_memory(S("00:13.2"))
    sriov.write(S("00:03.0"), SRIOV_AT + 0x10, 2, 4)  # read-only while they are enabled
    assert len(there(sriov)) == 3
    control(sriov, VFE | MSE)
    assert sriov.decodes_memory(S("00:13.2"))
    assert sriov.memory_bars(S("00:13.2")) == [
        (0, Range(0xFD004000, 0x4000)),
        (1, Range(0x4_0000_2000, 0x2000)),
    ]
    control(sriov, MSE)
    assert there(sriov) == ["0000:00:03.0"]


def test_a_virtual_functions_own_registers_do_nothing(sriov):
    sriov.write(S("00:03.0"), SRIOV_AT + 0x10, 2, 1)
    control(sriov, VFE | MSE)
    sriov.write(S("00:13.0"), 0x04, 2, 0xFFFF)
    sriov.write(S("00:13.0"), 0x10, 4, 0xFFFFFFFF)
    config = sriov.config(S("00:13.0"))
    assert config[:2] == b"\xff\xff"
    assert config[0x10:0x14] == bytes(4)
    assert not config[4] & 2
    assert sriov.bar_sizes(S("00:13.0")) == []


def test_pulling_a_physical_function_takes_its_virtual_ones(sriov):
    sriov.write(S("00:03.0"), SRIOV_AT + 0x10, 2, 4)
    control(sriov, VFE)
    sriov.pull(S("00:03.0"))
    assert there(sriov) == []


def test_a_function_in_place_of_a_physical_one_has_none_of_its_virtual_functions(sriov):
    sriov.write(S("00:03.0"), SRIOV_AT + 0x10, 2, 4)
    control(sriov, VFE)
    sriov.plug(device("00:03.0", (0xFE000000, 0x1000)))
    assert there(sriov) == ["0000:00:03.0"]


def test_a_function_in_place_of_a_virtual_one_stays_when_the_others_go(sriov):
    sriov.write(S("00:03.0"), SRIOV_AT + 0x10, 2, 2)
    control(sriov, VFE)
    sriov.plug(device("00:13.0", (0xFE100000, 0x1000)))
    control(sriov, 0)
    assert there(sriov) == ["0000:00:03.0", "0000:00:13.0"]


def test_a_function_in_place_of_a_bridge_leads_to_no_bus(bus):
    bus.plug(device("02:01.0"))
    assert "0000:03:00.0" not in there(bus)
    assert not bus.has_bus(0, 3)


@pytest.mark.parametrize("address", ["07:13.0", "00:13.0"])
def test_a_virtual_function_on_another_bus_is_ignored(sriov, address):
    vf = attrs.evolve(device(address), physfn=S("00:03.0"))
    sriov.plug(vf)
    sriov.write(S("00:03.0"), SRIOV_AT + 0x10, 2, 1)
    control(sriov, VFE)
    assert there(sriov) == ["0000:00:03.0", "0000:00:13.0"]
    assert (sriov.config(S("00:13.0")) == vf.config) == (address == "00:13.0")


def test_what_can_be_read_back_decodes_as_it_was(bus):
    raw = device("02:00.0", (0xFE600000, 0x4000), (0xFE610000, 0x20), msix=(0, 0x2000, 0x3000))
    assert bus.config(NIC) == raw.config
    assert bus.msix(NIC) == decode_function(raw).msix


# Resets, which neither Xen nor Linux sees


def words(bus, function, *offsets):
    config = bus.config(S(function))
    return [int.from_bytes(config[at : at + 4], "little") for at in offsets]


def test_a_reset_clears_addresses_and_decode(bus):
    bus.reset(NIC)
    assert words(bus, "02:00.0", 0x00, 0x04, 0x10, 0x14) == [0x10D3_8086, 0x0010_0000, 0, 0]
    assert not bus.decodes_memory(NIC)
    bus.write(NIC, 0x10, 4, 0xFE60_0000)  # it is there and can be written
    assert words(bus, "02:00.0", 0x10) == [0xFE60_0000]
    bus.reset(S("05:00.0"))  # nobody is there


def test_a_secondary_bus_reset_is_one_of_everything_behind(bus):
    bus.write(S("00:1c.0"), 0x3E, 2, 0x40)
    assert words(bus, "02:00.0", 0x10) == [0]
    assert words(bus, "02:01.0", 0x18) == [0]
    assert bus.config(S("03:00.0")) is None  # the bridge above it has lost its numbers
    assert words(bus, "00:1c.0", 0x04)[0] & 2
    bus.write(NIC, 0x10, 4, 0xFE60_0000)
    bus.write(S("00:1c.0"), 0x3E, 2, 0x40)  # it was held all the time
    assert words(bus, "02:00.0", 0x10) == [0xFE60_0000]
    bus.write(S("02:01.0"), 0x18, 4, 0x0003_0302)
    assert words(bus, "03:00.0", 0x10, 0x14) == [4, 0]  # the type of a BAR stays


@pytest.mark.parametrize(("capable", "offset", "size", "value", "resets"), [
    (True, 0x48, 2, 0x8000, True),
    (True, 0x49, 1, 0x80, True),
    (True, 0x48, 4, 0x8000, True),
    (True, 0x48, 2, 0x7FFF, False),
    (True, 0x4A, 2, 0xFFFF, False),
    (False, 0x48, 2, 0x8000, False),
])  # fmt: skip
def test_a_function_level_reset(capable, offset, size, value, resets):
    raw = nic(parent=None, flr=capable)
    bus = BusHardware([raw])
    bus.write(S("02:00.0"), offset, size, value)
    assert (words(bus, "02:00.0", 0x10) == [0]) is resets
    assert bus.decodes_memory(NIC) is not resets


def test_a_reset_of_a_physical_function_takes_its_virtual_functions():
    raw = device("02:00.0", (0xFE60_0000, 0x1000), sriov=(2, 1, 1, [(0xFE80_0000, 0x1000)]))
    bus = BusHardware([raw])
    bus.write(NIC, SRIOV_AT + 0x10, 2, 2)
    bus.write(NIC, SRIOV_AT + 8, 2, VFE | MSE)
    assert len(there(bus)) == 3
    bus.reset(NIC)
    assert there(bus) == ["0000:02:00.0"]


def test_a_resizable_bar_has_its_first_size_again():
    bus = BusHardware([nic(parent=None)])
    before = bus.bar_sizes(NIC)
    bus.write(NIC, 0x140 + 8, 4, 1 << 8 | 1 << 5 | 2)
    assert bus.bar_sizes(NIC) != before
    bus.reset(NIC)
    assert bus.bar_sizes(NIC) == before
