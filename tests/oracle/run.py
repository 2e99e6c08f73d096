"""Compare with Xen's own code: the simulated vPCI, the judgement of DMAR and IVRS, and the table of releases.

    python -m tests.oracle.run XEN_SOURCE [--releases "4.20.4 4.22.0"] [--steps 20000] [--seed 1]

This is `make oracle`. XEN_SOURCE is a clone of Xen or a git directory with its tags. For each release one
table is compared for ten steps, at most 10,000. The last line is "N steps, D differences". Exit 1 if there is
a difference.
"""

import argparse
import collections
import subprocess
import sys
import tempfile
import time

from tests.oracle.build import NoSourceError, build
from tests.oracle.facts import wrong_facts
from tests.oracle.machines import sequence
from tests.oracle.sides import Simulated, XenCode, differences
from tests.oracle.tables.build import build as build_tables
from tests.oracle.tables.compare import compare as compare_tables

RELEASES = "4.17.7 4.18.6 4.19.6 4.20.0 4.20.4 4.21.2 4.22.0"
A_TABLE, MOST_TABLES = 10, 10_000  # steps of vPCI for each table; one that hangs Xen takes seconds
SHOWN = 3  # differences of one kind that are shown


def run(xen, simulated, specs, ops):
    """Do the operations on both sides; give how many were done, and the differences after the last one."""
    xen.start(specs)
    simulated.start(specs)
    found, down = differences(xen, simulated, specs)
    for number, op in enumerate(ops, 1):
        if found or down:
            return number - 1, found
        answers = xen.apply(op), simulated.apply(op)
        found, down = differences(xen, simulated, specs)
        if down:
            return number, found
        if answers[0] != answers[1]:
            found.append(("answer", *answers))
    return len(ops), found


def kind_of(found, op):
    names = sorted({str(what if isinstance(what, str) else what[0]) for what, *_ in found})
    return f"{'+'.join(names)} after {op[0] if op else 'boot'}"


def shrink(xen, simulated, specs, ops):
    """Take functions and operations out as long as there is a difference; give what is left."""
    done, found = run(xen, simulated, specs, ops)
    ops = ops[:done]
    for spec in list(specs):
        fewer = [other for other in specs if other is not spec]
        left = [op for op in ops if op[1] != spec.address]
        done, found = run(xen, simulated, fewer, left) if fewer else (0, [])
        if found:
            specs, ops = fewer, left[:done]
    for at in reversed(range(len(ops))):
        left = ops[:at] + ops[at + 1 :]
        done, found = run(xen, simulated, specs, left)
        if found:
            ops = left[:done]
    return specs, ops


def show(kind, seed, specs, ops, found):
    print(f"--- seed {seed}: {kind}")
    for spec in specs:
        print(f"    {spec}")
    for op in ops:
        print("    " + " ".join(hex(part) if isinstance(part, int) else part for part in op))
    for what, left, right in found:
        print(f"    {what}: Xen {_shown(left, right)}")


def _shown(left, right):
    if isinstance(left, bytes) and isinstance(right, bytes):
        pairs = enumerate(zip(left, right, strict=False))
        return "; ".join(f"[{at:#x}] {a:02x}, simulated {b:02x}" for at, (a, b) in pairs if a != b)
    return f"{left}; simulated {right}"


def compare(library, release, steps, seed):
    """Compare one release on at least `steps` steps; give (steps done, sequences with a difference)."""
    xen, simulated = XenCode(library), Simulated(release)
    kinds, done_in_all = collections.Counter(), 0
    while done_in_all < steps:
        specs, ops = sequence(seed)
        done, found = run(xen, simulated, specs, ops)
        done_in_all += max(done, 1)
        if found:
            kind = kind_of(found, ops[done - 1] if done else None)
            kinds[kind] += 1
            if kinds[kind] <= SHOWN:
                specs, ops = shrink(xen, simulated, specs, ops)
                done, found = run(xen, simulated, specs, ops)
                show(kind, seed, specs, ops, found)
        seed += 1
    return done_in_all, sum(kinds.values())


def main():
    parser = argparse.ArgumentParser(prog="make oracle")
    parser.add_argument("source", nargs="?")
    parser.add_argument("--releases", default=RELEASES)
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    if not given.source:
        print(
            "oracle: skipped: XEN_SOURCE=DIR names no git directory of Xen (https://xenbits.xen.org/git-http/xen.git)"
        )
        return 0
    steps = differing = 0
    try:
        wrong = wrong_facts(given.source)
        for line in wrong:
            print(f"releases.py: {line}")
        with tempfile.TemporaryDirectory() as scratch:
            for release in given.releases.split():
                begun = time.monotonic()
                library = build(given.source, release, scratch)
                done, found = compare(library, release, given.steps, given.seed)
                print(
                    f"{release}: {done} steps, {found} differences, {time.monotonic() - begun:.0f} s",
                    flush=True,
                )
                begun = time.monotonic()
                program = build_tables(given.source, release, scratch)
                tables, wrongly = compare_tables(
                    program, release, min(given.steps // A_TABLE, MOST_TABLES), given.seed
                )
                spent = time.monotonic() - begun
                print(f"{release}: {tables} tables, {wrongly} differences, {spent:.0f} s", flush=True)
                steps, differing = steps + done, differing + found + wrongly
    except (NoSourceError, subprocess.CalledProcessError) as error:
        print(f"oracle: {error}", file=sys.stderr)
        return 2
    print(f"{steps} steps, {differing + len(wrong)} differences")
    return 1 if differing or wrong else 0


if __name__ == "__main__":
    sys.exit(main())
