"""The table of faults is whole, its tests exist, and the page is what it says."""

from pathlib import Path

from tests.faults import test_command_line, test_daemon
from tests.faults.matrix import ROWS, cases_in, document

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"
CASES = cases_in([test_daemon, test_command_line])
KINDS = 18


def test_each_kind_of_fault_has_a_row_and_each_row_a_test():
    assert len(ROWS) == KINDS
    assert all(row.tests for row in ROWS)
    assert {test for row in ROWS for test in row.tests} == set(CASES)


def test_the_page_is_generated_from_the_table():
    """python -m tests.faults.matrix > docs/reliability.md"""
    assert PAGE.read_text(encoding="utf-8") == document(CASES)
