"""No `ok` for a function of a machine whose tables Xen would refuse, by Xen's answers to published tables."""

import pytest

from pcipt.firmware.passthrough import function as rules
from pcipt.firmware.passthrough.host import HostFacts
from pcipt.firmware.passthrough.host_rules import judge_host
from pcipt.firmware.passthrough.host_tables import say_of
from pcipt.firmware.passthrough.reasons import Guest, Verdict
from pcipt.firmware.passthrough.verdict import judge
from pcipt.pci import parse_sbdf
from pcipt.xen.releases import parse_version
from tests.firmware.passthrough_cases import evidence_of
from tests.firmware.test_xen_answers import HOME, by_table, judged, tables
from tests.machines import function

NIC = function("03:00.0")


@pytest.mark.parametrize("table", tables(""))
def test_a_host_can_give_devices_away_if_xen_takes_its_tables_and_only_then(table):
    data = (HOME / table).read_bytes()
    for line in by_table()[table]:
        say = say_of(judged(line, data))
        host = judge_host(HostFacts(True, Guest.PV, line["xen"], parse_version(line["xen"]), "6.1.0", say))
        refused = bool(line["answer"]["result"] or line["answer"]["died"])
        what = (line["xen"], line["regions"], line["present"])
        assert (host.used, host.verdict is Verdict.REFUSE) == (not refused, refused), what
        evidence = evidence_of(NIC, host=host)
        verdict = judge(evidence.machine.functions[parse_sbdf("03:00.0")], evidence, [rules.host]).verdict
        assert verdict is host.verdict
        if refused:
            (reason, *_) = host.reasons
            assert reason.place.startswith(("DMAR", "IVRS")), what
            assert reason.cure
            assert reason.vendor
