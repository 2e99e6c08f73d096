"""What the host can do, as the service judges it: once, from the tables and from Xen's own answers."""

import errno

import pytest

from pcipt.engine.queue import Reason
from pcipt.firmware.passthrough.host import IommuKind, Source
from pcipt.firmware.passthrough.reasons import Verdict
from pcipt.xen.interface import Dom0Kind, XenIdentity
from pcipt.xen.outcome import Op
from pcipt.xen.simulated.coverage import EVERYTHING
from pcipt.xen.simulated.hypervisor import SimulatedXen
from tests.engine.stage import Stage, work_off
from tests.firmware.host_tables import good_dmar, good_ivrs, madt
from tests.machines import iommu, smbus

GOOD = {IommuKind.VTD: [good_dmar(), madt(2)], IommuKind.AMD_VI: [good_ivrs(), madt(2)]}
BAD = {IommuKind.VTD: [good_dmar(width=0), madt(2)], IommuKind.AMD_VI: [good_ivrs(), madt(2, 5)]}
RELEASES = ("4.17.7", "4.19.6", "4.20.4", "4.22.0")
IOMMU = iommu()


def service(
    tables=(),
    *,
    release="4.17.7",
    dom0=Dom0Kind.PV,
    iommu=EVERYTHING,
    printed=(),
    line="",
    fails=(),
    more=(IOMMU,),
):
    stage = Stage()
    stage.host.tables = list(tables)
    stage.host.raws.update({each.sbdf: each for each in more})
    stage.xen = SimulatedXen(stage.host, XenIdentity(release, dom0), iommu=iommu, command_line=line)
    for text in printed:
        stage.xen.prints(text)
    for op in fails:
        stage.xen.fail(op, errno.EACCES)
    engine = stage.start()
    assert engine.host is None  # Xen was not asked
    work_off(engine)
    return stage, engine


def found(engine):
    return [finding.code for _, finding in engine.findings]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", IommuKind)
def test_a_pv_dom0_with_an_iommu(release, kind):
    host = service(GOOD[kind], release=release)[1].host
    assert (host.verdict, host.kind, host.used, host.remaps) == (Verdict.OK, kind, True, True)
    assert (host.source, host.xen, host.linux) == (Source.XEN, release, "6.1.0-18-amd64")


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", IommuKind)
@pytest.mark.parametrize("uses", [True, False])
@pytest.mark.parametrize("good", [True, False])
def test_xens_word_counts_and_a_difference_is_a_finding(release, kind, uses, good):
    tables = GOOD[kind] if good else BAD[kind]
    engine = service(tables, release=release, iommu=EVERYTHING if uses else None)[1]
    assert engine.host.used is uses
    assert engine.host.verdict is (Verdict.REFUSE if not uses else Verdict.OK if good else Verdict.UNKNOWN)
    assert ("host-differs" in found(engine)) is (uses is not good)


@pytest.mark.parametrize("uses", [True, False])
def test_a_xen_that_does_not_tell_its_abilities_is_known_by_its_other_answers(uses):
    host = service(GOOD[IommuKind.VTD], iommu=EVERYTHING if uses else None, fails=[Op.ABILITIES])[1].host
    assert (host.used, host.source) == (uses, Source.XEN)


@pytest.mark.parametrize(
    ("release", "verdict", "code"),
    [("4.17.7", Verdict.REFUSE, "pvh-dom0"), ("4.20.4", Verdict.REFUSE, "pvh-dom0-linux")],
)
def test_a_pvh_dom0_is_told_what_it_cannot_do(release, verdict, code):
    printed = ["I/O virtualisation enabled", "Interrupt remapping enabled"]
    host = service(release=release, dom0=Dom0Kind.PVH, printed=printed)[1].host
    assert (host.verdict, host.reasons[0].code, host.remaps) == (verdict, code, True)


def test_iommu_off_on_xens_command_line_is_named():
    engine = service(GOOD[IommuKind.VTD], iommu=None, line="iommu=off dom0_mem=1G")[1]
    assert engine.host.reasons[0].code == "iommu-off"
    assert found(engine) == []


def test_an_option_that_cures_the_table_is_no_difference():
    engine = service(BAD[IommuKind.AMD_VI], line="ivrs_ioapic[5]=00:05.0")[1]
    assert (engine.host.verdict, found(engine)) == (Verdict.OK, [])


def test_what_xen_printed_at_boot_says_that_interrupts_are_not_remapped():
    printed = ["I/O virtualisation enabled", "Interrupt remapping disabled"]
    engine = service(GOOD[IommuKind.AMD_VI], printed=printed)[1]
    assert (engine.host.verdict, engine.host.remaps) == (Verdict.WARN, False)
    assert "host-differs" in found(engine)


def test_a_machine_without_any_table_is_not_known_to_have_no_iommu():
    engine = service([], fails=[Op.CONSOLE])[1]
    assert (engine.host.used, engine.host.verdict) == (True, Verdict.UNKNOWN)  # is remapping used?
    assert found(engine) == []


def test_it_is_judged_once():
    stage, engine = service(GOOD[IommuKind.VTD])
    first = engine.host
    asked = [call.op for call in stage.xen.calls].count(Op.ABILITIES)
    stage.host.tables = []
    engine.add_everything(Reason.REQUESTED)
    work_off(engine)
    assert engine.host is first
    assert [call.op for call in stage.xen.calls].count(Op.ABILITIES) == asked == 1


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("mode", [0, 8])
def test_the_combined_mode_of_an_sp5100_tells_why_xen_has_no_iommu(release, mode):
    engine = service(GOOD[IommuKind.AMD_VI], release=release, iommu=None, more=(IOMMU, smbus(mode)))[1]
    assert engine.host.verdict is Verdict.REFUSE
    assert (engine.host.reasons[0].code == "sp5100-combined-mode") is bool(mode)
    assert ("host-differs" in found(engine)) is (not mode)
