"""Every finding and every refusal says what can be done: a command, or that nothing can be done and why.

All modules are walked for the codes of findings, and the guards' table for the rules that refuse.
"""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from pcipt.cli.main import make_parser
from pcipt.daemon import changed, kept
from pcipt.firmware.acceptance.rules import RULES as ACCEPTANCE
from pcipt.firmware.passthrough import host_rules
from pcipt.firmware.passthrough import reasons as verdicts
from pcipt.firmware.passthrough.reasons import Reason, Verdict
from pcipt.firmware.regions.findings import RULES as REGIONS
from pcipt.pci import parse_sbdf
from pcipt.pci.finding import NOTES, Finding
from pcipt.pci.notation.next_steps import NOTHING, STEPS, next_step
from pcipt.pci.policy import resolve
from pcipt.remap.actions import Action
from pcipt.remap.guard import next_steps as refusals
from pcipt.remap.guard.rules import RULES
from pcipt.xen.complaints import Code

ROOT = Path(__file__).resolve().parents[1] / "pcipt"
FILES = ("ledger", "boot-snapshot", "mappings")  # the documents of the daemon's store
#  how a module writes a code that is no literal: the codes that it can be; None is a code from elsewhere
CODES = {
    "changed.py": {"CHANGED": {changed.CHANGED},
                   "each.code": {"line-absent", "line-malformed", "line-stale"}},
    "kept.py": {"UNREADABLE": {kept.UNREADABLE}},
    "added.py": {"OPTION": {"region-option"}},
    "tables.py": {"OPTION": {"region-option"}},
    "host_rules.py": {"OPTION": {"region-option"}, "FINDING": {host_rules.FINDING}},
    "resolve.py": {"MISMATCH": {resolve.MISMATCH}},
    "document.py": {"f'{self.name}-damaged'": {f"{name}-damaged" for name in FILES}},
    "saver.py": {"f'{name}-unsaved'": {f"{name}-unsaved" for name in FILES}},
    "complaint_texts.py": {"complaint.code.value": {code.value for code in Code}},
    "reading.py": {"self.rule.name": {rule.name for rule in ACCEPTANCE}},
    "findings.py": {"code": {code for code, _ in REGIONS}},
    "table.py": {"code": {"acpi-checksum", "acpi-length"}},
    "walk.py": {"code": {"capability-loop", "capability-pointer"}},
    "sysfs.py": {"code": {"duplicate-address", "file-missing", "link-broken", "link-dangling", "link-loop",
                          "link-mismatch", "link-outside", "read-error"}},
    "raw_function.py": {"code": {"config-short", "file-empty", "file-kind", "file-missing", "file-too-long",
                                   "read-error", "value-malformed"}},
    "blocks.py": {"code": {"dump-malformed", "value-malformed"}},
    "told.py": {"item['code']": None},
    "pvh.py": {"each.code": None},
    "host_view.py": {"each['code']": None},
}  # fmt: skip


def written_codes():
    """Yield (module, code) for each Finding that is made anywhere."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Finding"):
                continue
            code = node.args[0]
            options = [code.body, code.orelse] if isinstance(code, ast.IfExp) else [code]
            for option in options:
                if isinstance(option, ast.Constant):
                    yield path.name, option.value
                    continue
                word = ast.unparse(option)
                assert word in CODES.get(path.name, {}), f"{path.name}: which codes can {word} be?"
                for each in CODES[path.name][word] or ():
                    yield path.name, each


WRITTEN = sorted({code for _, code in written_codes()})


def is_a_step(text):
    commands = re.findall(r"`([^`]+)`", text)
    for command in commands:
        word, _, rest = command.partition(" ")
        if word == "pcipt":
            make_parser(rest.split()[0])  # there is such a command
    return bool(commands) or text.startswith(NOTHING) or any(f"; {word}" in text for word in NOTHING)


def test_the_walk_finds_the_codes():
    assert len(WRITTEN) > 120
    assert {"orphan", "ledger-damaged", "dmar-width", "capability-hidden", "io-bar-unassigned"} <= set(
        WRITTEN
    )


@pytest.mark.parametrize("code", WRITTEN)
def test_each_finding_ends_in_a_command_or_says_that_nothing_can_be_done(code):
    step = Finding(code, "text").to_json("0000:03:00.0")["next"]
    assert is_a_step(step), step
    assert "{" not in step
    assert "SBDF" not in step
    assert len(step) < 260


def test_the_table_has_no_code_that_nobody_writes():
    assert set(STEPS) <= set(WRITTEN)
    assert set(WRITTEN) >= NOTES


def test_without_an_address_the_word_stays_and_an_unknown_code_has_no_step():
    assert "devices/SBDF/remove" in next_step("bar-drift")
    assert "devices/0000:03:00.0/remove" in next_step("bar-drift", "0000:03:00.0")
    assert next_step("code-of-another-version") == ""
    assert Finding("code-of-another-version", "t").to_json() == {
        "code": "code-of-another-version", "text": "t", "next": "",
    }  # fmt: skip


@pytest.mark.parametrize(("rule", "kind"), sorted({(name, kind.word) for name, kind, _ in RULES}))
def test_each_refusal_ends_in_a_command_or_says_that_nothing_can_be_done(rule, kind):
    step = refusals.next_step(kind, rule, "0000:03:00.0")
    assert is_a_step(step), step
    assert "{" not in step
    assert len(step) < 260


def test_the_table_of_refusals_has_the_rules_and_no_others():
    assert set(refusals.STEPS) == {(kind.word, name) for name, kind, _ in RULES}
    assert {kind for kind, _ in refusals.STEPS} == {kind.word for kind in get_args(Action)}
    assert refusals.next_step("add-device", None, "0000:03:00.0") == ""


def reasons():
    """Yield (module, code, whether it has a cure) for each Reason of a verdict that is made anywhere."""
    places = [*(ROOT / "firmware/passthrough").glob("*.py"), ROOT / "cli/commands/passthrough/release.py"]
    for path in sorted(places):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Reason"):
                continue
            if ast.unparse(node.args[1]) == "Verdict.OK":
                continue
            code = node.args[0].value if isinstance(node.args[0], ast.Constant) else None
            yield path.name, code, len(node.args) > 3 or any(each.arg == "cure" for each in node.keywords)


REASONS = list(reasons())


def test_each_reason_against_a_function_has_a_cure_or_a_step():
    """A reason whose code is that of a finding has the finding's step."""
    assert len(REASONS) > 40
    without = {code for _, code, cured in REASONS if not cured and code is not None}
    assert without
    assert [code for code in without if not is_a_step(verdicts.STEPS.get(code, ""))] == []
    assert all(is_a_step(step) for step in verdicts.STEPS.values())


@pytest.mark.parametrize("code", ["header-unknown", "capability-loop", "guest-leftover", "region-unaligned"])
def test_a_reason_of_a_finding_gets_its_step(code):
    reason = verdicts.with_step(Reason(code, Verdict.WARN, "text"), parse_sbdf("03:00.0"))
    assert is_a_step(reason.cure)
    assert reason.cure == next_step(code, "0000:03:00.0")
    assert verdicts.with_step(reason, parse_sbdf("03:00.0")) is reason
    note = Reason("reserved-region", Verdict.OK, "text")
    assert verdicts.with_step(note, parse_sbdf("03:00.0")) is note
