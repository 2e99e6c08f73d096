import json

from pcipt.cli.main import main
from tests.answers import EXPLANATION, LONG, NIC

TEXT = f"""\
{NIC}
Is:
  Path:          00_04.0-00_00.0
  Driver:        e1000e
  Known to Xen:  yes
  Owner:         dom0
  Decodes:       memory
  Mapped:        BAR 0 0xfe040000-0xfe05ffff (128K), by Xen (vPCI), held since 2026-11-22 19:11:32 UTC
                 BAR 1 0x383fe0000000-0x383fe001ffff (128K), by Xen (vPCI), held since 2026-11-22 19:11:32 UTC
Should be:
  Mapped by:  pcipt, because vPCI does not map BARs of virtual functions
  Mapped:     BAR 0 0xfe040000-0xfe05ffff (128K)
Actions:
  map-mmio BAR 0 0xfe040000-0xfe05ffff (128K): {LONG}
    refused by protected: 0xfe040000-0xfe05ffff overlaps RAM
    guard certain allows
    guard protected refuses: 0xfe040000-0xfe05ffff overlaps RAM
  add-device: unknown to Xen
    allowed, with decode-off
"""


def test_what_is_and_what_should_be(daemon, capsys):
    control, answers = daemon
    answers["Explain"] = EXPLANATION
    assert main(["explain", NIC, "--socket", control]) == 0
    assert capsys.readouterr().out == TEXT
    assert main(["explain", "--json", NIC, "--socket", control]) == 0
    assert json.loads(capsys.readouterr().out) == EXPLANATION


def test_nothing_to_do_is_said(daemon, capsys):
    control, answers = daemon
    kept = {**EXPLANATION["should_be"], "kept": "it cannot be read now"}
    answers["Explain"] = {**EXPLANATION, "should_be": kept, "actions": []}
    assert main(["explain", NIC, "--socket", control]) == 0
    shown = capsys.readouterr().out
    assert "  Not changed now:  it cannot be read now\n" in shown
    assert shown.endswith("Actions:\n  none: the function is as it should be\n")


ON_PV = {
    **EXPLANATION, "dom0": "pv", "as": "pv", "is": {**EXPLANATION["is"], "mappings": []}, "actions": [],
    "should_be": {"mapped_by": None, "because": "a PV dom0 has no 1:1 map", "kept": None, "mappings": []},
}  # fmt: skip
NOTHING = "nothing: dom0 is PV, Linux maps device memory itself"


def test_on_pv_nothing_is_mapped_and_nothing_should_be(daemon, capsys):
    control, answers = daemon
    answers["Explain"] = ON_PV
    assert main(["explain", NIC, "--socket", control]) == 0
    assert capsys.readouterr().out.splitlines()[6:] == [
        "  Decodes:       memory",
        f"  Mapped:        {NOTHING}",
        "Should be:",
        f"  Mapped:  {NOTHING}; --as pvh shows what a PVH dom0 would need",
        "Actions:",
        "  none: the function is as it should be",
    ]


def test_on_pv_what_a_pvh_dom0_would_need_is_shown_only_where_it_is_asked_for(daemon, capsys):
    control, answers = daemon
    answers["Explain"] = {**ON_PV, "as": "pvh", "should_be": {**EXPLANATION["should_be"], "mapped_by": "xen"}}
    assert main(["explain", NIC, "--as", "pvh", "--socket", control]) == 0
    out = capsys.readouterr().out
    assert f"  Mapped:        {NOTHING}\n" in out
    assert "Should be if dom0 were PVH:\n  Mapped by:  Xen (vPCI)" in out
    assert "  Mapped:     BAR 0 0xfe040000-0xfe05ffff (128K)\n" in out
