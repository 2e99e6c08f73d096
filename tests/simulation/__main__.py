"""Run a simulation, or several: python -m tests.simulation SEED [--steps N]

The output is the same for the same seed, byte for byte. If something breaks, the shortest run that breaks in
the same way is looked for, and its command is printed.
"""

import argparse
import os
import sys

from tests.simulation.search import run, shortest


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__.split("\n")[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--only", default="", help="the only steps that happen: 3,7")
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds, from SEED on")
    parser.add_argument("--quiet", action="store_true", help="only tell what breaks")
    parser.add_argument("--as-it-is", action="store_true", help="do not look for a shorter run")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of a set of texts would be another one each time
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    only = frozenset(int(number) for number in arguments.only.split(",") if number) or None
    tell = (lambda _line: None) if arguments.quiet else print
    broken = 0
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        outcome = run(seed, arguments.steps, tell, only)
        if outcome.why is None:
            print(f"seed {seed}: {outcome.step} steps, all holds", flush=True)
            continue
        broken += 1
        print(f"seed {seed}: step {outcome.step}: {outcome.why}", flush=True)
        if not arguments.as_it_is:
            print(f"  python -m tests.simulation {shortest(seed, outcome)}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
