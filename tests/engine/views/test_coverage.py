"""When the machine has no IOMMU."""

import pytest

from pcipt.engine.views.coverage import with_absence
from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.remap.view import XenView
from tests.engine.stage import S

BOOT = BootSnapshot("boot", frozenset({S("00:00.0")}), {})
KNOWN = frozenset({S("00:00.0")})


@pytest.mark.parametrize(
    ("view", "pvh", "absent"),
    [
        (XenView(KNOWN, custody_told=False), False, True),
        (XenView(KNOWN, custody_told=False), True, False),  # it would not have booted
        (XenView(KNOWN, custody_told=True), False, False),
        (XenView(custody_told=False), False, False),  # nobody was asked about
    ],
)
@pytest.mark.parametrize("before", [False, True])
def test_without_answers_about_owners_there_is_no_iommu(view, pvh, absent, before):
    scope_before = IommuScope(BOOT, absent=before)
    found = with_absence(scope_before, view, pvh=pvh)
    assert found == IommuScope(BOOT, absent=absent)
    assert (found is scope_before) is (before is absent)
