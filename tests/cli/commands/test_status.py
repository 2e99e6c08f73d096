import json

import pytest

from pcipt.cli.main import main
from tests.answers import ACTIONS, LONG, NIC, STATUS, WHEN, on_terminal

HEALTHY = {**STATUS, "health": "healthy", "findings": [], "actions": []}


OLD = "0xfe000000"


def test_it_is_shaped_as_systemctls(daemon, capsys):
    control, answers = daemon
    answers["Status"] = STATUS
    assert main(["status", "--socket", control]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "* pcipt - the PCI service of the hardware domain"  # a pipe gets ASCII
    assert lines[1] == "     Health: degraded"
    assert lines[2].startswith("    Running: since 2026-11-22 19:11:32 UTC")
    assert lines[3:13] == [
        "        Xen: 4.17.7, dom0 PVH",
        "       Mode: enforce",
        "  Functions: 10, 9 known to Xen, 1 added by pcipt",
        "     Ghosts: 0",
        "    Orphans: 0",
        "   Reserved: 3 regions, 1 shared by several functions (pcipt rmrr)",
        "   Mappings: 4, 1 stale",
        "   Findings: 1",
        f"   Watching: kprobe, 12 writes seen, 0 lost; last change {WHEN} {NIC} bar-moved",
        "",
    ]
    assert lines[13:15] == ["Findings:", f"  {NIC} unknown-to-xen: {LONG}"]
    assert lines[16] == "Last actions:"
    assert lines[18] == (
        f"  {WHEN} map-mmio {NIC} 0xfe040000-0xfe05ffff (128K): done; planned because "
        "BAR 0 moved here from 0xfe000000"
    )


def test_on_pv_nothing_is_said_of_mappings(daemon, capsys):
    control, answers = daemon
    counts = {**STATUS["counts"], "mappings": 0, "stale": 0}
    away = [{"sbdf": NIC, "owner": "guest 7"}]
    answers["Status"] = {**STATUS, "dom0": "pv", "counts": counts, "given_away": away}
    assert main(["status", "--socket", control]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert "Mappings" not in "".join(lines)
    order = ("   Reserved: 3 regions, ", "Findings:", "Given away:", "Last actions:")
    at = [next(n for n, line in enumerate(lines) if line.startswith(begin)) for begin in order]
    assert at == sorted(at)
    assert lines[at[2] + 1] == f"  {NIC} guest 7"


def test_a_build_is_told_with_what_is_assumed_of_it(daemon, capsys):
    control, answers = daemon
    safer = [{"fact": "any switch of decode panics", "taken": True}, {"fact": "it tells", "taken": False}]
    build = {"version": "4.17.x", "basis": "build", "safer": safer}
    answers["Status"] = {**HEALTHY, "xen": "4.17.4-qubes", "xen_release": build}
    assert main(["status", "--socket", control]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[3] == "        Xen: 4.17.4-qubes, dom0 PVH"
    assert shown[4].startswith("    Release: 4.17.x: the third number of the version is not known")
    at = shown.index("Not known for this build of Xen; pcipt takes the safer answer:")
    assert shown[at + 1 : at + 3] == ["  yes  any switch of decode panics", "  no   it tells"]


def test_a_newer_xen_is_told(daemon, capsys):
    control, answers = daemon
    newer = {"version": "4.23.0", "basis": "newer", "safer": []}
    answers["Status"] = {**HEALTHY, "xen": "4.23.0", "xen_release": newer}
    assert main(["status", "--socket", control]) == 0
    shown = capsys.readouterr().out
    assert (
        "    Release: 4.23.0: newer than all releases that pcipt knows; pcipt treats it like the newest"
        in shown
    )
    assert "Not known of this build" not in shown


def test_bars_that_are_not_missed_are_told_beside_the_findings(daemon, capsys):
    control, answers = daemon
    note = {"sbdf": NIC, "code": "vf-bar-unassigned", "text": "VF BAR 0 (1M memory) has no address"}
    answers["Status"] = {**HEALTHY, "unassigned": [note]}
    assert main(["status", "--socket", control]) == 0
    shown = capsys.readouterr().out.splitlines()
    at = shown.index("BARs without an address:")
    assert shown[at + 1] == f"  {NIC} VF BAR 0 (1M memory) has no address"


def test_health_is_the_exit_code(daemon, capsys):
    control, answers = daemon
    for status, code in ((STATUS, 4), (HEALTHY, 0)):
        answers["Status"] = status
        assert main(["status", "-q", "--socket", control]) == code
        assert capsys.readouterr().out == ""
        assert main(["status", "--json", "--socket", control]) == code
        assert json.loads(capsys.readouterr().out) == status


def test_a_terminal_gets_a_dot_and_a_hint_where_something_is_wrong(daemon):
    control, answers = daemon
    for status, shade, hint in ((STATUS, "33", True), (HEALTHY, "32", False)):
        answers["Status"] = status
        shown, _ = on_terminal("status", "--socket", control)
        assert shown.startswith(f"\x1b[{shade}m●\x1b[0m pcipt")
        assert ("`pcipt explain SBDF`" in shown) is hint
    answers["Status"] = STATUS
    assert "`pcipt" not in on_terminal("status", "--no-legend", "--socket", control)[0]


def test_resync_lists_its_actions_with_their_ranges(daemon, capsys):
    control, answers = daemon
    answers["Resync"] = {"version": 1, "health": "degraded", "actions": ACTIONS}
    assert main(["resync", "--dry-run", "--socket", control]) == 4
    assert capsys.readouterr().out.splitlines()[1:3] == [
        f"map-mmio {NIC} 0xfe040000-0xfe05ffff (128K): done; planned because BAR 0 moved here from {OLD}",
        f"unmap-mmio {NIC} 0x383fe0000000-0x383fefffffff (256M): failed (EPERM); planned because {LONG}",
    ]
    answers["Resync"] = {"version": 1, "health": "degraded", "actions": []}
    assert main(["resync", "--socket", control]) == 4
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("; `pcipt status` shows the next step of each finding\n")


def test_nothing_hostile_reaches_the_terminal(daemon, capsys):
    control, answers = daemon
    bad = "\x1b[2J\n"
    finding = {"sbdf": NIC, "code": "ghost", "text": bad}
    action = {**ACTIONS[0], "when": WHEN, "reason": bad, "detail": bad}
    answers["Status"] = {**STATUS, "mode": bad, "findings": [finding], "actions": [action]}
    assert main(["status", "--socket", control]) == 4
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert len(shown.splitlines()) == 18


def host(iommu=True, **guests):
    reasons = [
        {"code": "pvh-dom0", "verdict": "refuse"}, {"code": "pv-guest-needs", "verdict": "ok"},
    ]  # fmt: skip
    used = {"kind": "VT-d", "used": iommu, "interrupt_remapping": iommu, "source": "xen"}
    worst = "refuse" if set(guests.values()) == {"refuse"} else "ok"
    return {
        "verdict": worst,
        "iommu": used,
        "guests": guests,
        "reasons": reasons,
        "unknown": [],
        "findings": [],
    }


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (host(pv="ok", hvm="ok", pvh="refuse"),
         "VT-d used, interrupts remapped; devices for guests: pv and hvm yes, pvh no"),
        (host(pv="refuse", hvm="unknown", pvh="refuse"),
         "VT-d used, interrupts remapped; devices for guests: hvm not known, pv and pvh no"),
        (host(iommu=False, pv="refuse", hvm="refuse", pvh="refuse"),
         "VT-d not used; devices for guests: none (pvh-dom0; see pcipt host)"),
        (host(iommu=None, pv="unknown", hvm="unknown", pvh="refuse"),
         "VT-d not known to be used; devices for guests: pv and hvm not known, pvh no"),
        (None, None),
    ],
)  # fmt: skip
def test_a_line_about_the_host(daemon, capsys, said, line):
    control, answers = daemon
    answers["Status"] = {**HEALTHY, "host": said}
    assert main(["status", "--socket", control]) == 0
    shown = [text for text in capsys.readouterr().out.splitlines() if text.startswith("       Host: ")]
    assert shown == ([f"       Host: {line}"] if line is not None else [])
