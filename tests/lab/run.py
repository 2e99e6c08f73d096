"""Run the lab as several pytests side by side: `python -m tests.lab.run [pytest's arguments]`.

A lane is one machine and the scenes that share it. Each keeps a processor busy: two run at a time, all where
there are processors for them. They share what they boot from and nothing else. One summary, one exit code:
the worst of all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .errors import LabError
from .hardware import Mode
from .image import ensure_image, say
from .install import BEFORE_BOOT
from .prepared import image_with_package, payload_in

HERE = Path(__file__).parent
OUTPUT = HERE.parents[1] / "build" / "lab"
AT_A_TIME = max(2, (os.cpu_count() or 1) - 1)
#: On a PVH dom0 these have a machine of their own; their scenes take as long as all others together.
REMAPPING = (
    "test_untrapped.py", "test_ignored_writes.py", "test_leaving.py", "test_renumbering.py", "test_resets.py",
)  # fmt: skip
NOTHING_RAN = 5


@dataclass(frozen=True)
class Lane:
    """A kind of dom0, and pytest's words that choose the scenes."""

    name: str
    mode: Mode
    scenes: tuple[str, ...]


LANES = (  # the first needs no disk that is to be made
    Lane("pv", "pv", (str(HERE),)),
    Lane("pvh-remapping", "pvh", tuple(f"{HERE / name}" for name in REMAPPING)),
    Lane("pvh", "pvh", (str(HERE), *(f"--ignore={HERE / name}" for name in REMAPPING))),
)


def run(lane: Lane, prepared: Path, arguments: list[str]) -> tuple[int, str, list[str]]:
    """Run one lane, printing what it says line by line under its name.

    Give its code, its last line, and the lines of what failed.
    """
    command = [sys.executable, "-u", "-m", "pytest", "--lab", f"--mode={lane.mode}", *lane.scenes]
    command += [f"--lab-output={OUTPUT / lane.name}", f"--lab-prepared={prepared}", *arguments]
    environment = {"PCIPT_REQUIRE_XEN": "1", **os.environ}
    last, failed = "it said nothing", []
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
            failed += [line.strip()] if line.startswith(("FAILED ", "ERROR ")) else []
    return process.returncode, last, failed


PRINTING = threading.Lock()


def run_all(prepared: Path, arguments: list[str]) -> int:
    """Run all lanes and sum up; give the worst exit code."""
    image = ensure_image()
    say(f"dom0 image {image.directory.name}")
    payload_in(prepared, with_package=True)
    runs = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for lane in LANES:
            if lane.mode in BEFORE_BOOT:
                image_with_package(prepared, image)
            runs.append((lane, pool.submit(run, lane, prepared, arguments)))
    worst = 0
    for lane, ended in runs:
        code, last, failed = ended.result()
        print(f"lab: {lane.name} ended with {code}: {last}")
        print("".join(f"lab: {lane.name}: {line}\n" for line in failed), end="")
        worst = max(worst, abs(code) if code != NOTHING_RAN else 0)
    return worst


def main() -> int:
    """Run the lab in a folder of its own."""
    started = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="pcipt-lab-") as folder:
            return run_all(Path(folder), sys.argv[1:])
    except LabError as exc:
        say(str(exc))
        return 1
    finally:
        say(f"{time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    sys.exit(main())
