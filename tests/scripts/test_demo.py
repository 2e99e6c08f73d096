"""`make demo`: the scenes of a PVH dom0, then of a PV dom0, and a set-up whose noise goes to a file."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(300)  # each scene takes the settle time of the service

ROOT = Path(__file__).resolve().parents[2]
MACHINES = ["fixtures/sysfs/lab-remap-pvh", "fixtures/sysfs/lab-remap-pv"]
#  a scene: what the output of its command must have
SCENES = {
    "Xen does not know a function": r"00:06\.0 add-device: done",
    "An ignored write is repeated": r"00:06\.0 rewrite-bar BAR 0 0xfe100000-0xfe100fff .*done",
    "A BAR moves and is mapped where it goes": r"0xfe003000-0xfe003fff +4K  0000:00:06\.0  0 ",
    "A card is plugged in": r"0xfde40000-0xfde5ffff  128K  0000:01:00\.0  0 ",
    "The card is unplugged": r"01:00\.0 unmap-mmio BAR 0 0xfde40000-0xfde5ffff .*done",
    "Virtual functions appear": r"03:00\.1 map-mmio BAR 0 .*done",
    "Virtual functions disappear": r"03:00\.1 unmap-mmio BAR 0 .*done",
    "A bus gets another number": r"05:00\.0 add-device: done",
    "The bus gets its old number back": r"05:00\.0 remove-device: done",
    "A reserved region is withdrawn": r"0x7ffe0000-0x7ffeffff .*withdrawn",
    "The reserved region is restored": r"0x7ffe0000-0x7ffeffff .*by-pcipt",
    "The same on a PV dom0, as most hosts have it": r"00:06\.0 add-device: done",
    "A bus gets another number on a PV dom0": r"add-device: done(.|\n)*\$ pcipt mappings\n.*dom0 is PV",
}


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """What the demonstration prints, and its log."""
    log = tmp_path_factory.mktemp("demo") / "demo.log"
    words = [sys.executable, "scripts/demo.py", *MACHINES, "--log", str(log)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout, log.read_text()


def test_every_scene_has_a_paragraph_a_command_and_the_output_that_shows_it(shown):
    scenes = re.split(r"^\d+\. ", shown[0], flags=re.MULTILINE)[1:]
    assert [scene.splitlines()[0] for scene in scenes] == list(SCENES)
    for scene in scenes:
        title, paragraph = scene.splitlines()[0], scene.partition("$ pcipt")[0]
        assert re.search(SCENES[title], scene.partition("$ pcipt")[2]), scene
        assert len(paragraph.splitlines()) <= 6, paragraph


def test_pvh_is_shown_first_and_ends_with_a_healthy_status(shown):
    before, _, after = shown[0].partition("12. The same")
    assert re.search(r"\$ pcipt status\n.*\n +Health: healthy", before)
    assert "dom0 PVH" in before
    assert "dom0 is PV" in after
    assert "mmio" not in after


def test_the_log_of_the_service_has_no_part_in_the_output(shown):
    assert "pcipt: ready" in shown[1]
    assert "pcipt: ready" not in shown[0]


def fake(directory, name, text):
    path = directory / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@pytest.mark.parametrize("works", [True, False])
def test_what_apt_prints_is_in_the_log(tmp_path, works):
    fake(tmp_path, "apt-get", f"echo noise; echo debconf: more >&2; {'exit 0' if works else 'exit 100'}")
    fake(tmp_path, "id", "echo 0")
    fake(tmp_path, "cc", "exit 1")
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable, "LOG": str(tmp_path / "log"),
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "scripts/prepare.sh"], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
    assert (tmp_path / "log").read_text().splitlines()[:2] == ["noise", "debconf: more"]
    assert re.fullmatch(r"pcipt: installing these Debian packages:( [a-z0-9-]+)+ \(log: .*\)\n", done.stdout)
    assert " gcc libc6-dev" in done.stdout
    assert (done.returncode, "could not install" in done.stderr) == ((0, False) if works else (1, True))


@pytest.mark.parametrize("works", [True, False])
def test_what_pip_prints_is_in_the_log(tmp_path, works):
    fake(tmp_path, "python", f"echo noise; echo WARNING: more >&2; {'exit 0' if works else 'exit 1'}")
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").symlink_to(tmp_path / "python")
    environment = {
        **os.environ, "PYTHON": "true", "VENV": str(tmp_path / "venv"),
        "LOG": str(tmp_path / "log"),
    }  # fmt: skip
    done = subprocess.run(
        ["sh", "scripts/environment.sh"], capture_output=True, text=True, check=False, cwd=ROOT,
        env=environment,
    )  # fmt: skip
    assert "WARNING: more" in (tmp_path / "log").read_text()
    assert len(done.stdout.splitlines()) == 1
    assert (done.returncode, "could not install" in done.stderr) == ((0, False) if works else (1, True))


def test_the_service_ends_if_whoever_started_it_is_gone(tmp_path):
    command = [sys.executable, "scripts/demo.py", MACHINES[0], "--serve", str(tmp_path)]
    done = subprocess.run(command, input=b"", capture_output=True, check=False, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
