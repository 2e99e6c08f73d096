"""Measure pcipt next to its peers, print the table, write docs/performance.md and the plot of growth.

Exit 1 if a row misses its bound. With --quick everything is small, nothing is judged and nothing is written:
it shows that the benches still run. `--only WORD` runs the rooms whose names begin with it: start, listing,
decoding, engine, shadow, service, growth; docs are written only if all rooms ran.
"""

import argparse
import contextlib
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import commands, decoding, engine, plot, service, trees
from bench.timing import Row

DOCS = Path(__file__).resolve().parents[1] / "docs"
TEMPLATE = Path(__file__).with_name("performance.md.in")
HEADINGS = ("work", "peer, same run", "found", "spread", "bound", "verdict")
ROOMS = ("start", "listing", "decoding", "engine", "shadow", "service", "growth")


class Bench:
    """One run: its machines, made when they are first asked for, below one directory."""

    def __init__(self, directory: str, disk: str, *, quick: bool, rounds: int) -> None:
        self._directory, self._disk = directory, disk
        self.count = 500 if quick else 10_000
        self.sizes = (100, 500) if quick else (100, 1_000, 10_000, 50_000)
        self._rounds, self._scale = (1, 20) if quick else (rounds, 1)
        self._quick = quick
        self.grown: dict[str, list[float]] = {}

    def root(self, shape: str, count: int | None = None) -> str:
        """Return the directory of the machine of this shape and size."""
        count = count or self.count
        root = os.path.join(self._directory, f"{shape}-{count}")
        if not os.path.isdir(root):
            trees.build(root, shape, count)
        return root

    def rows(self, room: str) -> Iterator[Row]:
        """Yield the rows of one of ROOMS."""
        if room == "start":
            yield from commands.start(self.root("flat", 100), 2 if self._quick else 4 * self._rounds + 1)
        elif room == "listing":
            yield from commands.listing(self.root, self.count, self._rounds)
        elif room == "decoding":
            yield from decoding.rows(Path(self._directory), self._scale, min(self._rounds, 3))
        elif room == "engine":
            yield from engine.rows(self._disk, (100, self.count), 20 if self._quick else 300)
        elif room == "shadow":
            sizes = (100, 500) if self._quick else (100, 10_000, 50_000)
            yield from engine.shadow_rows(sizes, 200 if self._quick else 5000)
        elif room == "service":
            yield from service.rows(self.root("flat"), self.count, self._directory, min(self._rounds, 3))
        else:
            self.grown = commands.growth(self.root, self.sizes)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="python -m bench"
    )
    parser.add_argument("--quick", action="store_true", help="small, not judged, nothing written")
    parser.add_argument("--only", metavar="WORD", default="", help="only the rooms that begin with WORD")
    parser.add_argument("--rounds", type=int, default=5, help="pairs of each row (5)")
    args = parser.parse_args()
    home = "/dev/shm" if os.path.isdir("/dev/shm") else None
    began, found = time.monotonic(), list[Row]()
    with contextlib.ExitStack() as stack:
        directory, disk = (
            stack.enter_context(tempfile.TemporaryDirectory(prefix="pcipt-bench-", dir=place))
            for place in (home, None)
        )
        # as installed: compiled once, by the runs that warm up
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(directory, "compiled")
        bench = Bench(directory, disk, quick=args.quick, rounds=args.rounds)
        for room in ROOMS:
            if room.startswith(args.only):
                for row in bench.rows(room):
                    found.append(row._replace(bound=None) if args.quick else row)
                    print(line(found[-1].cells()), flush=True)
    for name, values in bench.grown.items():
        print(
            f"{name}: "
            + ", ".join(f"{size:,}: {value:.0f} ms" for size, value in zip(bench.sizes, values, strict=True))
        )
    taken = time.monotonic() - began
    missed = [row for row in found if not row.held]
    print(
        f"{taken:.0f} s; "
        + ("not judged" if args.quick else f"{len(missed)} of {len(found)} rows miss their bound")
    )
    if args.quick:
        return 0
    if not args.only:
        (DOCS / "performance.svg").write_text(plot.svg(bench.sizes, bench.grown), encoding="utf-8")
        (DOCS / "performance.md").write_text(document(found, taken), encoding="utf-8")
    return 1 if missed else 0


def line(cells: tuple[str, ...]) -> str:
    """Return the cells of a row for a terminal."""
    work, peer, value, spread, bound, verdict = cells
    return f"{verdict:8} {work:64} {value:>10} ({spread}), {bound}; peer: {peer}".replace("`", "")


def document(rows: list[Row], taken: float) -> str:
    """Return docs/performance.md: how it is measured, the table, the plot, and what keeps it so."""
    machine = (
        f"Python {platform.python_version()}, {os.cpu_count()} processors, load {os.getloadavg()[2]:.1f} "
        f"(15 minutes), {taken / 60:.0f} minutes"
    )
    if shutil.which("lspci") is None:
        machine += "; without lspci"
    table = [HEADINGS, tuple("---" for _ in HEADINGS), *(row.cells() for row in rows)]
    lines = [f"| {' | '.join(cells)} |" for cells in table]
    text = TEMPLATE.read_text(encoding="utf-8")
    return text.replace("@MACHINE@", machine).replace("@TABLE@", "\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
