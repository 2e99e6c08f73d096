import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pcipt.firmware.passthrough.check import check_functions, make_snippets, xl_name
from pcipt.firmware.passthrough.verdict import Report, Verdict
from pcipt.firmware.regions.regions import Regions
from pcipt.pci import RawFunction, Sbdf, parse_sbdf
from tests.firmware.passthrough_cases import ENDPOINT, evidence_of, express, host
from tests.machines import bridge, function


def test_the_gravest_come_first_and_bridges_are_asked_little():
    evidence = evidence_of(
        express(function("00:03.0"), ENDPOINT),
        bridge("00:04.0", 5, 5),
        function("00:05.0"),
        function("00:05.1"),
        host=host(),
    )
    reports = check_functions(evidence.machine.functions, evidence)
    assert [(str(report.sbdf), report.verdict.value) for report in reports] == [
        ("0000:00:04.0", "refuse"),
        ("0000:00:03.0", "unknown"),  # whether it can be reset, and more
        ("0000:00:05.0", "warn"),
        ("0000:00:05.1", "warn"),
    ]
    assert [reason.code for reason in reports[0].reasons] == ["platform"]


def report(address, verdict=Verdict.OK, *, relaxed=False):
    return Report(parse_sbdf(address), None, verdict, (), (), relaxed)


REPORTS = (
    report("00:1f.0", Verdict.REFUSE),
    report("03:00.1", Verdict.WARN, relaxed=True),
    report("03:00.0"),
)


def test_lines_to_paste():
    one = make_snippets(REPORTS, together=True)
    assert one.xl == ('pci = [ "03:00.0", "03:00.1,rdm_policy=relaxed" ]',)
    assert one.hide == "(0000:03:00.0)(0000:03:00.1)"
    each = make_snippets(REPORTS, together=False)
    assert each.xl == ('pci = [ "03:00.0" ]', 'pci = [ "03:00.1,rdm_policy=relaxed" ]')
    nothing = make_snippets(REPORTS[:1], together=True)
    assert (nothing.xl, nothing.hide) == ((), "")


@pytest.mark.parametrize(("address", "name"), [("0000:03:00.0", "03:00.0"), ("0001:03:1f.7", "0001:03:1f.7")])
def test_addresses_as_xl_has_them(address, name):
    assert xl_name(parse_sbdf(address)) == name


SPACES = st.lists(
    st.one_of(
        st.binary(min_size=64, max_size=320), st.binary(min_size=64, max_size=64).map(lambda b: b * 64)
    ),
    min_size=1,
    max_size=6,
)


@given(SPACES, st.lists(st.sampled_from([None, "00:00.0", "00:01.0", "00:02.0"]), min_size=6, max_size=6))
def test_any_machine_is_judged_without_an_exception(spaces, parents):
    raws = [
        RawFunction(Sbdf(0, 0, number, 0), data, parent=parse_sbdf(parent) if parent else None)
        for number, (data, parent) in enumerate(zip(spaces, parents, strict=False))
    ]
    evidence = evidence_of(*raws, regions=Regions(), memory=(), fixed=(), xen={})
    reports = check_functions(evidence.machine.functions, evidence)
    assert {report.sbdf for report in reports} == set(evidence.machine.functions)


def test_a_large_machine_is_judged_in_little_time():
    ports = [bridge(f"00:{number:02x}.0", number + 1, number + 1) for number in range(16)]
    nics = [
        function(
            f"{number % 16 + 1:02x}:{number // 16 // 8:02x}.{number // 16 % 8:x}",
            parent=f"00:{number % 16:02x}.0",
        )
        for number in range(2000)
    ]
    evidence = evidence_of(*ports, *nics)
    before = time.thread_time()
    assert len(check_functions(evidence.machine.functions, evidence)) == 2016
    assert time.thread_time() - before < 2
