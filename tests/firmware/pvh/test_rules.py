"""Which tables a PVH dom0 gets, release by release."""

import pytest

from pcipt.firmware.pvh.rules import ALLOWED, FORBIDDEN, OTHERS, why_not_given
from pcipt.xen.releases import NEWEST, parse_version

VERSIONS = [f"{branch}.{patch}" for branch, last in NEWEST.items() for patch in range(last + 1)]

#  table: the first version on each branch that hands it out; None if no version of the branch does
#  (Xen arch/x86/hvm/dom0_build.c, pvh_acpi_table_allowed, at each tag)
FIRST = {
    "VFCT": {"4.17": None, "4.18": 0, "4.19": 0, "4.20": 0, "4.21": 0, "4.22": 0},
    "TCPA": {"4.17": None, "4.18": None, "4.19": 5, "4.20": 3, "4.21": 1, "4.22": 0},
    "TPM2": {"4.17": None, "4.18": None, "4.19": 5, "4.20": 3, "4.21": 1, "4.22": 0},
    "OEMB": {"4.17": None, "4.18": 5, "4.19": 2, "4.20": 1, "4.21": 0, "4.22": 0},
}


@pytest.mark.parametrize("signature", FIRST)
def test_each_version_hands_out_what_it_does(signature):
    expected = {
        text: (first := FIRST[signature].get(text[:4], 0)) is not None and int(text[5:]) >= first
        for text in VERSIONS
    }
    assert {text: not why_not_given(signature, parse_version(text)) for text in VERSIONS} == expected


@pytest.mark.parametrize("text", [*VERSIONS, "4.20.1-vendor", None])
def test_some_tables_are_the_same_for_all(text):
    xen = parse_version(text) if text is not None else None
    assert not any(why_not_given(name, xen) for name in ALLOWED)
    assert all(why_not_given(name, xen) for name in (*FORBIDDEN, *OTHERS, "WAET", "BGRT"))


@pytest.mark.parametrize(
    ("xen", "says"),
    [
        ("4.20.2", "from 4.19.5, 4.20.3, 4.21.1 and 4.22.0 on, not yet in 4.20.2"),
        ("4.20.3-qubes", "whether this build of 4.20 does is not known"),
        (None, "the version of this Xen is not known"),
    ],
)
def test_what_is_not_known_is_said(xen, says):
    assert says in why_not_given("TPM2", parse_version(xen) if xen else None)
