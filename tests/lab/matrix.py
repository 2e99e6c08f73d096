"""The matrix of scenes and cells, made of the JUnit files that the lanes of a run have left."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from .differences import DIFFERENCES

#: What a cell of the table shows; the first that some parameter set of the scene has is shown.
UNEXPECTED, DIFFERS, PASSED, SKIPPED = "X", "d", ".", "s"
_ORDER = (UNEXPECTED, DIFFERS, PASSED, SKIPPED)
LEGEND = (
    f"{PASSED} as expected   {DIFFERS} differs as expected   {SKIPPED} skipped, its reason is told"
    f"   {UNEXPECTED} unexpected   (blank) not run"
)
LINES_TOLD = 12  # of one unexpected result
Results = dict[str, dict[str, str]]  # scene: cell: sign


def sign_of(case: ET.Element) -> str:
    """Return the sign of one test case of a JUnit file."""
    if case.find("failure") is not None or case.find("error") is not None:
        return UNEXPECTED
    skipped = case.find("skipped")
    if skipped is None:
        return PASSED
    told = f"{skipped.get('message', '')} {skipped.text or ''}"
    expected = any(f"({row.because})" in told and row.why in told for row in DIFFERENCES)
    return DIFFERS if expected or skipped.get("type") == "pytest.xfail" else SKIPPED


def read_results(files: Mapping[str, Sequence[Path]]) -> Results:
    """Return the sign of each scene in each cell; `files` are the JUnit files of each cell.

    Raises: OSError if a file cannot be read, ET.ParseError if it is no XML.
    """
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for cell, case in _cases(files):
        scene = _scene_of(case)
        signs = {sign_of(case), found[scene].get(cell, SKIPPED)}
        found[scene][cell] = next(sign for sign in _ORDER if sign in signs)
    return dict(sorted(found.items()))


def render(results: Results, cells: Iterable[str]) -> list[str]:
    """Return the matrix as lines of text: one a scene, one column a cell, then the sums and the legend."""
    cells = list(cells)
    width = max((len(scene) for scene in results), default=0)
    heads = [cell.split("-") for cell in cells]
    column = max((len(word) for head in heads for word in head), default=0) + 1
    lines = [f"{'':{width}} " + "".join(f"{head[number]:>{column}}" for head in heads) for number in range(3)]
    for scene, signs in results.items():
        lines.append(f"{scene:{width}} " + "".join(f"{signs.get(cell, ''):>{column}}" for cell in cells))
    sums = {cell: Counter(signs[cell] for signs in results.values() if cell in signs) for cell in cells}
    lines += [
        f"{'sum ' + sign:{width}} " + "".join(f"{sums[cell][sign]:>{column}}" for cell in cells)
        for sign in _ORDER
    ]
    return [*lines, LEGEND]


def unexpected(files: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return lines about each result that was not expected: its scene and cell, then what pytest says of it.

    Of what pytest says these are the lines that it marks with E, at most LINES_TOLD.

    Raises: as `read_results`.
    """
    told = []
    for cell, case in _cases(files):
        for failed in (*case.findall("failure"), *case.findall("error")):
            marked = [line for line in (failed.text or "").splitlines() if line.startswith("E ")]
            said = marked[:LINES_TOLD] or [failed.get("message", "")]
            told += [f"{_scene_of(case)} in {cell}", *(f"    {line}" for line in said)]
    return told


def _cases(files: Mapping[str, Sequence[Path]]) -> Iterator[tuple[str, ET.Element]]:
    """Yield the cell and each test case of its files."""
    for cell, paths in files.items():
        for path in paths:
            for case in ET.parse(path).getroot().iter("testcase"):
                yield cell, case


def _scene_of(case: ET.Element) -> str:
    """Return the module and the function of a test case, without its parameters."""
    module = case.get("classname", "").rsplit(".", 1)[-1]
    return f"{module}::{case.get('name', '').split('[', maxsplit=1)[0]}"
