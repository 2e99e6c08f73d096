"""The page on the lab: its table is the lab's own, and each expected difference has a reason that exists."""

import ast
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from pcipt.xen.releases import FACTS, LINUX_FACTS
from tests.docs.blocks import REPOSITORY
from tests.lab.cell import CELLS
from tests.lab.differences import DIFFERENCES, EMULATED, Difference, table
from tests.lab.matrix import DIFFERS, PASSED, SKIPPED, UNEXPECTED, read_results, render, unexpected

PAGE = REPOSITORY / "docs/lab.md"
MARK = "<!-- from tests/lab/differences.py -->\n"
NAMES = [cell.name for cell in CELLS]
JUNIT = """<testsuites><testsuite>
<testcase classname="lab.test_one" name="test_good[pv]"/>
<testcase classname="lab.test_one" name="test_bad[pv]"><failure message="no">a line
E       assert 1 == 2
E        +  where 1 = one()
</failure></testcase>
<testcase classname="lab.test_one" name="test_broken[pv]"><error message="no"/></testcase>
<testcase classname="lab.test_one" name="test_left_out[pv]"><skipped type="pytest.skip"/></testcase>
<testcase classname="lab.test_one" name="test_other[pv]"><skipped type="pytest.xfail"/></testcase>
<testcase classname="lab.test_one" name="test_many[pv-a]"/>
<testcase classname="lab.test_one" name="test_many[pv-b]"><failure message="no"/></testcase>
</testsuite></testsuites>
"""


def scenes() -> set[str]:
    """List all scenes of the lab, as the table names them."""
    found = set()
    for path in (REPOSITORY / "tests/lab").glob("test_*.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(f"{path.stem}::{node.name}")
    return found


def test_there_are_eight_cells() -> None:
    assert len(set(NAMES)) == 8


@pytest.mark.parametrize("row", DIFFERENCES, ids=lambda row: f"{row.scene} {row.cell}")
def test_each_difference_is_about_scenes_and_cells_that_exist(row: Difference) -> None:
    assert any(fnmatchcase(scene, row.scene) for scene in scenes())
    assert any(fnmatchcase(name, row.cell) for name in NAMES)
    known = {fact.name for fact in (*FACTS, *LINUX_FACTS)} | set(EMULATED)
    assert row.because in known


def test_the_page_has_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8").partition(MARK)[2] == "\n" + table()


def test_the_matrix_tells_what_the_runs_have_left(tmp_path: Path) -> None:
    path = tmp_path / "results.xml"
    path.write_text(JUNIT)
    files = {"bookworm-pv-intel": [path]}
    results = read_results(files)
    signs = {scene.partition("::")[2]: cells["bookworm-pv-intel"] for scene, cells in results.items()}
    assert signs == {
        "test_bad": UNEXPECTED, "test_broken": UNEXPECTED, "test_good": PASSED, "test_left_out": SKIPPED,
        "test_many": UNEXPECTED, "test_other": DIFFERS,
    }  # fmt: skip
    assert unexpected(files) == [
        "test_one::test_bad in bookworm-pv-intel",
        "    E       assert 1 == 2", "    E        +  where 1 = one()",
        "test_one::test_broken in bookworm-pv-intel", "    no",
        "test_one::test_many in bookworm-pv-intel", "    no",
    ]  # fmt: skip
    lines = render(results, ["bookworm-pv-intel", "trixie-pv-intel"])
    assert [line.split() for line in lines[:3]] == [["bookworm", "trixie"], ["pv", "pv"], ["intel", "intel"]]
    assert any(line.split() == ["test_one::test_bad", UNEXPECTED] for line in lines)
    assert any(line.split() == ["sum", UNEXPECTED, "3", "0"] for line in lines)
