"""What can go wrong in the lab, each with its facts in attributes."""

from __future__ import annotations


class LabError(Exception):
    """Say in one line what failed in the lab."""


class MissingToolError(LabError):
    """Say that this host lacks what the lab needs: a reason to skip, not to fail."""


class TimedOutError(LabError):
    """Say that something in the machine did not happen in time, while the machine still lives."""


class MachineDiedError(LabError):
    """Say that the machine is gone, with the end of its console."""

    def __init__(self, why: str, tail: str) -> None:
        super().__init__(f"{why}; the console ended with:\n{tail}")
        self.why = why
        self.tail = tail


class CommandError(LabError):
    """Say that a command in dom0 ended with another code than 0."""

    def __init__(self, command: str, rc: int, stdout: str, stderr: str) -> None:
        super().__init__(f"{command!r} ended with {rc}\n{stdout}{stderr}")
        self.command = command
        self.rc = rc
        self.stdout = stdout
        self.stderr = stderr
