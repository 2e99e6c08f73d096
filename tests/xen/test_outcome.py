import errno

import pytest

from pcipt.errors import HypervisorError, StateError, UnsupportedError
from pcipt.pci import parse_sbdf
from pcipt.xen.interface import Custody, DeviceFlags
from pcipt.xen.outcome import REFUSALS, Op, check, checked_flags, custody_from_result, xen_address

NIC = parse_sbdf("0000:02:00.0")
EVERY_ERRNO = sorted(errno.errorcode)


def test_success_is_no_error():
    for op in Op:
        check(op, 0)


@pytest.mark.parametrize("op", list(Op))
def test_every_errno_keeps_its_number_or_is_a_refusal(op):
    for number in EVERY_ERRNO:
        with pytest.raises((HypervisorError, UnsupportedError)) as caught:
            check(op, -number, str(NIC))
        if number in REFUSALS and not op.changes:
            assert isinstance(caught.value, UnsupportedError)
            assert caught.value.feature == f"Xen's {op.value}"
        else:
            assert isinstance(caught.value, HypervisorError)
            assert (caught.value.op, caught.value.errno) == (op.value, number)
            assert caught.value.subject == str(NIC)


# errno, what it says of custody; every other is an error
CUSTODY = {
    0: Custody.HARDWARE_DOMAIN,
    errno.EINVAL: Custody.ELSEWHERE,
    errno.EOPNOTSUPP: Custody.UNTOLD,  # no IOMMU
    errno.EACCES: Custody.UNTOLD,  # another release's libxenctrl
    errno.ENOSYS: Custody.UNTOLD,
}


def test_custody():
    for number in [0, *EVERY_ERRNO]:
        if number in CUSTODY:
            assert custody_from_result(NIC, -number) is CUSTODY[number]
        else:
            with pytest.raises(HypervisorError) as caught:
                custody_from_result(NIC, -number)
            assert (caught.value.op, caught.value.errno) == ("test_assign_device", number)


def test_what_changes_xen_is_a_closed_list():
    assert {op for op in Op if op.changes} == {Op.ADD, Op.REMOVE, Op.MAP, Op.UNMAP}


def test_a_segment_that_xen_cannot_name():
    assert xen_address(parse_sbdf("ffff:ff:1f.7")) == parse_sbdf("ffff:ff:1f.7")
    with pytest.raises(UnsupportedError) as caught:
        xen_address(parse_sbdf("10000:00:00.0"))
    assert caught.value.feature == "10000:00:00.0"


def test_a_physical_function_shares_the_segment():
    same = DeviceFlags(physfn=parse_sbdf("0000:03:00.0"))
    assert checked_flags(NIC, same) is same
    with pytest.raises(StateError):
        checked_flags(NIC, DeviceFlags(physfn=parse_sbdf("0001:03:00.0")))
