"""Writing to hardware: every step is read back, and where one does not take nothing is left half done."""

import pytest

from pcipt.engine.registers import HEADER_TYPE, VENDOR, Registers
from pcipt.errors import HypervisorError, PciptError, UnsupportedError
from pcipt.pci import Address, parse_sbdf
from pcipt.pci.config import BUS_NUMBERS, COMMAND, ROM_WORDS, bar_word
from pcipt.remap.detour import Detour, Hop
from tests.xen.devices import device

NIC, PORT, SWITCH = parse_sbdf("02:00.0"), parse_sbdf("00:1c.0"), parse_sbdf("00:1c.1")


class Host:
    """Registers in memory; those named `stuck` ignore writes. The NIC answers on bus 2 only."""

    def __init__(self, stuck=(), low=0xFE00_0000):
        self.held = {(NIC, COMMAND): 0x6, (NIC, bar_word(0)): low, (NIC, bar_word(1)): 0}
        self.held[PORT, BUS_NUMBERS] = 0x40_0505_00
        self.held[SWITCH, BUS_NUMBERS] = 0x40_0807_05
        self.held[NIC, VENDOR] = 0x8086
        self.stuck = set(stuck)
        self.log = []

    @property
    def bus(self):
        return self.held[PORT, BUS_NUMBERS] >> 8 & 0xFF

    def read_register(self, sbdf, register):
        if sbdf == NIC and self.away and self.bus != NIC.bus:
            return (1 << 8 * register.size) - 1
        return self.held[sbdf, register]

    away = False

    def read_function(self, sbdf):
        return device(str(sbdf))

    def write_register(self, sbdf, register, value):
        self.log.append((sbdf, register.offset, value))
        if register.offset not in self.stuck and not (sbdf == NIC and self.away and self.bus != NIC.bus):
            self.held[sbdf, register] = value


def test_a_bar_is_rewritten_with_decoding_off():
    host = Host()
    Registers(host).rewrite_bar(NIC, 0, Address(0xFE10_0000))
    assert host.log == [(NIC, 4, 0x4), (NIC, 0x10, 0xFE10_0000), (NIC, 4, 0x6)]


def test_both_halves_of_a_wide_bar_and_its_type_bits():
    host = Host(low=0xFE00_000C)
    Registers(host).rewrite_bar(NIC, 0, Address(0x12_FE10_0000))
    assert host.held[NIC, bar_word(0)] == 0xFE10_000C
    assert host.held[NIC, bar_word(1)] == 0x12


@pytest.mark.parametrize(("layout", "offset"), [(0x80, 0x30), (0x01, 0x38)])
def test_a_rom_has_a_register_of_its_own_and_stays_enabled(layout, offset):
    host = Host()
    host.held[NIC, HEADER_TYPE] = layout
    host.held[NIC, ROM_WORDS[layout & 0x7F]] = 0xFE00_0001
    Registers(host).rewrite_bar(NIC, 6, Address(0xFE10_0000))
    assert host.log == [(NIC, 4, 0x4), (NIC, offset, 0xFE10_0001), (NIC, 4, 0x6)]


def test_a_header_without_a_rom_is_said():
    host = Host()
    host.held[NIC, HEADER_TYPE] = 2
    with pytest.raises(UnsupportedError, match="has no ROM"):
        Registers(host).rewrite_bar(NIC, 6, Address(0xFE10_0000))


@pytest.mark.parametrize(
    ("stuck", "low", "address", "words"),
    [
        ({4}, 0xFE00_0000, 0xFE10_0000, "cannot be switched off at"),
        ({0x10}, 0xFE00_0000, 0xFE10_0000, "BAR 0"),
        ((), 0xE001, 0xFE10_0000, "ports"),
        ((), 0xFE00_0000, 1 << 32, "32 bits"),
    ],
)
def test_what_does_not_take_is_an_error_and_decoding_is_as_it_was(stuck, low, address, words):
    host = Host(stuck, low)
    with pytest.raises(PciptError, match=words):
        Registers(host).rewrite_bar(NIC, 0, Address(address))
    assert host.held[NIC, COMMAND] == 0x6


def test_a_wide_bar_of_which_one_half_does_not_take_is_put_back_before_it_decodes_again():
    host = Host({0x14}, low=0xFE00_000C)
    host.held[NIC, bar_word(1)] = 0x8
    with pytest.raises(PciptError, match="BAR 0"):
        Registers(host).rewrite_bar(NIC, 0, Address(0x12_4000_0000))
    assert host.held[NIC, bar_word(0)] == 0xFE00_000C
    assert host.held[NIC, COMMAND] == 0x6


def test_a_bar_that_takes_neither_address_does_not_decode():
    class Changing(Host):
        def write_register(self, sbdf, register, value):
            super().write_register(sbdf, register, value & ~0x10_0000 if register.offset == 0x10 else value)

    host = Changing(low=0xFE10_0000)
    with pytest.raises(PciptError, match="BAR 0"):
        Registers(host).rewrite_bar(NIC, 0, Address(0xFE30_0000))
    assert host.held[NIC, COMMAND] == 0x4


def test_decoding_that_does_not_come_back_on_is_no_success():
    class Refusing(Host):
        def write_register(self, sbdf, register, value):
            super().write_register(sbdf, register, value & ~0x2 if register == COMMAND else value)

    with pytest.raises(PciptError, match="memory decode"):
        Registers(Refusing()).rewrite_bar(NIC, 0, Address(0xFE10_0000))


DETOUR = Detour((Hop(PORT, 2, 4),), NIC)


def detour(host, add, way=DETOUR, *, decode_off=True):
    Registers(host).add_by_detour(NIC, way, add, decode_off=decode_off)


def test_a_renumbered_function_is_reached_by_its_bridges_old_numbers():
    host = Host()
    host.away = True
    seen = []
    detour(host, lambda: seen.append((host.bus, host.held[NIC, COMMAND])))
    assert seen == [(5, 0x4)]  # at the new number, decode off
    assert host.held[NIC, COMMAND] == 0x6
    assert host.held[PORT, BUS_NUMBERS] == 0x40_0505_00


def test_where_decoding_may_stay_on_the_detour_only_looks_whether_hardware_is_there():
    host = Host()
    host.away = True
    seen = []
    detour(host, lambda: seen.append((host.bus, host.held[NIC, COMMAND])), decode_off=False)
    assert seen == [(5, 0x6)]
    assert [offset for _, offset, _ in host.log] == [0x18, 0x18]
    assert host.held[PORT, BUS_NUMBERS] == 0x40_0505_00


def test_what_does_not_answer_at_its_old_number_is_not_added():
    host = Host()
    host.held[NIC, VENDOR] = 0xFFFF
    with pytest.raises(UnsupportedError, match="nothing answers"):
        detour(host, lambda: pytest.fail("it was added"), decode_off=False)
    assert host.held[PORT, BUS_NUMBERS] == 0x40_0505_00


def test_every_bridge_that_has_changed_gets_its_numbers_from_the_root_down_and_back_from_the_leaf_up():
    host = Host()
    unchanged = parse_sbdf("00:1e.0")
    host.held[unchanged, BUS_NUMBERS] = 0x40_0901_00
    way = Detour((Hop(unchanged, 1, 4), Hop(PORT, 2, 4), Hop(SWITCH, 3, 4)), NIC)
    detour(host, lambda: None, way, decode_off=False)
    numbers = [(sbdf, value >> 8 & 0xFFFF) for sbdf, _, value in host.log]
    assert numbers == [(PORT, 0x402), (SWITCH, 0x403), (SWITCH, 0x807), (PORT, 0x505)]


@pytest.mark.parametrize("stuck", [{0x18}, {4}])
def test_a_detour_that_does_not_work_leaves_the_new_numbers_and_adds_nothing(stuck):
    host = Host(stuck)
    host.away = True
    with pytest.raises(UnsupportedError):
        detour(host, lambda: pytest.fail("it was added"))
    assert host.held[PORT, BUS_NUMBERS] == 0x40_0505_00
    assert host.held[NIC, COMMAND] == 0x6


def test_a_failing_add_has_decoding_on_again():
    host = Host()
    host.away = True

    def fail():
        raise UnsupportedError("add-device", "no")

    with pytest.raises(UnsupportedError, match="no"):
        detour(host, fail)
    assert host.held[NIC, COMMAND] == 0x6
    assert host.held[PORT, BUS_NUMBERS] == 0x40_0505_00


@pytest.mark.parametrize(
    ("error", "expected", "words"),
    [
        (None, UnsupportedError, "wrote 0x6 to 0000:02:00.0, and read 0x4"),
        (HypervisorError("add", 22), HypervisorError, "EINVAL"),  # the error of the add is told
    ],
)
def test_decode_that_does_not_come_back_after_an_add_is_no_success(error, expected, words):
    host = Host()

    def add():
        with Registers(host).memory_decode_off(NIC):
            host.stuck = {4}
            if error is not None:
                raise error

    with pytest.raises(expected, match=words):
        add()


def test_decode_is_off_for_the_time_of_an_add_and_on_after_it():
    host = Host()
    with Registers(host).memory_decode_off(NIC):
        assert host.held[NIC, COMMAND] == 0x4
    assert host.held[NIC, COMMAND] == 0x6


@pytest.mark.parametrize("why", [None, "the BAR of its MSI-X table has no address"])
def test_a_function_that_xen_must_not_be_told_of_ends_the_detour_before_that(why):
    host = Host()
    host.away = True
    seen, read = [], []

    def refuse(function):
        read.append((host.bus, function.sbdf))
        return why

    def follow():
        Registers(host).add_by_detour(
            NIC, DETOUR, lambda: seen.append(host.bus), decode_off=True, refuse=refuse
        )

    if why is None:
        follow()
    else:
        with pytest.raises(UnsupportedError, match=why):
            follow()
    assert read == [(2, NIC)]
    assert seen == [5] * (why is None)
    assert host.held[PORT, BUS_NUMBERS] == 0x40_0505_00
    assert host.held[NIC, COMMAND] == 0x6
