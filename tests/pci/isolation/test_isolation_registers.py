import pytest

from pcipt.pci import ConfigSpace
from pcipt.pci.capabilities import walk_capabilities
from pcipt.pci.isolation import ACS_BITS, REDIRECTING, Acs, Isolation, decode_isolation
from tests.pci.spaces import extended_list, space, standard_list


def decoded(registers=None, *, header=0, size=4096):
    config = ConfigSpace(space(registers, header=header, size=size))
    return decode_isolation(config, walk_capabilities(config)[0])


def express(device=0):
    return (0x40, 0x10, {2: (2, 0x0042), 4: (4, device)})


def test_the_header_says_whether_there_are_more_functions():
    assert decoded(header=0x80, size=64) == Isolation(multifunction=True)
    assert decoded(header=0x01, size=64) == Isolation(multifunction=False)
    assert decoded(size=14) is None


@pytest.mark.parametrize("bit", ACS_BITS)
def test_each_bit_of_acs(bit):
    registers = standard_list(express()) | extended_list((0x100, 0x0D, {4: (2, 0x7F), 6: (2, bit)}))
    acs = decoded(registers).acs
    assert acs == Acs(0x7F, bit)
    assert acs.missing() == REDIRECTING & ~bit
    assert Acs(bit, 0).missing() == bit & REDIRECTING  # what it does not have it need not switch on
    assert Acs(bit, 0, wide=bit).missing(wide=True) == 0


def test_acs_that_was_not_read():
    registers = standard_list(express()) | extended_list((0x100, 0x0D, {4: (2, 0x1D), 6: (2, 0x1D)}))
    assert decoded(registers, size=256).acs is None
    assert decoded(registers, size=0x106).acs is None  # ends before the control register
    assert decoded(registers, size=0x108).acs == Acs(0x1D, 0x1D)


@pytest.mark.parametrize(("bits", "stride"), [(0, 0), (1, 4), (2, 2), (3, 1)])
def test_phantom_functions(bits, stride):
    found = decoded(standard_list(express(bits << 3)))
    assert (found.phantom, found.stride) == (bits, stride)


RESETS = [
    # capabilities -> ways to reset the function alone
    ((express(1 << 28),), ("flr",)),
    ((express(),), ()),
    (((0x50, 0x13, {3: (1, 0x3)}),), ("af_flr",)),
    (((0x50, 0x13, {3: (1, 0x2)}),), ()),  # without Transactions Pending Linux does not use it
    (((0x60, 0x01, {4: (2, 0)}),), ("pm",)),
    (((0x60, 0x01, {4: (2, 8)}),), ()),  # No_Soft_Reset
    ((express(1 << 28), (0x50, 0x13, {3: (1, 0x3)}), (0x60, 0x01, {4: (2, 0)})), ("flr", "af_flr", "pm")),
    ((), ()),
]


@pytest.mark.parametrize(("capabilities", "resets"), RESETS)
def test_ways_to_reset_a_function_alone(capabilities, resets):
    registers = standard_list(*capabilities) if capabilities else {}
    assert decoded(registers, size=256).resets == resets
    assert decoded(registers, size=64).resets is None
