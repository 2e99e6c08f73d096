"""Run the lab as several pytests side by side: `python -m tests.lab.run [--cells CELLS] [pytest's words]`.

CELLS are names of cells (cell.py), separated by commas or spaces, or "all"; without it the two cells of
Debian 12 with VT-d run. A lane is one machine and the scenes that share it. Each keeps a processor busy: two
run at a time, all where there are processors for them. They share what they boot from and nothing else. At
the end the matrix of scenes and cells, and the cells left out; the exit code is 0 if nothing in the matrix is
unexpected.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from .cell import CELLS, PLAIN, Cell, Extra
from .errors import LabError
from .image import ensure_image, say
from .install import BEFORE_BOOT
from .matrix import read_results, render, unexpected
from .prepared import image_with_package, payload_in

HERE = Path(__file__).parent
OUTPUT = HERE.parents[1] / "build" / "lab"
AT_A_TIME = max(2, (os.cpu_count() or 1) - 1)
BY_NAME = {cell.name: cell for cell in CELLS}
DEFAULT = ("bookworm-pv-intel", "bookworm-pvh-intel")
#: On a PVH dom0 these have a machine of their own; their scenes take as long as all others together.
REMAPPING = (
    "test_untrapped.py", "test_ignored_writes.py", "test_leaving.py", "test_renumbering.py", "test_resets.py",
)  # fmt: skip
FIRST = "bookworm-pv-intel"
#: Scenes with a machine of their own: name, module, cells, how the machine differs. Xen 4.17 does not have
#: pf-fixup; QEMU 10, which has an igb, does not boot the other PVH dom0s.
SPECIAL = (
    ("pf-fixup", "test_pf_fixup.py", ("trixie-pvh-intel", "trixie-pvh-amd"), Extra(xen="dom0=pf-fixup")),
    ("igb", "test_igb.py", (FIRST, "trixie-pvh-intel"), Extra(hardware="igb")),
    ("iommu-off", "test_no_iommu.py", (FIRST,), Extra(xen="iommu=off")),
    ("no-iommu", "test_no_iommu.py", (FIRST,), Extra(hardware="no-iommu")),
    ("twins", "test_kept_at_boot.py", (FIRST, "trixie-pv-intel"), Extra(hardware="twins")),
    ("plain-linux", "test_plain_linux.py", (FIRST,), Extra(linux="intel_iommu=on")),
)
NOTHING_RAN = 5


@dataclass(frozen=True)
class Lane:
    """A machine of a cell, and pytest's words that choose the scenes."""

    name: str
    cell: Cell
    scenes: tuple[str, ...]
    extra: Extra = PLAIN

    @property
    def results(self) -> Path:
        """The JUnit file that the lane leaves."""
        return OUTPUT / self.name / "results.xml"


def lanes_of(cell: Cell) -> tuple[Lane, ...]:
    """Give the lanes of a cell."""
    own = REMAPPING if cell.mode == "pvh" else ()
    left_out = {*own, *(module for _, module, _, _ in SPECIAL)}
    others = (str(HERE), *(f"--ignore={HERE / module}" for module in sorted(left_out)))
    lanes = [Lane(f"{cell.name}-remapping", cell, tuple(f"{HERE / module}" for module in own))] if own else []
    lanes.append(Lane(cell.name, cell, others))
    for name, module, cells, extra in SPECIAL:
        if cell.name in cells:
            lanes.append(Lane(f"{cell.name}-{name}", cell, (f"{HERE / module}",), extra))
    return tuple(lanes)


def run(lane: Lane, prepared: Path, arguments: list[str]) -> tuple[int, str]:
    """Run one lane, printing what it says line by line under its name. Give its code and its last line."""
    platform = lane.cell.platform
    command = [sys.executable, "-u", "-m", "pytest", "--lab", f"--mode={lane.cell.mode}", *lane.scenes]
    command += [f"--suite={platform.suite}", f"--vendor={platform.vendor}", f"--junitxml={lane.results}"]
    command += [f"--{name}={words}" for name, words in asdict(lane.extra).items() if words]
    command += [f"--lab-output={OUTPUT / lane.name}", f"--lab-prepared={prepared}", *arguments]
    environment = {"PCIPT_REQUIRE_XEN": "1", **os.environ}
    last = "it said nothing"
    lane.results.unlink(missing_ok=True)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        with PRINTING:
            print(f"{lane.name:28} | started", flush=True)
        for line in process.stdout:
            with PRINTING:
                print(f"{lane.name:28} | {line.rstrip()}", flush=True)
            last = line.strip().strip("= ") or last
    return process.returncode, last


PRINTING = threading.Lock()


def run_all(cells: Sequence[Cell], prepared: Path, arguments: list[str]) -> int:
    """Run all lanes of the cells, print the matrix and what failed; give the worst exit code."""
    payload_in(prepared, with_package=True)
    runs = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for lane in (lane for cell in cells for lane in lanes_of(cell)):
            image = ensure_image(lane.cell.platform.suite)
            if lane.cell.mode in BEFORE_BOOT:
                image_with_package(prepared, image, lane.cell.platform.suite)
            runs.append((lane, pool.submit(run, lane, prepared, arguments)))
    worst, files = 0, defaultdict(list)
    for lane, ended in runs:
        code, last = ended.result()
        say(f"{lane.name} ended with {code}: {last}")
        worst = max(worst, abs(code) if code != NOTHING_RAN else 0)
        if lane.results.exists():
            files[lane.cell.name].append(lane.results)
    results = read_results(files)
    print("\n".join(render(results, [cell.name for cell in cells])))
    left_out = [cell.name for cell in CELLS if cell not in cells]
    print(f"lab: cells left out: {' '.join(left_out) or 'none'}")
    sys.stdout.flush()
    for line in unexpected(files):
        say(f"unexpected: {line}")
    return 1 if worst else 0


def main() -> int:
    """Run the lab in a folder of its own."""
    parser = argparse.ArgumentParser(description="Run the lab.", allow_abbrev=False)
    parser.add_argument("--cells", default=" ".join(DEFAULT), help="cells, or all")
    options, arguments = parser.parse_known_args()
    names = options.cells.replace(",", " ").split()
    unknown = [name for name in names if name != "all" and name not in BY_NAME]
    if unknown:
        parser.error(f"no cell is named {unknown[0]}; there are: all {' '.join(BY_NAME)}")
    cells = [BY_NAME[name] for name in (BY_NAME if "all" in names else names)]
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="pcipt-lab-") as folder:
            return run_all(cells, Path(folder), arguments)
    except LabError as exc:
        say(str(exc))
        return 1
    finally:
        say(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    sys.exit(main())
