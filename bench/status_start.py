"""Measure how fast `pcipt status` starts, against a bare Python that imports three modules, alternately.

Prints medians, spreads and the ratio of the medians. Exit 1 if the ratio is above --limit (default 2).
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def seconds(command: list[str]) -> float:
    """Run a command and return how many seconds it took."""
    before = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - before


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--limit", type=float, default=2.0)
    parser.add_argument("--pcipt", default=str(REPOSITORY / ".venv" / "bin" / "pcipt"))
    args = parser.parse_args()
    python = str(Path(args.pcipt).with_name("python"))
    ours = [args.pcipt, "status", "--socket", "/nonexistent/control"]
    bare = [python if Path(python).exists() else sys.executable, "-I", "-c", "import argparse, json, socket"]
    for command in (ours, bare, ours, bare):
        seconds(command)
    taken: tuple[list[float], list[float]] = ([], [])
    for _ in range(args.runs):
        for times, command in zip(taken, (ours, bare), strict=True):
            times.append(seconds(command))
    medians = [statistics.median(times) * 1000 for times in taken]
    for name, times, median in zip(("pcipt status", "bare python"), taken, medians, strict=True):
        low, high = (
            1000 * q for q in (statistics.quantiles(times, n=10)[0], statistics.quantiles(times, n=10)[-1])
        )
        print(f"{name}: median {median:.1f} ms (10 %-90 %: {low:.1f}-{high:.1f})")
    ratio = medians[0] / medians[1]
    print(f"ratio {ratio:.2f} (limit {args.limit})")
    return 0 if ratio <= args.limit else 1


if __name__ == "__main__":
    sys.exit(main())
