"""What a guest's configuration file of xl says of its devices."""

import attrs
import pytest

from pcipt.firmware.passthrough.check import check_functions, make_snippets
from pcipt.firmware.passthrough.configured import (
    complaints,
    in_line,
    line_for,
    refused_options,
    risky_options,
)
from pcipt.firmware.passthrough.reasons import Guest
from pcipt.firmware.passthrough.verdict import Verdict
from pcipt.firmware.regions.tables import regions_from_tables
from pcipt.pci import parse_sbdf
from pcipt.pci.notation.xl_guest import parse_xl_guest
from pcipt.pci.raw import LinuxFacts
from tests.firmware.passthrough_cases import ENDPOINT, evidence_of, express, host, said_by
from tests.firmware.reserved_tables import dmar, rmrr, scope
from tests.machines import function

NIC, DISK = "00:03.0", "00:04.0"


def evidence(text, *, driver=None):
    raws = [attrs.evolve(express(function(each), ENDPOINT), driver=driver) for each in (NIC, DISK)]
    guest = parse_xl_guest(text, "web.cfg")
    known = evidence_of(*raws, xl=guest, guest=Guest(guest.kind), host=host())
    return attrs.evolve(known, facts=dict.fromkeys(known.machine.functions, LinuxFacts()))


FILES = [
    # the file, the NIC's driver; what the rules say of it
    ('pci = [ "00:03.0" ]', "pciback", {}),
    ('pci = [ "00:03.0" ]', None, {"xl-not-assignable": "ok"}),
    ('pci = [ "00:03.0" ]', "igb", {"xl-not-assignable": "ok"}),
    ('pci = [ "00:03.0,seize=1" ]', "igb", {"xl-seize": "warn"}),
    ('pci = [ "00:03.0,seize=1" ]', None, {}),
    ('pci_seize = 1\npci = [ "00:03.0" ]', "igb", {"xl-seize": "warn"}),
    ('pci = [ "00:03.0,seize=yes" ]', "pciback", {"xl-switch": "warn"}),
    ('pci = [ "00:03.0,permissive=1" ]', "pciback", {"xl-permissive": "warn"}),
    ('pci_permissive = 1\npci = [ "00:03.0,permissive=0" ]', "pciback", {}),
    ('pci = [ "00:03.0", "0000:00:03.*" ]', "pciback", {"xl-twice": "refuse"}),
    ('passthrough = "disabled"\npci = [ "00:03.0" ]', "pciback", {"xl-passthrough-off": "refuse"}),
    ('passthrough = "sync_pt"\npci = [ "00:03.0" ]', "pciback", {}),
    (
        'type = "hvm"\nmemory = 512\nmaxmem = 1024\npci = [ "00:03.0" ]', "pciback",
        {"xl-populate-on-demand": "refuse"},
    ),
    ('type = "hvm"\nmemory = 512\nmaxmem = 512\npci = [ "00:03.0" ]', "pciback", {}),
    ('type = "pv"\nmemory = 512\nmaxmem = 1024\npci = [ "00:03.0" ]', "pciback", {}),  # ballooning
    ('type = "hvm"\npci = [ "00:03.0@5", "00:04.0,vslot=5" ]', "pciback", {"xl-slot-twice": "refuse"}),
    ('type = "hvm"\npci = [ "00:03.0@5", "00:04.0@6" ]', "pciback", {}),
    ('type = "hvm"\npci = [ "00:03.0@0", "00:04.0@0" ]', "pciback", {}),  # 0 is no wish
]  # fmt: skip


@pytest.mark.parametrize(("text", "driver", "said"), FILES)
def test_what_the_file_says(text, driver, said):
    known = evidence(text, driver=driver)
    found = [said_by(rule, NIC, known)[0] for rule in (refused_options, risky_options)]
    assert found[0] | found[1] == said


def test_a_slot_that_two_have_is_refused_by_qemu_only():
    known = evidence('type = "pv"\npci = [ "00:03.0@5", "00:04.0@5" ]', driver="pciback")
    (report, _) = check_functions(known.machine.functions, known)
    assert "xl-slot-twice" not in {each.code for each in report.reasons}


def test_without_a_file_nothing_is_said():
    known = attrs.evolve(evidence('pci = [ "00:03.0,permissive=1" ]'), xl=None)
    assert [said_by(rule, NIC, known) for rule in (refused_options, risky_options)] == [({}, [])] * 2


def test_a_driver_that_nobody_knows_is_not_told():
    known = attrs.evolve(evidence('pci = [ "00:03.0" ]'), facts={})
    assert said_by(risky_options, NIC, known) == ({}, [])


def test_a_function_that_the_file_does_not_name_is_not_judged_by_it():
    known = evidence('pci = [ "00:04.0,permissive=1" ]', driver="pciback")
    assert said_by(risky_options, NIC, known) == ({}, [])


TOLD = [
    ('pci = "00:03.0"', ["pci is no list"]),
    ("", ["names no device"]),
    ("pci = []", ["names no device"]),
    ('pci = [ "00:03.0" ]', []),
    ('pci = [ "name=nic" ]', ["pci-assignable-list -n"]),
    ('rdm = "strategy=host,policy=relaxed"\npci = [ "00:03.0" ]', ["xl ignores the whole option"]),
    ('rdm = "strategy=host"\npci = [ "00:03.0" ]', []),
]


@pytest.mark.parametrize(("text", "words"), TOLD)
def test_what_is_wrong_with_the_file_as_a_whole(text, words):
    told = complaints(parse_xl_guest(text, "web.cfg"))
    assert len(told) == len(words)
    for each, word in zip(told, words, strict=True):
        assert word in each


SHARED = dmar(rmrr(0x7B00_0000, 0x7B00_FFFF, scope(0, (3, 0)), scope(0, (4, 0))))
POLICIES = [
    # the file, the verdict on the shared region, the line
    ('pci = [ "00:03.0" ]', "refuse", 'pci = [ "00:03.0,rdm_policy=relaxed" ]'),
    (
        'pci = [ "00:03.0,rdm_policy=strict" ]', "refuse",
        'pci = [ "00:03.0,rdm_policy=strict,rdm_policy=relaxed" ]',  # the last holds
    ),
    ('pci = [ "00:03.0@5,rdm_policy=relaxed" ]', "warn", 'pci = [ "00:03.0@5,rdm_policy=relaxed" ]'),
    ('rdm = "policy=relaxed"\npci = [ "00:03.0" ]', "refuse", 'pci = [ "00:03.0,rdm_policy=relaxed" ]'),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["pv", "hvm"])  # xl passes the policy on for both
@pytest.mark.parametrize(("text", "verdict", "line"), POLICIES)
def test_a_shared_region_and_the_policy_of_the_file(text, verdict, line, kind):
    known = evidence(f'type = "{kind}"\n{text}', driver="pciback")
    known = attrs.evolve(known, regions=regions_from_tables([SHARED], known.machine)).leaving(
        [parse_sbdf(NIC)]
    )
    (report,) = check_functions([parse_sbdf(NIC)], known)
    assert {each.code: each.verdict.value for each in report.reasons}["reserved-shared"] == verdict
    assert line_for(known.xl, [report]) == (line,)
    assert make_snippets(in_line(known.xl, [report]), together=True).hide == f"(0000:{NIC})"


def test_a_line_without_what_is_refused():
    known = evidence('pci = [ "00:03.0", "00:04.0@5" ]', driver="pciback")
    first, second = check_functions(known.machine.functions, known)
    refused = attrs.evolve(first, verdict=Verdict.REFUSE)
    assert line_for(known.xl, [refused, second]) == ('pci = [ "00:04.0@5" ]',)
    assert in_line(known.xl, [refused, second]) == (second,)
    assert line_for(known.xl, [refused, attrs.evolve(second, verdict=Verdict.REFUSE)]) == ()
