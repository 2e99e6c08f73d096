"""Which IOMMU tables count, and when the machine has no IOMMU."""

import pytest

from pcipt.engine.views.coverage import coverage_at_boot, with_absence
from pcipt.firmware.acpi.build_table import Header, build_table
from pcipt.firmware.coverage import BootSnapshot, IommuScope
from pcipt.remap.view import XenView
from tests.engine.stage import S
from tests.firmware.reserved_tables import dmar, ivmd, ivrs, rmrr, scope

BOOT = BootSnapshot("boot", frozenset({S("00:00.0")}), {})
REGION = rmrr(0x1000, 0x1FFF, scope(0, (0, 0)))
BLOCK = ivmd(0x20, 8, 0, 0, 0x1000, 0x1000)
MADT = build_table(Header("APIC", 1), bytes(8))


@pytest.mark.parametrize("name", ["DMAR", "RMAD", "XMAR"])
def test_a_dmar_counts_under_each_of_its_names(name):
    found = coverage_at_boot(BOOT, [b"no table", MADT, dmar(REGION, name=name)])
    assert (found.snapshot, found.ivrs, found.absent) == (BOOT, None, False)
    assert len(found.dmar.regions) == 1


def test_an_ivrs_counts():
    found = coverage_at_boot(BOOT, [b"", ivrs(BLOCK), MADT])
    assert found.dmar is None
    assert len(found.ivrs.blocks) == 1


def test_both_tables_count_together():
    found = coverage_at_boot(BOOT, [dmar(REGION), ivrs(BLOCK)])
    assert None not in (found.dmar, found.ivrs)


def test_without_a_table_only_the_snapshot_counts():
    assert coverage_at_boot(BOOT, [MADT]) == IommuScope(BOOT)


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
