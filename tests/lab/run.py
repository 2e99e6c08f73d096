"""Run the lab as several pytests side by side: `python -m tests.lab.run [pytest's arguments]`.

A lane is one machine and the scenes that share it. Two run at a time, as each keeps a processor busy; they
share the image cache and nothing else. One summary, one exit code: the worst of all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .hardware import Mode
from .image import ensure_image, say

HERE = Path(__file__).parent
OUTPUT = HERE.parents[1] / "build" / "lab"
AT_A_TIME = 2
#: On a PVH dom0 these have a machine of their own; their scenes take as long as all others together.
REMAPPING = ("test_untrapped.py", "test_ignored_writes.py", "test_leaving.py", "test_renumbering.py")
NOTHING_RAN = 5


@dataclass(frozen=True)
class Lane:
    """A kind of dom0, and pytest's words that choose the scenes."""

    name: str
    mode: Mode
    scenes: tuple[str, ...]


LANES = (  # the longest first
    Lane("pvh-remapping", "pvh", tuple(f"{HERE / name}" for name in REMAPPING)),
    Lane("pvh", "pvh", (str(HERE), *(f"--ignore={HERE / name}" for name in REMAPPING))),
    Lane("pv", "pv", (str(HERE),)),
)


def run(lane: Lane, arguments: list[str]) -> tuple[int, str]:
    """Run one lane, printing what it says line by line under its name; give its code and its last line."""
    command = [sys.executable, "-u", "-m", "pytest", "--lab", f"--mode={lane.mode}", *lane.scenes]
    command += [f"--lab-output={OUTPUT / lane.name}", *arguments]
    environment = {"PCIPT_REQUIRE_XEN": "1", **os.environ}
    last = "it said nothing"
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        with PRINTING:
            print(f"{lane.name:13} | started", flush=True)
        for line in process.stdout:
            with PRINTING:
                print(f"{lane.name:13} | {line.rstrip()}", flush=True)
            last = line.strip().strip("= ") or last
    return process.returncode, last


PRINTING = threading.Lock()


def main() -> int:
    """Run all and sum up."""
    started = time.monotonic()
    say(f"dom0 image {ensure_image().directory.name}")
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        runs = [(lane, pool.submit(run, lane, sys.argv[1:])) for lane in LANES]
    worst = 0
    for lane, ended in runs:
        code, last = ended.result()
        print(f"lab: {lane.name} ended with {code}: {last}")
        worst = max(worst, abs(code) if code != NOTHING_RAN else 0)
    print(f"lab: {time.monotonic() - started:.0f} s in all")
    return worst


if __name__ == "__main__":
    sys.exit(main())
