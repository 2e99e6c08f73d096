"""What administrators touch: journal, metrics, settings, control socket, under the service as installed."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pcipt.daemon.telling.messages import MESSAGE_IDS

from . import inside
from .hardware import HOT, PART
from .install import BEFORE_BOOT, readme_commands
from .machine import Dom0
from .steps import (
    SETTINGS,
    alike,
    answer,
    main_pid,
    plug,
    resync,
    status,
    unplug,
    wait_answers,
    wait_healthy,
)
from .test_foundation import DEVFN, TESTDEV

DEEP = PART["deep"].sbdf
#: Control characters of a terminal, a quote, and no more than the 15 bytes that Linux keeps.
HOSTILE = 'a\x1b[2J"b=1\tc'
COLLECTED = "/var/lib/prometheus/node-exporter"
TEXTFILE = f"{COLLECTED}/pcipt.prom"
#: What a daemon does not do by itself: it stops, or its source of writes is switched off under it.
HANGS = (
    "systemctl kill -s STOP pcipt",
    "echo 0 > /sys/kernel/tracing/instances/pcipt/tracing_on",
)
#: Which user may what: the exit code of a command.
RIGHTS = (
    # user, command, exit code
    ("reader", "pcipt status", 0),
    ("reader", "pcipt mappings", 0),
    ("reader", "pcipt resync", 5),
    ("outsider", "pcipt status", 5),
)


USERS = {user for user, _, _ in RIGHTS}
AS = "setpriv --reuid {0} --regid {0} --init-groups --"


class Journal:
    """The records that pcipt writes from now on, as journald has them."""

    def __init__(self, dom0: Dom0) -> None:
        self._dom0 = dom0
        self._since = dom0.run("date +@%s.%N").stdout.strip()

    def read(self, matches: str = "") -> list[dict[str, Any]]:
        """Give the records with these fields."""
        lines = self._dom0.run(self._command("-o json", matches)).lines
        return [json.loads(line) for line in lines]

    def wait(self, matches: str) -> None:
        """Wait until there is one."""
        self._dom0.wait_for(f"{self._command('-o cat', matches)} | grep -q .", timeout=120)

    def explained(self, matches: str) -> str:
        """Give what `journalctl -x` says."""
        return self._dom0.run(self._command("-x", matches)).stdout

    def _command(self, options: str, matches: str) -> str:
        return f"journalctl -q --no-pager -t pcipt --since {self._since} {options} {matches}"


def write_as(name: str, sbdf: str, offset: int, values: list[int]) -> None:
    """Write bytes to a configuration register as a program of this name."""
    import ctypes
    import os

    ctypes.CDLL(None).prctl(15, name.encode(), 0, 0, 0)  # PR_SET_NAME
    config = os.open(f"/sys/bus/pci/devices/{sbdf}/config", os.O_RDWR)
    for value in values:
        os.pwrite(config, bytes([value]), offset)
    os.close(config)


def samples(text: str) -> dict[str, float]:
    """Parse OpenMetrics with Prometheus' own parser: the value of each sample by its name and labels."""
    parser = pytest.importorskip("prometheus_client.openmetrics.parser", reason="no prometheus_client here")
    families = list(parser.text_string_to_metric_families(text))
    return {_series(s.name, s.labels): s.value for family in families for s in family.samples}


def _series(name: str, labels: dict[str, str]) -> str:
    return " ".join([name, *(f"{key}={labels[key]}" for key in sorted(labels))])


def metrics(dom0: Dom0) -> dict[str, float]:
    return samples(dom0.run("pcipt metrics").stdout)


@contextmanager
def hot_plugged(dom0: Dom0) -> Iterator[None]:
    """Plug a function without a driver in, and see that it has left afterwards."""
    plug(dom0, "pci-testdev", "served")
    try:
        yield
    finally:
        dom0.run(f"setpci -s {HOT} COMMAND=0:3", check=False)
        unplug(dom0, "served")
        wait_healthy(dom0)


def test_the_readme_is_all_that_one_needs(installed: Dom0) -> None:
    """The service was installed by the README's commands; its last one says whether it is healthy."""
    typed = readme_commands()
    assert [command.partition(" ")[0] for command in typed] == ["apt-get", "pcipt"]
    typed = typed[1:] if installed.mode in BEFORE_BOOT else typed
    log = (installed.output / "commands.log").read_text(encoding="utf-8")
    assert all(f"rc=0 {command}\n" in log for command in typed)


def test_the_unit_is_watched_and_enabled(installed: Dom0) -> None:
    names = ("Type", "ActiveState", "UnitFileState", "WatchdogUSec", "Restart", "StartLimitBurst")
    told = installed.run(f"systemctl show pcipt {' '.join(f'-p {name}' for name in names)}").lines
    assert dict(line.split("=", 1) for line in told) == {
        "Type": "notify",
        "ActiveState": "active",
        "UnitFileState": "enabled",
        "WatchdogUSec": "1min",
        "Restart": "on-failure",
        "StartLimitBurst": "10",
    }


def test_what_happens_to_a_function_is_in_the_journal_and_counted(installed: Dom0) -> None:
    dom0 = installed
    before, journal = metrics(dom0), Journal(dom0)
    with hot_plugged(dom0):
        journal.wait(f"PCIPT_SBDF={HOT} PCIPT_UEVENT=add")
        dom0.run(f"setpci -s {HOT} COMMAND=0:3")
        assert dom0.call(inside.pci_device_remove, 0, 1, 0, uses=[inside.physdev_op]) == 0
        resync(dom0)
        dom0.call(write_as, HOSTILE, HOT, 4, [2, 0])
        journal.wait(f"PCIPT_SBDF={HOT} PCIPT_CHANGE=bar-unmapped")
        during, records = metrics(dom0), journal.read(f"PCIPT_SBDF={HOT}")

    assert {r["MESSAGE_ID"] for r in records} == {MESSAGE_IDS[k] for k in {r["PCIPT_KIND"] for r in records}}
    added = next(r for r in records if r.get("PCIPT_ACTION") == "add-device")
    assert (added["PCIPT_KIND"], added["PCIPT_RESULT"], added["PRIORITY"]) == ("action", "done", "6")
    assert added["PCIPT_REASON"]
    assert added["MESSAGE"].startswith(f"add-device sbdf={HOT} ")
    assert "_SYSTEMD_UNIT" in added
    explained = journal.explained(f"PCIPT_SBDF={HOT} PCIPT_ACTION=add-device")
    assert f"Subject: add-device for {HOT}: done" in explained
    assert f"because: {added['PCIPT_REASON']}" in explained

    names = [r["PCIPT_WHO"].rpartition("-")[0] for r in records if r["PCIPT_KIND"] == "change"]
    assert HOSTILE.encode("unicode_escape").decode() in names
    assert all(record["MESSAGE"].isprintable() for record in records)

    moved = {key: during[key] - before.get(key, 0) for key in during if during[key] != before.get(key, 0)}
    print(f"{dom0.mode}: {moved}")
    assert moved["pcipt_functions"] == 1
    assert moved["pcipt_actions_total action=add-device outcome=done"] == 1


def subscribe(sbdf: str) -> socket.socket:
    """Ask for the stream of a function's events, and read nothing of it."""
    import socket

    link = socket.socket(socket.AF_UNIX)
    link.connect("/run/pcipt/control")
    link.sendall(b'{"method":"org.pcipt.Monitor","parameters":{"slot":"%s"},"more":true}\0' % sbdf.encode())
    return link


def frames(link: socket.socket) -> Iterator[dict[str, Any] | None]:
    """Give what is told, None whenever nothing comes for a while."""
    import json
    import select

    rest = b""
    while True:
        if not select.select([link], [], [], 2)[0]:
            yield None
            continue
        *whole, rest = (rest + link.recv(1 << 16)).split(b"\0")
        for frame in whole:
            yield json.loads(frame)["parameters"]


def outpace(sbdf: str, rounds: int) -> dict[str, Any]:
    """Subscribe twice and read one of them; write until the other has lost events, then read that as well.

    Shape:  seconds from each round's last write to its last event, and from a single write to its own; how
            many events the reader had, and how many the silent one had and was told that it had lost.
    """
    import itertools
    import os
    import time

    os.sched_setaffinity(0, {0})
    config = os.open(f"/sys/bus/pci/devices/{sbdf}/config", os.O_RDWR)
    busy, silent = frames(subscribe(sbdf)), frames(subscribe(sbdf))
    for stream in (busy, silent):  # what happens before the service has read the request is told to nobody
        assert next(stream)["kind"] == "start"
    seen: list[dict[str, Any]] = []
    commands = itertools.cycle((b"\2", b"\0"))

    def write(count: int) -> float:
        """Switch memory decode to and fro; give the seconds until the last of it is told."""
        for command in itertools.islice(commands, count):
            os.pwrite(config, command, 4)
        started = time.monotonic()
        for event in busy:
            if event is not None:
                seen.append(event)
                count -= event.get("change") == "decode"
            if count == 0:
                break
        return time.monotonic() - started

    took = [write(100) for _ in range(rounds)]
    alone = min(write(1) for _ in range(3))
    seen += itertools.takewhile(bool, busy)
    had = list(itertools.takewhile(bool, silent))
    os.close(config)
    losses = [event["count"] for event in had if event["kind"] == "lost"]
    events = [event for event in had if event["kind"] != "lost"]
    return {"took": took, "alone": alone, "seen": len(seen), "had": len(events), "losses": losses}


def test_a_monitor_that_does_not_read_delays_nobody(installed: Dom0) -> None:
    alike(installed)
    # Two emulated processors that contend for the lock of config space were seen to hang: both work on one.
    installed.run(f"taskset -a -p -c 0 {main_pid(installed)}")
    told = installed.call(outpace, DEEP, 7, uses=[subscribe, frames])
    installed.run(f"taskset -a -p -c 0-1 {main_pid(installed)}")
    print(told)
    assert told["alone"] < 1
    assert told["losses"]
    assert told["seen"] == told["had"] + sum(told["losses"])
    installed.run(f"setpci -s {DEEP} COMMAND=0:3")
    wait_healthy(installed)


@contextmanager
def drop_in(dom0: Dom0, text: str) -> Iterator[None]:
    """Change the unit meanwhile, and start the service anew before and after."""
    folder = "/run/systemd/system/pcipt.service.d"
    again = "systemctl daemon-reload; systemctl reset-failed pcipt; systemctl restart pcipt"
    dom0.run(f"mkdir -p {folder}")
    dom0.put(f"{folder}/lab.conf", text.encode())
    try:
        dom0.run(again)
        yield
    finally:
        dom0.run(f"rm -r {folder}; {again}")
        wait_answers(dom0)


def test_what_hangs_is_started_again_but_not_for_ever(installed: Dom0) -> None:
    """The third start is the last one here: what comes after it is left to an administrator."""
    dom0 = installed
    alike(dom0)
    dom0.run(f"setpci -s {TESTDEV} COMMAND=0:3")
    assert dom0.call(inside.pci_device_remove, 0, 0, DEVFN, uses=[inside.physdev_op]) == 0
    with drop_in(dom0, "[Unit]\nStartLimitBurst=3\n[Service]\nWatchdogSec=4\n"):
        before, journal = status(dom0)["counts"], Journal(dom0)
        assert before["added_by_us"] >= 1
        for number, step in enumerate(HANGS, 1):
            dom0.run(step)
            dom0.wait_for(f"systemctl show pcipt -p NRestarts | grep -qx NRestarts={number}")
            wait_healthy(dom0)
            assert status(dom0)["counts"] == before
        (*_, complaint) = journal.read("PCIPT_KIND=check")
        assert "pcipt does not see configuration writes" in complaint["PCIPT_REASON"]
        assert complaint["MESSAGE_ID"] == MESSAGE_IDS["check"]
        dom0.run("systemctl kill -s KILL pcipt")
        dom0.wait_for("test $(systemctl show pcipt -p ActiveState --value) = failed")
        told = dom0.journal("-u pcipt")
        assert told.count("Watchdog timeout") == len(HANGS)
        assert "Start request repeated too quickly" in told


@pytest.fixture(scope="module")
def activated(installed: Dom0) -> Iterator[Dom0]:
    """Have a question start the service; afterwards it runs as before. node_exporter's directory is there."""
    dom0 = installed
    alike(dom0)
    dom0.run(f"mkdir -p {COLLECTED} && systemctl stop pcipt && systemctl start pcipt.socket")
    yield dom0
    dom0.run(f"systemctl stop pcipt.socket pcipt; systemctl start pcipt; rm -rf {COLLECTED}")


@pytest.fixture
def users(activated: Dom0) -> Iterator[None]:
    """Make a member of the group and somebody else."""
    activated.run("useradd -M -G pcipt reader && useradd -M outsider")
    yield
    activated.run("userdel reader; userdel outsider")


def test_the_first_question_starts_the_service(activated: Dom0) -> None:
    dom0 = activated
    assert dom0.run("systemctl is-active pcipt", check=False).stdout == "inactive\n"
    dom0.run("pcipt status -q")
    assert dom0.run("systemctl is-active pcipt").stdout == "active\n"
    mode, *owners = dom0.call(file_status, "/run/pcipt/control")
    assert (stat.S_IMODE(mode), owners) == (0o660, ["root", "pcipt"])


def test_who_may_ask_what(activated: Dom0, users: None) -> None:
    dom0 = activated
    done = dom0.run(" ".join(f"{AS.format(user)} {command}; echo {user} $?;" for user, command, _ in RIGHTS))
    codes = [tuple(words) for line in done.lines if (words := line.split()) and words[0] in USERS]
    assert codes == [(user, str(code)) for user, _, code in RIGHTS]
    assert done.stderr.count("not permitted") == [code for _, _, code in RIGHTS].count(5)
    assert dom0.call(first_word_to, "reader")["parameters"] == {"version": 1, "kind": "start"}
    dom0.run("chmod 666 /run/pcipt/control")  # the file's mode is not all that keeps others out
    try:
        refused = dom0.call(first_word_to, "outsider")
    finally:
        dom0.run("chmod 660 /run/pcipt/control")
    assert refused["error"] == "org.varlink.service.PermissionDenied"


def first_word_to(user: str) -> Any:
    """Subscribe as a user; give the answer's first frame."""
    import contextlib
    import grp
    import json
    import os
    import pwd
    import socket

    told = pwd.getpwnam(user)
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(30)
    os.setgroups([group.gr_gid for group in grp.getgrall() if user in group.gr_mem])
    os.setgid(told.pw_gid)
    os.setuid(told.pw_uid)
    link.connect("/run/pcipt/control")
    with contextlib.suppress(BrokenPipeError):  # it has been sent away before it said anything
        link.sendall(b'{"method":"org.pcipt.Monitor","more":true}\0')
    return json.loads(link.recv(4096).partition(b"\0")[0])


def file_status(path: str) -> list[Any]:
    """Give mode, owner and group of a file."""
    import grp
    import os
    import pwd

    status = os.stat(path)
    return [status.st_mode, pwd.getpwuid(status.st_uid).pw_name, grp.getgrgid(status.st_gid).gr_name]


@pytest.fixture
def shipped(activated: Dom0) -> Iterator[str]:
    """Give the settings file that the package brings, and put it back."""
    text = activated.run(f"cat {SETTINGS}").stdout
    yield text
    activated.put(SETTINGS, text.encode())
    activated.run("systemctl reload pcipt")


def test_settings_are_read_again_or_kept_and_the_textfile_follows(activated: Dom0, shipped: str) -> None:
    dom0, journal = activated, Journal(activated)
    good = f'mode = "observe"\n[metrics]\ntextfile = "{TEXTFILE}"\n'
    dom0.put(SETTINGS, good.encode())
    dom0.run("systemctl reload pcipt")
    dom0.wait_for(f"test -s {TEXTFILE}")
    assert answer(dom0, "Status")["mode"] == "observe"
    mode, *_ = dom0.call(file_status, TEXTFILE)
    assert stat.S_IMODE(mode) == 0o644
    told = dom0.run(f"setpriv --reuid nobody --clear-groups cat {TEXTFILE}; ls -A {COLLECTED}").lines
    assert "# TYPE pcipt_actions_total counter" in told
    assert told[-2:] == [told[-2], "pcipt.prom"]  # nothing beside it

    dom0.put(SETTINGS, good.replace("observe", "obserwe").encode())
    refused = dom0.run("pcipt daemon --check-settings", check=False)
    (why,) = refused.stderr.splitlines()
    assert (refused.rc, refused.stdout) == (1, "")
    assert why.startswith(f"pcipt: {SETTINGS}: line 1: mode is ")
    dom0.run("systemctl reload pcipt")
    journal.wait("PCIPT_KIND=settings PRIORITY=3")
    (kept,) = journal.read("PCIPT_KIND=settings PRIORITY=3")
    assert kept["PCIPT_REASON"] == why.removeprefix("pcipt: ").partition("; correct the file")[0]
    assert kept["MESSAGE_ID"] == MESSAGE_IDS["settings"]
    assert answer(dom0, "Status")["mode"] == "observe"

    dom0.put(SETTINGS, shipped.encode())
    dom0.run("systemctl reload pcipt")
    dom0.wait_for(f"! test -e {TEXTFILE}")
    assert answer(dom0, "Status")["mode"] == "enforce"
