import pytest

from pcipt.firmware.pvh.check_rows import Row, Verdict, doubtful, good, judged, row_from_finding, worst, wrong
from pcipt.pci import Finding


@pytest.mark.parametrize(
    ("holds", "warn", "expected"),
    [
        (True, False, good("r", "T", 4, "fine")),
        (True, True, good("r", "T", 4, "fine")),
        (False, False, wrong("r", "T", 4, "bad")),
        (False, True, doubtful("r", "T", 4, "bad")),
    ],
)
def test_a_rule_holds_or_not(holds, warn, expected):
    assert judged(holds, "r", "T", 4, "fine", "bad", warn=warn) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("at 0x2c: too long", Row("acpi-entry", Verdict.ERROR, "APIC", 0x2C, "too long")),
        ("no offset: here", Row("acpi-entry", Verdict.ERROR, "APIC", None, "no offset: here")),
    ],
)
def test_a_readers_finding_becomes_a_row(text, expected):
    assert row_from_finding(Finding("acpi-entry", text), "APIC") == expected


def test_the_worst():
    ok, warn, error = good("", "", 0, ""), doubtful("", "", 0, ""), wrong("", "", 0, "")
    assert worst([]) is Verdict.OK
    assert worst([ok, warn]) is Verdict.WARN
    assert worst([warn, error, ok]) is Verdict.ERROR
