"""Fuzz all targets, or some: python -m tests.fuzz [--time SECONDS] [TARGET...]

With atheris each target is led by what it covers; without it good inputs are changed blindly, in the same way
for the same seed. Each target runs in a process of its own. What breaks is kept in --found.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.fuzz.mutate import inputs

LIMIT = 10.0  # seconds that one input may take


def blindly(target, seconds, seed, found):
    """Run changed inputs for some seconds. Return how many; an input that breaks ends the process."""
    corpus, count = target.corpus(), 0
    end = time.monotonic() + seconds
    for data in inputs(corpus, seed):
        begun = time.monotonic()
        if begun >= end:
            return count
        try:
            target.try_input(data)
        except Exception:
            keep(found, target, data)
            raise
        if time.monotonic() - begun > LIMIT:
            keep(found, target, data)
            raise TimeoutError(f"{target.name}: one input took {time.monotonic() - begun:.0f} s")
        count += 1
    return count


def keep(found, target, data):
    os.makedirs(found, exist_ok=True)
    path = Path(found) / f"{target.name}-{abs(hash(data)):x}"
    path.write_bytes(data)
    print(f"{target.name}: kept as {path}", file=sys.stderr)


def led(name, seconds, found):
    """Run one target by atheris; does not return."""
    import atheris

    with atheris.instrument_imports(include=["pcipt"]):
        from tests.fuzz.targets import TARGETS
    target = TARGETS[name]
    directory = tempfile.mkdtemp(prefix=f"pcipt-fuzz-{name}-")
    for number, data in enumerate(target.corpus()):
        (Path(directory) / str(number)).write_bytes(data)
    os.makedirs(found, exist_ok=True)
    options = [
        f"-max_total_time={int(seconds)}",
        f"-artifact_prefix={found}/{name}-",
        f"-timeout={int(LIMIT)}",
    ]
    atheris.Setup(
        [name, *options, "-max_len=65536", "-verbosity=0", "-print_final_stats=1", directory],
        target.try_input,
    )
    atheris.Fuzz()


def main():
    if sys.argv[1:2] == ["--led"]:  # before anything of pcipt is imported: only then it is instrumented
        _, _, name, seconds, found = sys.argv
        led(name, float(seconds), found)
    from tests.fuzz import native
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("targets", nargs="*", help=f"some of {', '.join(TARGETS)}, {native.NAME}")
    parser.add_argument("--time", type=float, default=60.0, help="seconds for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", default=".fuzz")
    parser.add_argument("--blind", action="store_true", help="without atheris, also where it is installed")
    arguments = parser.parse_args()
    chosen = arguments.targets or [*TARGETS, native.NAME]
    covers = not arguments.blind and importlib.util.find_spec("atheris") is not None
    print("led by coverage (atheris)" if covers else "blindly (without atheris)", flush=True)
    broken = []
    for name in chosen:
        try:
            if name == native.NAME:
                said = native.run(arguments.time, arguments.seed, arguments.found)
            elif covers:
                again = ["--led", name, str(arguments.time), arguments.found]
                done = subprocess.run(
                    [sys.executable, "-m", "tests.fuzz", *again], capture_output=True, text=True, check=False
                )
                if done.returncode:
                    broken.append(name)
                    print(done.stdout + done.stderr, file=sys.stderr)
                words = done.stderr.split()
                label = "stat::number_of_executed_units:"
                said = f"{words[words.index(label) + 1] if label in words else '?'} inputs"
            else:
                said = f"{blindly(TARGETS[name], arguments.time, arguments.seed, arguments.found)} inputs"
        except Exception:  # noqa: BLE001 - the other targets are run as well
            broken.append(name)
            traceback.print_exc()
            said = "BROKEN"
        print(f"{name:14} {said}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
