"""The daemon as a process: its start, its signals, its socket, its messages to the manager."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pcipt.daemon.control.listener import listen
from pcipt.daemon.daemon import Daemon, Options
from pcipt.daemon.replay.recording import RecordedHotplug
from pcipt.daemon.settings import Settings
from pcipt.daemon.store import FileStore
from pcipt.daemon.telling.log import Logs
from pcipt.host.uevents import HotplugEvent
from tests.daemon.running import MACHINE, REPOSITORY, Running
from tests.engine.stage import BusStage, S, Stage
from tests.xen.devices import device
from tests.xen.truth import mapped_pages, p2m_truth


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
    assert [(a["action"], a["result"]) for a in told["actions"] if a["start"] is None] == [
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
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "note: nothing to do: hardware, Linux and Xen agree\n"
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
    assert done.stderr == (
        f"pcipt: {running.control}: a program, probably another pcipt daemon, uses this socket; `pcipt "
        "status` asks it\n"
    )


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
    assert "wrong settings, the old ones are kept" in running.stop()


@pytest.mark.parametrize("first", ['mode = "observe"', "[actions]\nadd-device = false"])
def test_what_a_reload_allows_is_done_at_once(tmp_path, first):
    """Not only when something happens next to that function: nothing may, for weeks."""
    settings = tmp_path / "pcipt.toml"
    settings.write_text(first)
    running = Running(tmp_path, "--settings", str(settings))
    assert running.pcipt("status", "-q").returncode == 4
    settings.write_text("")
    running.process.send_signal(signal.SIGHUP)
    for _ in range(50):  # the signal is taken between two turns of the loop
        told = json.loads(running.pcipt("status", "--json").stdout)
        if told["health"] == "healthy":
            break
        time.sleep(0.1)
    assert (told["health"], told["counts"]["added_by_us"]) == ("healthy", 1)
    running.stop()


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


@pytest.mark.parametrize("state", ["/proc/nowhere", "another account's"])
def test_without_a_state_directory_it_starts_observes_and_says_so(tmp_path, state):
    settings = tmp_path / "pcipt.toml"
    settings.write_text('mode = "enforce"')
    if state != "/proc/nowhere":
        (tmp_path / "state").mkdir()
        os.chown(tmp_path / "state", 12345, 12345)
    more = ["--state", state] if state == "/proc/nowhere" else []
    running = Running(tmp_path, *more, "--settings", str(settings))
    for _ in range(2):
        told = json.loads(running.pcipt("status", "--json").stdout)
        assert (told["mode"], told["health"]) == ("observe", "degraded")
        assert "done" not in {action["result"] for action in told["actions"]}
        texts = [finding["text"] for finding in told["findings"] if finding["code"] == "state-unusable"]
        assert len(texts) == 1
        assert "changes nothing in Xen" in texts[0]
        running.process.send_signal(signal.SIGHUP)  # the settings say "enforce"
    assert "the settings were read again" in running.stop()


def test_a_ledger_that_cannot_be_read_is_no_reason_not_to_start(tmp_path, monkeypatch):
    def broken(_store, _boot_id):
        raise OSError(errno.EIO, "Input/output error", "ledger")

    monkeypatch.setattr(FileStore, "load", broken)
    stage = Stage(known=[])
    options = Options(str(tmp_path / "control"), str(tmp_path / "state"), str(tmp_path / "none"), False)
    os.mkdir(options.state)
    daemon = Daemon(stage.host, stage.xen, RecordedHotplug(), options, Settings(), Logs(lambda *_: None))
    daemon.run(lambda: os.kill(os.getpid(), signal.SIGTERM))
    told = {finding.code: finding.text for _, finding in daemon.engine.findings}
    words = f"the state directory {options.state} cannot be used (ledger: Input/output error): the service"
    assert told["state-unusable"].startswith(words)
    assert not any(stage.xen.known(sorted(stage.host.raws)))
    assert os.listdir(options.state) == []


def test_it_asks_for_time_before_it_reads_the_machine(running):
    assert running.heard[0].startswith("EXTEND_TIMEOUT_USEC=")


def test_the_watchdog_is_fed_by_a_check_that_came_back(tmp_path):
    running = Running(tmp_path, WATCHDOG_USEC="300000")
    running.until("WATCHDOG=1")
    running.until("WATCHDOG=1")
    running.stop()


def test_a_daemon_that_hangs_does_not_feed_the_watchdog(tmp_path):
    running = Running(tmp_path, WATCHDOG_USEC="300000")
    running.until("WATCHDOG=1")
    running.process.send_signal(signal.SIGSTOP)
    running.manager.settimeout(0.5)
    with pytest.raises(TimeoutError):  # after what was under way when it was stopped
        running.until("never")
    running.process.send_signal(signal.SIGCONT)
    running.manager.settimeout(60)
    running.until("WATCHDOG=1")
    running.stop()


def test_it_takes_the_socket_that_systemd_passes(tmp_path):
    """The socket is there before the daemon and after it: who connects early waits, and it is not removed."""
    path = str(tmp_path / "control")
    with listen(path) as listener, socket.socket(socket.AF_UNIX) as early:
        early.connect(path)
        running = Running(tmp_path, listener=listener.fileno())
        assert running.pcipt("status", "-q").returncode == 0
        running.stop()
        assert os.path.exists(path)


def test_metrics_come_by_command_and_by_file(tmp_path):
    settings, textfile = tmp_path / "pcipt.toml", tmp_path / "pcipt.prom"
    settings.write_text(f'[metrics]\ntextfile = "{textfile}"')
    running = Running(tmp_path, "--settings", str(settings))
    told = running.pcipt("metrics")
    assert told.returncode == 0
    assert told.stdout.endswith("# EOF\n")
    sample = 'pcipt_actions_total{action="add-device",outcome="done"} 2\n'
    assert sample in told.stdout
    assert sample in textfile.read_text()
    assert "# TYPE pcipt_actions_total counter\n" in textfile.read_text()
    assert json.loads(running.pcipt("metrics", "--json").stdout)["text"] == told.stdout
    running.stop()
    assert not textfile.exists()


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        ("", 0, 'mode = "enforce"\n'),
        ("mode = 'observe'\n[watch]\nsettle-ms = 9", 0, "watch.settle-ms = 9  # default: 50\n"),
        (
            "mode = 'observe'\n\nwacth = 1",
            1,
            "line 3: unknown key wacth; did you mean watch? Correct the file, then `systemctl restart pcipt`",
        ),
        ("[[passthrough]]\npath = '00_1c.0'", 0, 'mode = "enforce"\n'),
        ("[[passthrough]]\npath = '03:00.0'", 1, "pcipt.toml: path: "),
        ("[[passthru]]\npath = '00_1c.0'", 1, "unknown key passthru; did you mean passthrough? Correct"),
    ],
)
def test_settings_are_checked_without_a_daemon(tmp_path, text, code, words):
    path = tmp_path / "pcipt.toml"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "pcipt.cli.main", "daemon", "--check-settings", "--settings", str(path)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert words in (done.stdout if code == 0 else done.stderr)
    assert (done.stderr == "") is (code == 0)


def test_a_sighup_in_the_middle_of_an_action_waits_until_all_is_done(tmp_path):
    """What was begun ends under the settings it began with; then the new ones hold."""
    stage, done = Stage(known=[]), []
    add, settings = stage.xen.add_device, tmp_path / "pcipt.toml"
    settings.write_text('mode = "observe"')

    def add_and_be_told(function, flags):
        os.kill(os.getpid(), signal.SIGHUP)
        add(function, flags)
        done.append(function)

    stage.xen.add_device = add_and_be_told
    options = Options(str(tmp_path / "control"), str(tmp_path / "state"), str(settings), True)
    os.mkdir(options.state)
    told = []
    log = Logs(lambda *what: told.append(what))
    daemon = Daemon(stage.host, stage.xen, RecordedHotplug(), options, Settings(), log)
    daemon.run(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert len(done) == len(stage.host.raws)
    assert daemon.engine.settings.mode == "observe"
    texts = [text for _, text, _ in told]
    assert texts.index("the settings were read again mode=observe") > max(
        number for number, text in enumerate(texts) if text.startswith("add-device")
    )
    assert texts[-1] == "stopping"


@pytest.mark.parametrize("asked", ["Resync", "Release"])
@pytest.mark.parametrize("command", [0, 2])
def test_what_was_replaced_a_moment_before_a_request_leaves_nothing(tmp_path, asked, command):
    """Its message is still in the socket: vPCI unmaps nothing of what has left."""
    stage = BusStage([device("00:06.0", (0xC000_0000, 0x4000))])
    options = Options(str(tmp_path / "control"), str(tmp_path / "state"), str(tmp_path / "none"), False)
    os.mkdir(options.state)
    hotplug = RecordedHotplug()
    daemon = Daemon(stage.host, stage.xen, hotplug, options, Settings(), Logs(lambda *_: None))

    def play():
        stage.pull("00:06.0")
        stage.plug(device("00:06.0", (0xC010_0000, 0x4000), command=command))
        words = enumerate(("remove", "add"))
        hotplug.push(HotplugEvent(word, S("00:06.0"), at, synthetic=False) for at, word in words)
        daemon._answers.handlers[asked]({"function": "00:06.0"})
        daemon.settle()
        os.kill(os.getpid(), signal.SIGTERM)

    daemon.run(play)
    assert p2m_truth(stage.hardware, stage.xen).mistakes(mapped_pages(stage.xen)) == ([], [])


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_resync_is_answered_though_nothing_else_happens(tmp_path, dry_run):
    stage = BusStage([device("00:06.0", (0xC000_0000, 0x4000))], known=[])
    options = Options(str(tmp_path / "control"), str(tmp_path / "state"), str(tmp_path / "none"), False)
    os.mkdir(options.state)
    settings = Settings(mode="observe")  # so that there is something to tell, and no timer
    daemon = Daemon(stage.host, stage.xen, RecordedHotplug(), options, settings, Logs(lambda *_: None))
    told = []

    def answered(message):
        told.append(message)
        os.kill(os.getpid(), signal.SIGTERM)

    daemon.run(lambda: daemon._answers.handlers["Resync"]({"dry_run": dry_run}).when_given(answered))
    assert [(each["action"], each["result"]) for each in told[0]["actions"]] == [
        ("add-device", "planned"),
        ("map-mmio", "planned"),
    ]
