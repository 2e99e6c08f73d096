import pytest

from pcipt.pci import ConfigSpace
from pcipt.pci.capabilities.isolation import (
    ISOLATING,
    Acs,
    AcsBits,
    Ari,
    decode_acs,
    decode_ari,
)
from tests.pci.spaces import extended_list, space


def acs(capable, control):
    return decode_acs(
        ConfigSpace(
            space(extended_list((0x100, 0x0D, {4: (2, capable), 6: (2, control)})), size=4096),
        ),
        0x100,
    )


BITS = [
    (0x01, AcsBits.SOURCE_VALIDATION),
    (0x02, AcsBits.TRANSLATION_BLOCKING),
    (0x04, AcsBits.REQUEST_REDIRECT),
    (0x08, AcsBits.COMPLETION_REDIRECT),
    (0x10, AcsBits.UPSTREAM_FORWARDING),
    (0x20, AcsBits.EGRESS_CONTROL),
    (0x40, AcsBits.DIRECT_TRANSLATED),
    (0x80, AcsBits.ENHANCED),
]


@pytest.mark.parametrize(("bit", "service"), BITS)
def test_each_bit_is_a_service(bit, service):
    assert acs(bit, 0) == Acs(service, AcsBits(0))
    assert acs(0, bit) == Acs(AcsBits(0), service)


def test_the_vector_of_egress_control_is_no_service():
    assert acs(0x0820, 0).capable == AcsBits.EGRESS_CONTROL


def test_what_isolates_is_what_linux_demands():
    assert ISOLATING == 0x1D


#  capable, control, wanted -> enforced
ENFORCED = [
    (0x1D, 0x1D, ISOLATING, True),
    (0x1D, 0x1C, ISOLATING, False),
    (0x1D, 0x0D, ISOLATING, False),
    (0x1D, 0x00, ISOLATING, False),
    (0x0D, 0x0D, ISOLATING, True),  # a service that the function does not have is not needed
    (0x00, 0x00, ISOLATING, True),
    (0x00, 0x00, AcsBits.EGRESS_CONTROL, False),  # but Egress Control counts only if it is on
    (0x20, 0x20, AcsBits.EGRESS_CONTROL, True),
    (0x5F, 0x1D, ISOLATING | AcsBits.DIRECT_TRANSLATED, False),
]


@pytest.mark.parametrize(("capable", "control", "wanted", "enforced"), ENFORCED)
def test_a_service_is_enforced_where_it_is_on_or_not_needed(capable, control, wanted, enforced):
    assert acs(capable, control).enforces(wanted) is enforced


def ari(capable, control):
    return decode_ari(
        ConfigSpace(
            space(extended_list((0x100, 0x0E, {4: (2, capable), 6: (2, control)})), size=4096),
        ),
        0x100,
    )


def test_ari_names_the_next_function_and_the_group():
    assert ari(0x2602, 0x0032) == Ari(0x26, groups_with_acs=True, group=3)
    assert ari(0x0000, 0x0032) == Ari(0, groups_with_acs=False, group=3)
    assert ari(0x0002, 0x0030) == Ari(0, groups_with_acs=False, group=3)


@pytest.mark.parametrize("decode", [decode_acs, decode_ari])
def test_what_was_not_read_is_unknown(decode):
    assert decode(ConfigSpace(space(size=0x107)), 0x100) is None
    assert decode(ConfigSpace(space(size=0x108)), 0x100) is not None
