import pytest

from pcipt.pci import Sbdf
from pcipt.service.settling import LEAVING, quiet_time

ONE, OTHER = Sbdf(0, 1, 0, 0), Sbdf(0, 2, 0, 0)

#  what the kernel told, seconds of quiet at a setting of 50 ms
CASES = [
    ({}, 0.05),
    ({ONE: ["add"]}, 0.05),
    ({ONE: ["unbind"]}, LEAVING),  # perhaps it leaves
    ({ONE: ["unbind", "remove"]}, 0.05),  # it has left
    ({ONE: ["unbind", "bind"]}, 0.05),  # another driver took it
    ({ONE: ["bind", "unbind"], OTHER: ["add"]}, LEAVING),
]


@pytest.mark.parametrize(("changed", "expected"), CASES)
def test_a_function_without_its_driver_is_given_time_to_leave(changed, expected):
    assert quiet_time(0.05, changed) == expected


def test_a_longer_setting_stays():
    assert quiet_time(2.0, {ONE: ["unbind"]}) == 2.0
