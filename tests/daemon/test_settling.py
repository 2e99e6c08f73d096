import pytest

from pcipt.daemon.settling import LEAVING, arrived, quiet_time
from pcipt.pci import Sbdf

ONE, OTHER = Sbdf(0, 1, 0, 0), Sbdf(0, 2, 0, 0)

#  what the kernel told, seconds of quiet at a setting of 50 ms, what may be seen before
CASES = [
    ({}, 0.05, set()),
    ({ONE: ["add"]}, 0.05, {ONE}),
    ({ONE: ["add", "bind"]}, 0.05, {ONE}),
    ({ONE: ["unbind"]}, LEAVING, set()),  # perhaps it leaves
    ({ONE: ["unbind", "remove"]}, 0.05, set()),  # it has left
    ({ONE: ["remove", "add"]}, 0.05, set()),  # it has left and another one come
    ({ONE: ["unbind", "bind"]}, 0.05, set()),  # another driver took it
    ({ONE: ["bind", "unbind"], OTHER: ["add"]}, LEAVING, {OTHER}),
    ({ONE: ["add", "bind", "unbind"]}, LEAVING, set()),
]


@pytest.mark.parametrize(("changed", "expected", "seen"), CASES)
def test_a_function_without_its_driver_is_given_time_to_leave(changed, expected, seen):
    assert quiet_time(0.05, changed) == expected
    assert arrived(changed) == seen


def test_a_longer_setting_stays():
    assert quiet_time(2.0, {ONE: ["unbind"]}) == 2.0
