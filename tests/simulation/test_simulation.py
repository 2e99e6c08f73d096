"""The whole daemon on some seeds, and what the simulation itself must be able to find.

`make simulate STEPS=20000` runs more of the same.
"""

import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from pcipt.daemon.control import methods, status
from pcipt.daemon.document import Document
from pcipt.daemon.folder import Folder
from pcipt.daemon.intake import Intake
from pcipt.daemon.store import FileStore
from tests.engine.stage import Killed
from tests.simulation.disk import Disk
from tests.simulation.search import run, shortest

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = int(os.environ.get("PCIPT_SIMULATION", "600"))
SEEDS = 8

pytestmark = pytest.mark.timeout(3600)


def holds(seed, steps, only=None):
    outcome = run(seed, steps, lambda _line: None, only)
    assert outcome.why is None, f"python -m tests.simulation {shortest(seed, outcome)}: {outcome.why}"
    assert outcome.step == steps


@pytest.mark.parametrize("seed", range(SEEDS))
def test_all_holds(seed):
    holds(seed, STEPS // SEEDS)


#  runs that broke once: seed, steps, the only steps that happen
FOUND = [
    (1000, 125, {118, 119, 124, 125}),  # the disk took nothing, and the next service knew less
    (1001, 1422, {1419, 1421, 1422}),  # decode was switched off right before the function was given away
    (30025, 759, {698, 716, 738, 748, 759}),  # vPCI takes a BAR for mapped that a reset cleared in quarantine
    (9021, 683, {673, 676, 677, 678, 679, 683}),  # Xen could not be asked about another function at that time
    (3007, 805, {766, 782, 783, 784, 805}),  # Xen unmapped a region while no service ran
]


@pytest.mark.parametrize(("seed", "steps", "only"), FOUND)
def test_what_broke_once_holds(seed, steps, only):
    holds(seed, steps, frozenset(only))


def test_a_seed_gives_the_same_output_byte_for_byte():
    command = [sys.executable, "-m", "tests.simulation", "7", "--steps", "40"]
    outputs = {
        subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": hashing},
        ).stdout
        for hashing in ("1", "2")
    }  # fmt: skip
    assert len(outputs) == 1
    assert len(outputs.pop().splitlines()) > 100


def break_status(monkeypatch):
    monkeypatch.setattr(status, "health_of", lambda _engine, **_more: "healthy")


def break_ledger(monkeypatch):
    monkeypatch.setattr(FileStore, "append", lambda *_: None)
    monkeypatch.setattr(FileStore, "save", lambda *_: None)


def break_hotplug(monkeypatch):
    monkeypatch.setattr(Intake, "_message", lambda *_: None)


def break_counting(monkeypatch):
    told = methods.status_to_json

    def fewer(*arguments):
        found = told(*arguments)
        found["watch"]["writes"] //= 2
        return found

    monkeypatch.setattr(methods, "status_to_json", fewer)


@pytest.mark.parametrize(
    ("break_it", "why"),
    [
        (break_status, "healthy, and"),
        (break_ledger, "only in memory"),
        (break_hotplug, "healthy, and"),
        (break_counting, "writes: "),
    ],
)
def test_a_broken_daemon_is_found(break_it, why, monkeypatch):
    break_it(monkeypatch)
    assert any(why in (run(seed, 60, lambda _line: None).why or "") for seed in range(3, 40))


def test_what_breaks_is_shrunk_to_the_steps_that_it_needs(monkeypatch):
    break_counting(monkeypatch)
    outcome = run(3, 60, lambda _line: None)
    told = shortest(3, outcome).split()
    steps, only = int(told[2]), frozenset(map(int, told[4].split(",")))
    again = run(3, steps, lambda _line: None, only)
    assert again.kind == outcome.kind
    assert len(only) <= 2
    assert steps <= outcome.step


@pytest.fixture
def directory(tmp_path):
    (tmp_path / "state").mkdir()
    return tmp_path / "state"


@pytest.mark.parametrize("seed", range(30))
def test_what_was_synced_survives_a_power_cut(seed, directory):
    disk = Disk(str(directory), Random(seed))
    with disk.holds():
        document = Document(Folder(str(directory)), "ledger", "ledger")
        document.save({"n": 1})
        document.append([{"step": 1}])
        document.append([{"step": 2}])
        document.close()
        disk.cut_power()
        again = Document(Folder(str(directory)), "ledger", "ledger")
        assert again.load() == ({"n": 1}, None)
        steps = []
        assert again.load_steps(steps.append) is None
        assert steps == [{"step": 1}, {"step": 2}]


def test_what_was_not_synced_is_lost_torn_or_there(directory):
    found = set()
    for seed in range(40):
        for file in directory.iterdir():
            file.unlink()
        disk = Disk(str(directory), Random(seed))
        with disk.holds():
            file = os.open(str(directory / "a"), os.O_CREAT | os.O_WRONLY)
            os.write(file, b"long ago")
            os.fsync(file)
            here = os.open(str(directory), os.O_RDONLY)
            os.fsync(here)
            os.close(here)
            os.write(file, b", and now")
            os.close(file)
            disk.cut_power()
        found.add((directory / "a").read_bytes())
    assert {b"long ago", b"long ago, and now"} < found
    assert all(each.startswith(b"long ago") for each in found)


@pytest.mark.parametrize("late", [False, True])
def test_a_kill_leaves_the_process_no_further_change(late, directory):
    disk = Disk(str(directory), Random(1))
    with disk.holds():
        disk.die_at, disk.late = 2, late
        file = os.open(str(directory / "a"), os.O_CREAT | os.O_WRONLY)
        with pytest.raises(Killed):
            os.write(file, b"0123456789")
        with pytest.raises(Killed):
            os.write(file, b"more")
        os.close(file)
    kept = (directory / "a").read_bytes()
    assert kept == b"0123456789" if late else len(kept) < 10
