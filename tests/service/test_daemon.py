"""The daemon as a process: its start, its signals, its socket, its messages to the manager."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINE = REPOSITORY / "fixtures" / "sysfs" / "lab-pv"


class Running:
    """`pcipt daemon --replay` on a recorded machine, ready to be asked."""

    def __init__(self, directory, *arguments):
        self.directory = directory
        self.control = str(directory / "control")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(directory / "notify"))
            manager.settimeout(30)
            command = [sys.executable, "-m", "pcipt.cli.main", "daemon", "--replay", str(MACHINE)]
            command += ["--socket", self.control, "--state", str(directory / "state"), *arguments]
            self.process = subprocess.Popen(
                command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
                env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify")},
            )  # fmt: skip
            self.ready = manager.recv(1000).decode()
            while "READY=1" not in self.ready:
                self.ready = manager.recv(1000).decode()

    def pcipt(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "pcipt.cli.main", *arguments, "--socket", self.control],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        _, text = self.process.communicate(timeout=30)
        return text


@pytest.fixture
def running(tmp_path):
    running = Running(tmp_path)
    yield running
    running.stop()


def test_ready_comes_after_the_reconciliation_with_a_status_line(running):
    assert "STATUS=" in running.ready
    assert "0 findings" in running.ready


def test_status_tells_what_was_done(running):
    told = json.loads(running.pcipt("status", "--json").stdout)
    assert told["version"] == 1
    assert told["health"] == "healthy"
    assert told["dom0"] == "pv"
    assert told["counts"]["functions"] == told["counts"]["known_to_xen"]
    assert told["counts"]["added_by_us"] == 1
    assert [(a["action"], a["result"]) for a in told["actions"]] == [
        ("add-device", "done"),
        ("add-device", "done"),
        ("remove-device", "done"),
    ]
    assert all(action["reason"] for action in told["actions"])


def test_status_as_text(running):
    done = running.pcipt("status")
    assert done.returncode == 0
    assert "Health: healthy" in done.stdout
    assert "added by pcipt" in done.stdout
    assert "Watching: hot-plug messages only" in done.stdout
    assert "add-device 0000:00:06.0: done" in done.stdout
    assert "\033" not in done.stdout
    assert running.pcipt("status", "-q").stdout == ""


def test_resync_finds_nothing_to_do(running):
    done = running.pcipt("resync")
    assert (done.returncode, done.stdout) == (0, "nothing to do: hardware, Linux and Xen agree\n")
    assert json.loads(running.pcipt("resync", "--dry-run", "--json").stdout)["actions"] == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_within_a_second(running, number):
    before = time.monotonic()
    running.process.send_signal(number)
    assert running.process.wait(10) == 0
    assert time.monotonic() - before < 1
    assert not os.path.exists(running.control)


def test_a_second_daemon_says_so_and_exits(running, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pcipt.cli.main", "daemon", "--replay", str(MACHINE),
         "--socket", str(tmp_path / "other"), "--state", str(tmp_path / "state")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"another pcipt daemon is running (pid {running.process.pid})" in done.stderr
    assert running.pcipt("status", "-q").returncode == 0


def test_a_second_daemon_at_the_same_socket_does_nothing(running, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "pcipt.cli.main", "daemon", "--replay", str(MACHINE),
         "--socket", running.control, "--state", str(tmp_path / "elsewhere")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == f"pcipt: {running.control}: somebody is listening there already\n"


def test_after_a_kill_a_new_one_starts_and_agrees(tmp_path):
    first = Running(tmp_path)
    first.process.kill()
    first.stop()
    (tmp_path / "notify").unlink()
    second = Running(tmp_path)
    assert second.pcipt("status", "-q").returncode == 0
    second.stop()


def test_sighup_reads_the_settings_again_or_keeps_them(tmp_path):
    settings = tmp_path / "pcipt.toml"
    settings.write_text('mode = "enforce"')
    running = Running(tmp_path, "--settings", str(settings))
    for text, mode in (('mode = "observe"', "observe"), ("mode = 1", "observe")):
        settings.write_text(text)
        running.process.send_signal(signal.SIGHUP)
        told = json.loads(running.pcipt("status", "--json").stdout)
        assert told["mode"] == mode
    assert "settings kept as they were" in running.stop()


def test_idle_it_makes_no_system_call(running):
    """Without a client, a signal or an event nothing wakes it: its CPU time stands still."""
    stat = Path(f"/proc/{running.process.pid}/stat")
    assert running.pcipt("status", "-q").returncode == 0
    switches = Path(f"/proc/{running.process.pid}/status")
    before = [line for line in switches.read_text().splitlines() if "ctxt_switches" in line]
    ticks = stat.read_text().rpartition(")")[2].split()[11:13]
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(0.5)
    after = [line for line in switches.read_text().splitlines() if "ctxt_switches" in line]
    assert ticks == stat.read_text().rpartition(")")[2].split()[11:13]
    assert before[0] == after[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--replay", "/nonexistent"], "nonexistent"),
        (["--settings", "/nonexistent.toml"], "no such settings file"),
        (["--replay", str(MACHINE), "--socket", "/nonexistent/control"], "nonexistent"),
        (["--replay", str(MACHINE), "--state", "/proc/nowhere"], "state directory"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path, arguments, words):
    command = [
        sys.executable,
        "-m",
        "pcipt.cli.main",
        "daemon",
        "--state",
        str(tmp_path / "state"),
        *arguments,
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("pcipt: ")
    assert words in last
    assert "Traceback" not in done.stderr
