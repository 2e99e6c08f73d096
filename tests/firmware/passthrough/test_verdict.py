import pytest

from pcipt.firmware.passthrough.verdict import (
    Evidence,
    Guest,
    Reason,
    Unknown,
    Verdict,
    judge,
    names,
)
from pcipt.firmware.regions.findings import with_findings
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import parse_sbdf
from tests.firmware.reserved_tables import dmar, rmrr, scope
from tests.machines import bridge, function, machine

MACHINE = machine(
    bridge("00:1c.0", 2, 4), bridge("02:00.0", 3, 4, parent="00:1c.0"), function("03:00.0", parent="02:00.0")
)
DEEP = MACHINE.functions[parse_sbdf("03:00.0")]


def rule(*said):
    return lambda _function, _evidence: iter(said)


NOTE, WORRY, NO = (
    Reason(verdict.value, verdict, "text") for verdict in (Verdict.OK, Verdict.WARN, Verdict.REFUSE)
)
NOT_HVM = Reason("not-hvm", Verdict.REFUSE, "text", guests=frozenset({Guest.HVM}))
NOT_PV = Reason("not-pv", Verdict.REFUSE, "text", guests=frozenset({Guest.PV}))
NOT_PVH = Reason("not-pvh", Verdict.REFUSE, "text", guests=frozenset({Guest.PVH}))
SOFT, GRAVE, NAMED = Unknown("a"), Unknown("b", Verdict.REFUSE), Unknown("c", Verdict.OK)


@pytest.mark.parametrize(
    ("said", "verdict", "codes", "unknown"),
    [
        ([], Verdict.OK, [], ()),
        ([NOTE], Verdict.OK, ["ok"], ()),
        ([NOTE, WORRY], Verdict.WARN, ["warn", "ok"], ()),  # the graver one first
        ([NOTE, NO, WORRY], Verdict.REFUSE, ["refuse", "warn", "ok"], ()),
        ([SOFT, NOTE, Unknown("b"), SOFT], Verdict.UNKNOWN, ["ok"], ("a", "b")),  # each once
        ([SOFT, WORRY], Verdict.WARN, ["warn"], ("a",)),
        ([GRAVE, WORRY], Verdict.UNKNOWN, ["warn"], ("b",)),  # a refusal may be behind it
        ([GRAVE, NO], Verdict.REFUSE, ["refuse"], ("b",)),
        ([NAMED, NOTE], Verdict.OK, ["ok"], ("c",)),
    ],
)
def test_the_gravest_reason_decides(said, verdict, codes, unknown):
    report = judge(DEEP, Evidence(MACHINE, {}), [rule(*said[:1]), rule(*said[1:])])
    assert (report.verdict, [reason.code for reason in report.reasons]) == (verdict, codes)
    assert (report.unknown, report.path, report.relaxed) == (unknown, "00_1c.0-00_00.0-00_00.0", False)


@pytest.mark.parametrize(
    ("said", "guest", "verdict", "codes", "only"),
    [
        # without a kind of guest the kind that fares best decides, and what holds for others is left out
        ([NOT_HVM, NOT_PVH, WORRY], None, Verdict.WARN, ["warn"], {Guest.PV}),
        ([NOT_PV, NOT_PVH], None, Verdict.OK, [], {Guest.HVM}),
        ([NOT_PV, NOT_HVM, NOT_PVH], None, Verdict.REFUSE, ["not-pv", "not-hvm"], set()),
        ([NOT_PV, NOT_PVH, GRAVE], None, Verdict.UNKNOWN, [], {Guest.HVM}),
        ([NOT_PVH, NOTE], None, Verdict.OK, ["ok"], set()),
        ([NOT_HVM, NOT_PVH], Guest.HVM, Verdict.REFUSE, ["not-hvm"], set()),
        ([NOT_HVM, NOT_PVH], Guest.PV, Verdict.OK, [], set()),
    ],
)
def test_a_kind_of_guest_has_a_verdict_of_its_own(said, guest, verdict, codes, only):
    report = judge(DEEP, Evidence(MACHINE, {}, guest=guest), [rule(*said)])
    assert (report.verdict, [reason.code for reason in report.reasons]) == (verdict, codes)
    assert report.only == only
    assert set(report.guests) == ({guest} if guest is not None else set(Guest))


def test_a_shared_rmrr_needs_the_relaxed_policy():
    table = dmar(rmrr(0x7000_0000, 0x7000_0FFF, scope(3, (0, 0)), scope(0, (0x1D, 0))))
    regions = with_findings(regions_from_tables([table], MACHINE))
    assert judge(DEEP, Evidence(MACHINE, {}, regions=regions), []).relaxed


def test_evidence_walks_up_and_knows_what_leaves():
    evidence = Evidence(MACHINE, {DEEP.sbdf: 256})
    assert [str(each.sbdf) for each in evidence.machine.above(DEEP)] == ["0000:02:00.0", "0000:00:1c.0"]
    assert (evidence.knows_capabilities(DEEP.sbdf), evidence.knows_extended(DEEP.sbdf)) == (True, False)
    other = parse_sbdf("03:00.1")
    assert evidence.remains(DEEP, [DEEP.sbdf, other]) == [other]
    leaving = evidence.leaving([other])
    assert leaving.remains(DEEP, [DEEP.sbdf, other]) == []
    assert leaving.index is evidence.index  # not worked out again


def test_names_are_counted_beyond_a_few():
    sbdfs = [parse_sbdf(f"00:{number:02x}.0") for number in range(6)]
    assert names(sbdfs[:2]) == "0000:00:00.0, 0000:00:01.0"
    assert names(sbdfs).endswith("0000:00:03.0 and 2 more")
