"""A control socket that gives the same answer to each question of a kind, for tests of what asks."""

import contextlib
import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading

from pcipt.daemon.control import protocol
from tests.trees import REPO

NIC = "0000:02:00.0"
WHEN = "2026-11-22T19:11:32.381Z"


def action(word, sbdf=NIC, start=None, size=None, result="done", detail=None, reason="because of this"):
    return {
        "action": word, "sbdf": sbdf, "start": start, "size": size, "reason": reason, "result": result,
        "rule": None, "detail": detail,
    }  # fmt: skip


LONG = (
    "Xen does not know it: it cannot be passed through and its interrupts may fail; rescan its bus or add it "
    "with pcipt resync, and look at what the guards say"
)
ACTIONS = [
    action("add-device", "0000:00:06.0"),
    action("map-mmio", start="0xfe040000", size=0x2_0000, reason="BAR 0 moved here from 0xfe000000"),
    action("unmap-mmio", start="0x383fe0000000", size=1 << 28, result="failed", detail="EPERM", reason=LONG),
    action("rewrite-bar", start="0xfe200000", size=4096, result="refused", detail="a driver is bound"),
    action("withdraw-reserved", start="0x7f800000", size=0x80_0000, result="planned"),
]
COUNTS = {
    "functions": 10, "known_to_xen": 9, "added_by_us": 1, "ghosts": 0, "orphans": 0, "findings": 1,
    "mappings": 4, "stale": 1, "reserved": 3, "reserved_shared": 1,
}  # fmt: skip
STATUS = {
    "version": 1, "health": "degraded", "since": WHEN, "dom0": "pvh", "xen": "4.17.7",
    "xen_release": {"version": "4.17.7", "basis": "read", "safer": []}, "mode": "enforce",
    "counts": COUNTS,
    "findings": [{"sbdf": NIC, "code": "unknown-to-xen", "text": LONG}],
    "actions": [{"when": WHEN, **item} for item in ACTIONS],
    "hotplug": {"overruns": 0, "gaps": 0, "forged": 0},
    "watch": {"source": "kprobe", "writes": 12, "lost": 0,
              "last_change": {"when": WHEN, "sbdf": NIC, "change": "bar-moved"}},
    "monitors": 0,
}  # fmt: skip
MAPPINGS = {
    "version": 1, "dom0": "pvh", "why": None,
    "mappings": [
        {"start": start, "size": size, "sbdf": sbdf, "path": "00_04.0-00_00.0", "bar": bar, "by": by,
         "since": WHEN, "state": state}
        for start, size, sbdf, bar, by, state in (
            ("0xfe040000", 0x2_0000, NIC, 0, "xen", "held"),
            ("0xfe800000", 0x4000, NIC, 6, "us", "doubtful"),
            ("0x383fe0000000", 1 << 28, "0000:03:00.0", 2, "us", "held"),
            ("0xfd000000", 4096, "0000:05:00.0", 0, "stale", "stale"),
        )
    ],
}  # fmt: skip
EVENTS = [
    {"version": 1, "when": WHEN, "kind": "hotplug", "sbdf": NIC, "action": "unbind"},
    {"version": 1, "when": WHEN, "kind": "change", "sbdf": NIC, "change": "bar-moved", "bar": 0,
     "bar_kind": "mem32", "address": "0xfe040000", "size": 0x2_0000, "from": "0xfe000000", "to": "0xfe040000",
     "assumed": None, "who": "setpci-42", "source": "write"},
    *({"version": 1, "when": WHEN, "kind": "action", **item} for item in ACTIONS),
    {"version": 1, "when": WHEN, "kind": "finding", "sbdf": NIC, "code": "ghost", "text": LONG,
     "state": "new"},
    {"version": 1, "when": WHEN, "kind": "lost", "count": 3},
]  # fmt: skip
EXPLANATION = {
    "version": 1, "sbdf": NIC, "path": "00_04.0-00_00.0", "driver": "e1000e",
    "dom0": "pvh", "as": "pvh",
    "is": {
        "known_to_xen": True, "owner": "dom0", "decodes_memory": True,
        "mappings": [
            {"place": "00_04.0-00_00.0", "sbdf": NIC, "bar": bar, "start": start, "size": 0x2_0000,
             "by": "xen", "since": WHEN, "state": "held"}
            for bar, start in ((0, "0xfe040000"), (1, "0x383fe0000000"))
        ],
    },
    "should_be": {
        "mapped_by": "us", "because": "vPCI does not map BARs of virtual functions", "kept": None,
        "mappings": [{"bar": 0, "start": "0xfe040000", "size": 0x2_0000}],
    },
    "actions": [
        {"action": "map-mmio", "sbdf": NIC, "start": "0xfe040000", "size": 0x2_0000, "bar": 0, "reason": LONG,
         "verdict": "refused", "rule": "protected", "why": "0xfe040000-0xfe05ffff overlaps RAM",
         "guards": [{"rule": "certain", "refuses": None},
                    {"rule": "protected", "refuses": "0xfe040000-0xfe05ffff overlaps RAM"}]},
        {"action": "add-device", "sbdf": NIC, "start": None, "size": None, "reason": "unknown to Xen",
         "verdict": "allowed", "precaution": "decode-off", "guards": []},
    ],
}  # fmt: skip
ANSWERS = {
    "Explain": EXPLANATION,
    "Status": STATUS,
    "Mappings": MAPPINGS,
    "History": {"version": 1, "sbdf": NIC, "events": EVENTS},
    "Resync": {"version": 1, "health": "degraded", "actions": ACTIONS},
}


@contextlib.contextmanager
def answering(path, answers):
    """Listen at `path`; a method's answer is an object, a list of them for a stream, or the frame itself."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    thread = threading.Thread(target=_serve, args=(listener, answers))
    thread.start()
    try:
        yield str(path)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)
        listener.close()


def _serve(listener, answers):
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            asked = b""
            while not asked.endswith(b"\0"):
                asked += connection.recv(65536)
            method = json.loads(asked[:-1])["method"].rpartition(".")[2]
            answer = answers.get(method, protocol.error("Failed", {"reason": "there is no answer"}))
            frames = answer if isinstance(answer, list) else [answer]
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the client has left
                for frame in frames:
                    connection.sendall(frame if isinstance(frame, bytes) else protocol.reply(frame))


def on_terminal(*arguments, columns=None, **environment):
    """Run the command on a terminal and give what appears there, and its exit code."""
    ours, theirs = pty.openpty()
    if columns:
        import termios

        termios.tcsetwinsize(theirs, (50, columns))
    clean = {key: value for key, value in os.environ.items() if key not in {"NO_COLOR", "TERM", "COLUMNS"}}
    process = subprocess.Popen(
        [sys.executable, "-m", "pcipt.cli.main", *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=REPO, env={**clean, "TERM": "xterm", **environment},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while select.select([ours], [], [], 60)[0] and (piece := os.read(ours, 65536)):
            shown += piece
    except OSError:
        pass  # the terminal closes with an error
    process.wait(60)
    os.close(ours)
    return shown.decode().replace("\r\n", "\n"), process.returncode
