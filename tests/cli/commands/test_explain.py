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
  unmap-mmio BAR 0 0xfe040000-0xfe05ffff (128K): gone
    not-applicable: PV
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
    assert "  Kept as it is:  it cannot be read now\n" in shown
    assert shown.endswith("Actions:\n  none: it is as it should be\n")
