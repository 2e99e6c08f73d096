"""What pcipt says that it did, and how a scene waits for it: by the history of a place, from a moment on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from . import inside
from .machine import Dom0

SETTINGS = "/etc/pcipt/pcipt.toml"
#: What becomes of a change of dom0's map that may be made: a PV dom0 has no map to change.
RESULT = {"pvh": "done", "pv": "not-applicable"}
PATIENCE = 60.0
#: A start takes ten seconds of an emulated processor, and the lab shares the host's with others.
START_SECONDS = 180.0


@dataclass(frozen=True)
class Deed:
    """One action as pcipt tells it; `start` is 0 where it is about no range."""

    action: str
    sbdf: str
    result: str
    start: int
    size: int
    rule: str | None


def deed(event: dict[str, Any]) -> Deed:
    start, size = int(event.get("start") or "0", 16), event.get("size") or 0
    return Deed(event["action"], event["sbdf"], event["result"], start, size, event.get("rule"))


class Deeds:
    """What is done to the function of a place (its PCI path) from now on."""

    def __init__(self, dom0: Dom0, place: str) -> None:
        self._dom0 = dom0
        self._place = place
        self._since = dom0.run("date -u +%Y-%m-%dT%H:%M:%S.%3NZ").stdout.strip()

    def told(self) -> list[Deed]:
        """List the actions so far."""
        events = self._dom0.run(f"pcipt history {self._place} --json").json()["events"]
        return [deed(e) for e in events if e["kind"] == "action" and e["when"] > self._since]

    def wait(self, action: str, result: str, start: int | None = None) -> None:
        """Wait until one such action is told; with `start`, of the range that begins there."""
        wanted = {"kind": "action", "action": action, "result": result}
        if start is not None:
            wanted["start"] = f"{start:#x}"
        self._dom0.call(inside.await_event, self._place, self._since, wanted, PATIENCE)


def ask(dom0: Dom0, question: str) -> Any:
    """Give what a reading command says with --json; degraded is no failure here."""
    done = dom0.run(f"pcipt {question} --json", check=False)
    assert done.rc in (0, 4), done.stdout + done.stderr
    return done.json()


def findings(dom0: Dom0, sbdf: str) -> dict[str, str]:
    """Give the findings about a function: text by code."""
    return {f["code"]: f["text"] for f in ask(dom0, "status")["findings"] if f["sbdf"] == sbdf}


def held(dom0: Dom0, sbdf: str) -> list[tuple[int, int, str]]:
    """Give what `pcipt mappings` lists for a function: start, size, by whom."""
    told = ask(dom0, "mappings")["mappings"]
    return sorted((int(m["start"], 16), m["size"], m["by"]) for m in told if m["sbdf"] == sbdf)


def configure(dom0: Dom0, text: str) -> None:
    """Give the service other settings and have it start with them; an empty text takes the file away."""
    dom0.run(f"rm -f {SETTINGS}")
    if text:
        dom0.put(SETTINGS, text.encode())
    restart(dom0)


def restart(dom0: Dom0) -> None:
    """Start the service anew and wait until it answers, whatever it has to say."""
    dom0.run("systemctl reset-failed pcipt; systemctl restart pcipt")
    wait_answers(dom0)


def wait_answers(dom0: Dom0) -> None:
    dom0.wait_for("pcipt status -q; case $? in 0|4) ;; *) false;; esac", timeout=START_SECONDS)


def wait_healthy(dom0: Dom0) -> None:
    dom0.wait_for("pcipt status -q", timeout=PATIENCE)


@contextmanager
def settings(dom0: Dom0, text: str) -> Iterator[None]:
    """Run the service with other settings meanwhile, then with what the package brings."""
    shipped = dom0.run(f"cat {SETTINGS}", check=False).stdout
    configure(dom0, text)
    try:
        yield
    finally:
        configure(dom0, shipped)


@contextmanager
def undriven(dom0: Dom0, sbdf: str) -> Iterator[None]:
    """Take the driver off a function meanwhile."""
    driver = dom0.run(f"readlink -f /sys/bus/pci/devices/{sbdf}/driver").stdout.strip()
    dom0.run(f"echo {sbdf} > {driver}/unbind")
    try:
        yield
    finally:
        dom0.run(f"echo {sbdf} > {driver}/bind")
