import pytest

from pcipt.pci import ConfigSpace
from pcipt.pci.capabilities import walk_capabilities
from pcipt.pci.isolation.resets import has_flr, reset_ways
from tests.pci.spaces import space, standard_list

EXPRESS_FLR = (0x40, 0x10, {2: (2, 2), 4: (4, 0x1000_8000)})
EXPRESS_NONE = (0x40, 0x10, {2: (2, 2), 4: (4, 0xEFFF_FFFF)})
AF_FLR = (0x90, 0x13, {2: (1, 6), 3: (1, 3)})
AF_HALF = (0x90, 0x13, {2: (1, 6), 3: (1, 2)})  # FLR without Transactions Pending: Linux does not use it
PM_SOFT = (0xA0, 0x01, {4: (2, 0x0000)})
PM_NO_SOFT = (0xA0, 0x01, {4: (2, 0x0008)})

CASES = [
    ((EXPRESS_FLR,), True, ("flr",)),
    ((EXPRESS_NONE,), False, ()),
    ((AF_FLR,), True, ("af_flr",)),
    ((AF_HALF,), False, ()),
    ((EXPRESS_NONE, AF_FLR), True, ("af_flr",)),
    ((EXPRESS_FLR, AF_FLR, PM_SOFT), True, ("flr", "af_flr", "pm")),
    ((PM_SOFT,), False, ("pm",)),
    ((PM_NO_SOFT,), False, ()),
    ((), False, ()),
]


@pytest.mark.parametrize(("structures", "flr", "ways"), CASES)
def test_how_a_function_can_be_reset(structures, flr, ways):
    config = ConfigSpace(space(standard_list(*structures), size=256))
    capabilities, _ = walk_capabilities(config)
    assert has_flr(config, capabilities) is flr
    assert reset_ways(config, capabilities) == ways


@pytest.mark.parametrize(("size", "flr"), [(0x40, None), (0x44, None), (0x47, None), (0x48, True)])
def test_what_was_not_read_is_unknown(size, flr):
    whole = ConfigSpace(space(standard_list(EXPRESS_FLR), size=256))
    capabilities, _ = walk_capabilities(whole)
    assert has_flr(ConfigSpace(whole.data[:size]), capabilities) is flr
