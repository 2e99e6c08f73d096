"""What a host can do: each rule, on every release, by Xen's word and by the tables."""

import attrs
import pytest

from pcipt.firmware.passthrough.host import HostFacts, IommuKind, Source, TablesSay, XenSays
from pcipt.firmware.passthrough.host_rules import NOTHING_KNOWN, judge_host
from pcipt.firmware.passthrough.host_tables import tables_say
from pcipt.firmware.passthrough.host_view import host_from_json, host_to_json
from pcipt.firmware.passthrough.reasons import Guest, Reason, Verdict
from pcipt.xen.releases import parse_version
from tests.firmware.host_tables import good_dmar, good_ivrs, madt

RELEASES = ("4.17.0", "4.17.7", "4.18.6", "4.19.6", "4.20.4", "4.21.2", "4.22.0")
GIVING = ("4.20.0", "4.20.4", "4.21.2", "4.22.0", "4.23.0")
KINDS = (IommuKind.VTD, IommuKind.AMD_VI)
NO_TABLE = TablesSay(None, accepted=False, remaps=False)
EVERY = frozenset(Guest)
BAD = Reason("some-rule", Verdict.REFUSE, "it is refused", "ask", place="DMAR at 0x40", vendor="line")
FLAG = Reason("some-flag", Verdict.WARN, "no remapping", "switch it on")


def good(kind=IommuKind.VTD):
    return TablesSay(kind, accepted=True, remaps=True)


def refused(kind=IommuKind.VTD):
    return TablesSay(kind, accepted=False, remaps=False, reasons=(BAD,))


def facts(release="4.17.7", dom0=Guest.PV, linux="6.1.0-18-amd64", tables=None, **said):
    version = parse_version(release) if release is not None else None
    return HostFacts(True, dom0, release, version, linux, tables, None, XenSays(**said))


def codes(host):
    return [reason.code for reason in host.reasons]


def verdicts(host):
    return {guest.value: verdict.value for guest, verdict in host.guests.items()}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("release", RELEASES)
def test_a_pv_dom0_whose_tables_xen_takes(release, kind):
    host = judge_host(facts(release, tables=good(kind)))
    assert verdicts(host) == {"pv": "ok", "hvm": "ok", "pvh": "refuse"}
    assert (host.verdict, host.kind, host.used, host.remaps) == (Verdict.OK, kind, True, True)
    assert (host.source, host.unknown, host.findings) == (Source.TABLES, (), ())
    assert codes(host) == ["pvh-guest", "pv-guest-needs"]
    needs = host.reasons[-1]
    assert "e820_host" in needs.cure
    assert "swiotlb" in needs.cure


@pytest.mark.parametrize("release", [each for each in RELEASES if each < "4.20"])
@pytest.mark.parametrize("linux", ["6.1.0-18-amd64", "6.12.48+deb13-amd64", None])
def test_a_pvh_dom0_of_old_cannot_give_devices_away(release, linux):
    host = judge_host(facts(release, Guest.PVH, linux))
    assert set(verdicts(host).values()) == {"refuse"}
    reason = host.reasons[0]
    assert (reason.code, release in reason.place) == ("pvh-dom0", True)
    assert "PV dom0" in reason.cure
    assert "4.20.0" in reason.cure
    assert "6.12.0" in reason.cure


@pytest.mark.parametrize("release", GIVING)
@pytest.mark.parametrize(
    ("linux", "hvm", "code"),
    [
        ("6.11.11", "refuse", "pvh-dom0-linux"),
        ("6.1.0-40-amd64", "refuse", "pvh-dom0-linux"),
        ("6.12.0", "ok", None),
        ("6.12.48+deb13-amd64", "ok", None),
        ("7.0.1", "ok", None),
        (None, "unknown", None),
        ("custom", "unknown", None),
    ],
)
def test_a_pvh_dom0_gives_devices_to_hvm_guests_only_and_needs_its_linux(release, linux, hvm, code):
    host = judge_host(facts(release, Guest.PVH, linux, remaps=True))
    assert verdicts(host) == {"pv": "refuse", "hvm": hvm, "pvh": "refuse"}
    assert "pvh-dom0-pv-guest" in codes(host)
    assert "pv-guest-needs" not in codes(host)
    assert (code in codes(host)) is (code is not None)
    assert [each.what for each in host.unknown] == (["version of dom0's Linux"] if hvm == "unknown" else [])


@pytest.mark.parametrize("release", RELEASES)
def test_a_pvh_dom0_is_proof_of_an_iommu(release):
    host = judge_host(attrs.evolve(facts(release, Guest.PVH), kind=IommuKind.AMD_VI))
    assert (host.used, host.source, host.kind) == (True, Source.DOM0, IommuKind.AMD_VI)
    assert "interrupt remapping" in [each.what for each in host.unknown]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("tables", "said", "code"),
    [
        (refused(), {}, "some-rule"),
        (refused(), {"iommu": False}, "some-rule"),
        (NO_TABLE, {}, "no-iommu"),
        (NO_TABLE, {"iommu": False}, "no-iommu"),
        (None, {"iommu": False}, "no-iommu"),
        (good(), {"iommu": False}, "no-iommu"),
        (good(), {"iommu_off": "iommu=off"}, "iommu-off"),
        (good(), {"iommu": False, "iommu_off": "iommu=0"}, "iommu-off"),
        (refused(), {"iommu": False, "iommu_off": "no-iommu"}, "iommu-off"),
    ],
)
def test_without_an_iommu_no_guest_is_given_a_device(release, tables, said, code):
    host = judge_host(facts(release, tables=tables, **said))
    assert set(verdicts(host).values()) == {"refuse"}
    assert (codes(host)[0], host.used, host.remaps) == (code, False, False)
    assert "pv-guest-needs" not in codes(host)
    assert host.reasons[0].cure


def test_the_word_that_switches_the_iommu_off_is_named():
    (reason, *_) = judge_host(facts(tables=good(), iommu=False, iommu_off="iommu=no")).reasons
    assert (reason.place, reason.cure) == ("Xen's command line", "start Xen without iommu=no")


def test_what_xen_printed_explains_its_no():
    (reason, *_) = judge_host(
        facts(tables=good(), iommu=False, lines=("AMD-Vi: Error initialization",))
    ).reasons
    assert "AMD-Vi: Error initialization" in reason.text


@pytest.mark.parametrize("kind", KINDS)
def test_xens_word_wins_and_a_difference_is_a_finding(kind):
    used = judge_host(facts(tables=refused(kind), iommu=True, remaps=True))
    assert (used.verdict, used.source) == (Verdict.OK, Source.XEN)
    assert [each.code for each in used.findings] == ["host-differs"]
    unused = judge_host(facts(tables=good(kind), iommu=False))
    assert (unused.verdict, [each.code for each in unused.findings]) == (Verdict.REFUSE, ["host-differs"])
    unmapped = judge_host(facts(tables=good(kind), iommu=True, remaps=False))
    assert (unmapped.verdict, unmapped.remaps) == (Verdict.WARN, False)
    assert "interrupt remapping" in unmapped.findings[0].text


@pytest.mark.parametrize(
    "said",
    [
        {"iommu": True, "remaps": True},
        {"iommu": True},
        {"iommu": False, "iommu_off": "iommu=off"},
        {"iommu": True, "remaps": False, "remap_off": "iommu=no-intremap"},
    ],
)
def test_what_was_asked_for_is_no_difference(said):
    assert judge_host(facts(tables=good(), **said)).findings == ()


@pytest.mark.parametrize(
    ("tables", "said", "code", "cure"),
    [
        (good(), {"remap_off": "iommu=no-intremap"}, "interrupts-not-remapped", "without iommu=no-intremap"),
        (good(), {"iommu": True, "remaps": False}, "interrupts-not-remapped", "firmware"),
        (attrs.evolve(good(), remaps=False, reasons=(FLAG,)), {}, "some-flag", "switch it on"),
    ],
)
def test_interrupts_that_are_not_remapped_are_a_warning(tables, said, code, cure):
    host = judge_host(facts(tables=tables, **said))
    assert verdicts(host) == {"pv": "warn", "hvm": "warn", "pvh": "refuse"}
    (reason,) = (each for each in host.reasons if each.code == code)
    assert cure in reason.cure


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("release", RELEASES)
def test_a_xen_that_runs_with_force_uses_an_iommu(release, kind):
    for tables in (None, refused(kind), TablesSay(kind)):
        host = judge_host(facts(release, tables=tables, forced=True, kind=kind))
        assert (host.used, host.remaps, host.source) == (True, True, Source.XEN)
    host = judge_host(facts(release, tables=good(kind), forced=True, remap_off="iommu=no-intremap"))
    assert (host.used, host.remaps) == (True, False)
    host = judge_host(facts(release, tables=good(kind), forced=True, iommu_off="iommu=off"))
    assert host.used is False


@pytest.mark.parametrize("release", RELEASES)
def test_without_queued_invalidation_vt_d_remaps_no_interrupts(release):
    off = {"queue_off": "iommu=no-qinval"}
    host = judge_host(facts(release, tables=good(), **off))
    assert [each.what for each in host.unknown] == ["interrupt remapping"]  # but for version 6 of VT-d
    host = judge_host(facts(release, tables=good(), iommu=True, remaps=False, **off))
    (reason,) = (each for each in host.reasons if each.code == "interrupts-not-remapped")
    assert "without iommu=no-qinval" in reason.cure
    assert host.findings == ()  # it is no difference from the tables
    host = judge_host(facts(release, tables=good(IommuKind.AMD_VI), **off))
    assert (host.remaps, host.verdict) == (True, Verdict.OK)


def test_without_acpi_xen_has_no_iommu():
    host = judge_host(facts(tables=good(), iommu_off="acpi=off"))
    (reason,) = (each for each in host.reasons if each.code == "iommu-off")
    assert (host.used, host.verdict) == (False, Verdict.REFUSE)
    assert "without acpi=off" in reason.cure


@pytest.mark.parametrize(
    ("given", "unknown"),
    [
        (HostFacts(), ["Xen's version", "kind of dom0", "tables of the IOMMU (DMAR, IVRS)"]),
        (facts(), ["tables of the IOMMU (DMAR, IVRS)"]),
        (facts(tables=TablesSay(IommuKind.VTD, unknown=("the memory map",))), ["the memory map"]),
        (facts(release=None, tables=good()), ["Xen's version"]),
        (facts(dom0=None, tables=good()), ["kind of dom0"]),
        (
            attrs.evolve(facts(tables=good()), under_xen=False, xen=None),
            ["Xen, because this Linux does not run under it"],
        ),
        (facts(iommu=True), ["interrupt remapping"]),
    ],
)  # fmt: skip
def test_what_could_not_be_looked_at_is_named_and_gives_no_ok(given, unknown):
    host = judge_host(given)
    assert [each.what for each in host.unknown] == unknown
    assert verdicts(host) == {"pv": "unknown", "hvm": "unknown", "pvh": "refuse"}
    assert host.verdict is Verdict.UNKNOWN


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ({Guest.PV}, {"pv": "ok", "hvm": "refuse", "pvh": "refuse"}),
        ({Guest.HVM, Guest.PVH}, {"pv": "refuse", "hvm": "ok", "pvh": "refuse"}),
        (set(Guest), {"pv": "ok", "hvm": "ok", "pvh": "refuse"}),
        (set(), {"pv": "refuse", "hvm": "refuse", "pvh": "refuse"}),
    ],
)
def test_kinds_of_guest_that_xen_cannot_run(runs, expected):
    assert verdicts(judge_host(facts(tables=good(), guests=frozenset(runs)))) == expected


HOSTS = {
    "nothing": NOTHING_KNOWN,
    "good": judge_host(facts(tables=good(), iommu=True, remaps=True, guests=EVERY)),
    "refused": judge_host(facts(tables=refused())),
    "differs": judge_host(facts(tables=refused(IommuKind.AMD_VI), iommu=True, kind=IommuKind.AMD_VI)),
    "pvh": judge_host(facts("4.20.4", Guest.PVH, None)),
}


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_survives_its_json(name):
    assert host_from_json(host_to_json(HOSTS[name])) == HOSTS[name]


# Real tables, judged as Xen reads them.


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("table", [good_dmar(), good_ivrs()], ids=["vtd", "amd-vi"])
def test_tables_that_xen_takes_give_ok(release, table):
    say = tables_say([table, madt(2)], (), parse_version(release), None)
    assert (say.accepted, say.remaps, say.reasons) == (True, True, ())
    assert judge_host(facts(release, tables=say)).verdict is Verdict.OK


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    ("tables", "place"),
    [([good_dmar(width=0), madt(2)], "DMAR"), ([good_ivrs(), madt(2, 5)], "IVRS")],
    ids=["vtd", "amd-vi"],
)
def test_tables_that_xen_refuses_give_a_reason_with_place_cure_and_a_line_for_the_vendor(
    release, tables, place
):
    say = tables_say(tables, (), parse_version(release), None)
    host = judge_host(facts(release, tables=say))
    reason = host.reasons[0]
    assert (host.verdict, reason.place.startswith(place)) == (Verdict.REFUSE, True)
    assert reason.cure
    assert place in reason.vendor
    assert "xen/drivers/passthrough/" in reason.vendor


def test_a_dmar_without_the_flag_for_interrupts_warns():
    say = tables_say([good_dmar(flags=0), madt(2)], (), parse_version("4.20.4"), None)
    host = judge_host(facts("4.20.4", tables=say))
    assert (host.verdict, host.used, host.remaps) == (Verdict.WARN, True, False)


def test_without_the_madt_amd_vi_is_not_known():
    say = tables_say([good_ivrs()], (), parse_version("4.20.4"), None)
    assert judge_host(facts("4.20.4", tables=say)).verdict is Verdict.UNKNOWN
