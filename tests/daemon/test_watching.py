"""The daemon while registers are written: what monitor, history and status tell, and what is read back."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pcipt.cli.machine.client import call
from pcipt.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[2]
NIC = "0000:01:00.0"


class Live:
    """The daemon of live_stage, a monitor on it, and a way to write registers."""

    def __init__(self, directory, *arguments):
        self.directory = directory
        os.mkfifo(directory / "writes")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(str(directory / "notify"))
            manager.settimeout(30)
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.daemon.live_stage", str(directory), *arguments],
                cwd=REPOSITORY, env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify")},
            )  # fmt: skip
            while "READY=1" not in manager.recv(1000).decode():
                assert self.process.poll() is None
        self.fifo = (directory / "writes").open("w", buffering=1)

    def command(self, *arguments):
        return [
            sys.executable,
            "-m",
            "pcipt.cli.main",
            *arguments,
            "--socket",
            str(self.directory / "control"),
        ]

    def pcipt(self, *arguments):
        return subprocess.run(
            self.command(*arguments), cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
        )

    def monitor(self, *arguments):
        """Start a monitor; it is subscribed when this returns."""
        process = subprocess.Popen(
            self.command("monitor", *arguments), cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
        )
        while not call(str(self.directory / "control"), "Status")["monitors"]:
            assert process.poll() is None
        return process

    def write(self, *accesses):
        for sbdf, offset, size, value in accesses:
            print(json.dumps([sbdf, offset, size, value]), file=self.fifo)

    def close(self):
        self.fifo.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(10) == 0


@pytest.fixture
def live(tmp_path, request):
    live = Live(tmp_path, *getattr(request, "param", ()))
    yield live
    live.close()


def until(process, enough):
    """Read lines of a monitor until one satisfies `enough`; gives all of them."""
    found = []
    while not found or not enough(found[-1]):
        line = process.stdout.readline()
        assert line, found
        found.append(line.rstrip("\n"))
    process.terminate()
    process.communicate(timeout=10)
    return found


MOVE = [(NIC, 0x04, 2, 0), (NIC, 0x10, 4, 0xFE20_0000), (NIC, 0x04, 2, 2)]


def test_a_moved_bar_appears_in_monitor_history_and_status(live):
    monitor = live.monitor("--json")
    live.write(*MOVE)
    events = [json.loads(line) for line in until(monitor, lambda line: '"bar-moved"' in line)]
    moved = events[-1]
    assert (moved["kind"], moved["sbdf"], moved["bar"]) == ("change", NIC, 0)
    assert (moved["from"], moved["to"], moved["size"]) == ("0xfe000000", "0xfe200000", 0x20000)
    assert (moved["who"], moved["source"], moved["version"]) == ("setpci-42", "write", 1)
    history = live.pcipt("history", NIC, "--json")
    assert [e for e in json.loads(history.stdout)["events"] if e["kind"] == "change"] == events
    told = json.loads(live.pcipt("status", "--json").stdout)
    assert told["watch"]["source"] == "fifo"
    assert told["watch"]["writes"] == 3
    assert told["watch"]["last_change"] == moved
    text = live.pcipt("status").stdout
    assert f"Watching: fifo, 3 writes seen, 0 lost; last change {moved['when']} {NIC} bar-moved" in text


def test_the_model_follows_the_hardware(live):
    """The register moved and Linux does not know: a finding, until the register is put back."""
    monitor = live.monitor()
    live.write(*MOVE)
    lines = until(monitor, lambda line: "bar-drift" in line)
    assert "BAR 0 moved from 0xfe000000 to 0xfe200000 (128K) by setpci-42" in "\n".join(lines)
    status = live.pcipt("status", "--json")
    assert status.returncode == 4
    assert [f["code"] for f in json.loads(status.stdout)["findings"]] == ["bar-drift"]
    monitor = live.monitor()
    live.write((NIC, 0x10, 4, 0xFE00_0000))
    until(monitor, lambda line: "finding gone: bar-drift" in line)
    assert live.pcipt("status", "-q").returncode == 0


@pytest.mark.parametrize("live", [("silent",)], indirect=True)
def test_a_write_that_hardware_ignored_is_found_by_reading_back(live):
    monitor = live.monitor("--json")
    live.write((NIC, 0x10, 4, 0xFE20_0000))
    lines = until(monitor, lambda line: '"read-back"' in line)
    back = json.loads(lines[-1])
    assert (back["change"], back["from"], back["to"]) == ("bar-moved", "0xfe200000", "0xfe000000")
    assert live.pcipt("status", "-q").returncode == 0


def test_sizing_and_restoring_tells_nothing(live):
    monitor = live.monitor()
    live.write((NIC, 0x10, 4, 0xFFFF_FFFF), (NIC, 0x10, 4, 0xFE00_0000), (NIC, 0x04, 2, 0))
    (line,) = [line for line in until(monitor, lambda line: "decoding" in line) if NIC in line][:1]
    assert "0xffffffff" not in line
    assert "moved" not in line


def test_lost_records_are_told_and_everything_is_read_again(live):
    monitor = live.monitor("--json")
    print("lost", file=live.fifo)
    event = json.loads(until(monitor, lambda line: '"lost"' in line)[-1])
    assert event["count"] == 3
    assert json.loads(live.pcipt("status", "--json").stdout)["watch"]["lost"] == 3


def test_a_monitor_of_other_functions_hears_nothing_of_this_one(live):
    monitor = live.monitor("-s", "00:1c.0")
    live.write(*MOVE, ("0000:00:1c.0", 0x04, 2, 2))
    (line,) = until(monitor, lambda line: "decoding" in line)
    assert "0000:00:1c.0" in line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["monitor", "-s", "zz"], 2, "device 'zz'"),
        (["history", "00:99.0"], 2, "device 99 is above 1f"),
        (["history", "00:1c.*"], 2, "function"),
        (["history", "00:05.0"], 6, "no function 0000:00:05.0"),
        (["history", "00_05.0-00_00.0"], 6, "00_05.0-00_00.0"),
    ],
)
def test_wrong_addresses(live, arguments, code, words):
    done = live.pcipt(*arguments)
    assert done.returncode == code
    assert words in done.stderr


def test_history_by_path_and_of_a_quiet_function(live):
    quiet = live.pcipt("history", "00_1c.0-00_00.0")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (
        0, "", f"note: nothing has happened to {NIC} since the daemon started\n",
    )  # fmt: skip


def test_monitor_ends_when_the_daemon_stops(live):
    monitor = live.monitor()
    live.process.send_signal(signal.SIGTERM)
    assert monitor.wait(10) == 3
    assert live.process.wait(10) == 0
    monitor.communicate()


def test_a_resync_that_is_malformed_changes_nothing(live):
    with pytest.raises(InputError, match="dry_run"):
        call(str(live.directory / "control"), "Resync", {"dry_run": "yes"})
