"""The two doors: the command line as a process, and the whole daemon on a machine where a script happens."""

import json
import subprocess
import sys
from pathlib import Path

from tests.simulation.play import Play
from tests.simulation.simulation import Simulation

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINE = {
    "dom0": "pvh", "version": (4, 20, 4), "unknown": set(), "bound": set(), "iommu": "vt-d", "build": False,
}  # fmt: skip


def pcipt(*arguments, patience=20):
    """Run the command; no traceback may reach the user."""
    done = subprocess.run(
        [sys.executable, "-m", "pcipt.cli.main", *map(str, arguments)],
        cwd=REPOSITORY, capture_output=True, timeout=patience, check=False,
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr
    assert done.returncode in {0, 1, 2, 3, 4}
    return done


def told(*arguments):
    """Run the command with --json and give its one object."""
    return json.loads(pcipt(*arguments, "--json").stdout)


class Scripted(Play):
    def __init__(self, simulation, script, made):
        super().__init__(simulation)
        self.script, self.made = script, made

    def machine(self, _random):
        return {**MACHINE, **self.made}

    def life(self, _boot):
        self.simulation.step += 1
        yield 1.0
        yield from self.script(self)
        yield from self.settle(None)

    def status(self):
        """Ask for the status; a generator."""
        return (yield from self.simulation.audit.ask("Status"))


def live(script, **made):
    """Run the daemon while a script happens, then let it come to rest: every invariant of tests/simulation
    must hold then. Return the lines that were told.
    """
    lines = []
    Simulation(1, 1, lines.append, play=lambda simulation: Scripted(simulation, script, made)).run()
    return lines
