"""The daemon as a process on a recorded machine, ready to be asked."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from pcipt.cli.machine.client import call
from pcipt.daemon.control.protocol import request
from tests.daemon.served import everything

REPOSITORY = Path(__file__).resolve().parents[2]
MACHINE = REPOSITORY / "fixtures" / "sysfs" / "lab-pv"

# Passes a descriptor as systemd does: as number 3, with the pid of the program that is to take it.
PASSING = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


class Running:
    """`pcipt daemon --replay`; `heard` has what it told the manager until it was ready.

    `listener` is a descriptor that it gets as its control socket.
    """

    def __init__(self, directory, *arguments, listener=None, **environment):
        self.directory = directory
        self.control = str(directory / "control")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(directory / "notify"))
        self.manager.settimeout(60)
        command = [sys.executable, "-m", "pcipt.cli.main", "daemon", "--replay", str(MACHINE)]
        command += ["--socket", self.control, "--state", str(directory / "state"), *arguments]
        if listener is not None:
            command = [sys.executable, "-c", PASSING, str(listener), *command]
        self.process = subprocess.Popen(
            command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True,
            pass_fds=() if listener is None else (listener,),
            env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify"), **environment},
        )  # fmt: skip
        self.heard = self.until("READY=1")
        self.ready = self.heard[-1]

    def until(self, line):
        """Read what it tells the manager up to a message with this line."""
        found = [self.manager.recv(4096).decode()]
        while line not in found[-1].split("\n"):
            found.append(self.manager.recv(4096).decode())
        return found

    def pcipt(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "pcipt.cli.main", *arguments, "--socket", self.control],
            cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    def ask(self, method, parameters=None):
        return call(self.control, method, parameters)

    def send(self, data):
        """Send bytes as they are and read one frame."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(30)
            peer.connect(self.control)
            peer.sendall(data)
            return json.loads(everything(peer, one=True))

    def first_event(self):
        return self.send(request("Monitor", more=True))["parameters"]

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
        _, text = self.process.communicate(timeout=30)
        self.manager.close()
        return text
