"""What pcipt says that it did, and how a scene waits for it: by the history of a place, from a moment on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from . import inside
from .hardware import HOT_PATH
from .machine import Dom0

SETTINGS = "/etc/pcipt/pcipt.toml"
NOT_APPLICABLE = "not-applicable"
#: What becomes of a change of dom0's map that may be made: a PV dom0 has no map to change. Such a plan is
#: counted in the metrics and told nowhere else.
RESULT = {"pvh": "done", "pv": NOT_APPLICABLE}
#: The actions that a PV dom0 has nothing for.
PAGES = (
    "map-mmio", "unmap-mmio", "rewrite-bar", "rewrite-command", "withdraw-reserved", "restore-reserved",
    "check-unmapped",
)  # fmt: skip
PATIENCE = 120.0
#: QEMU's name for what the fixture `plugged` plugs in.
LEAVER = "leaver"
#: A start takes ten seconds of an emulated processor, and the lab shares the host's with others.
START_SECONDS = 180.0


@dataclass(frozen=True)
class Step:
    """One action as pcipt tells it; `start` is 0 where it is about no range."""

    action: str
    sbdf: str
    result: str
    start: int
    size: int
    rule: str | None


def step(event: dict[str, Any]) -> Step:
    start, size = int(event.get("start") or "0", 16), event.get("size") or 0
    return Step(event["action"], event["sbdf"], event["result"], start, size, event.get("rule"))


def now(dom0: Dom0) -> str:
    """Give dom0's time as events tell it."""
    return dom0.run("date -u +%Y-%m-%dT%H:%M:%S.%3NZ").stdout.strip()


class Steps:
    """What is done to the function of a place (its PCI path) from now on."""

    def __init__(self, dom0: Dom0, place: str) -> None:
        self._dom0 = dom0
        self._place = place
        self._since = now(dom0)
        self._counts = plans_without_effect(dom0) if dom0.mode == "pv" else {}

    def told(self) -> list[Step]:
        """List the actions so far."""
        events = answer(self._dom0, "History", function=self._place)["events"]
        return [step(e) for e in events if e["kind"] == "action" and e["when"] > self._since]

    def wait(self, action: str, result: str, start: int | None = None) -> None:
        """Wait until one such action is told; with `start`, of the range that begins there.

        An action that is not applicable is told nowhere: the metrics must count one more of this kind.
        """
        if result == NOT_APPLICABLE:
            more = f"{counter(action)} > {self._counts[action]}"
            wait_answer(self._dom0, more, "Metrics")
            self._counts = plans_without_effect(self._dom0)
            return
        wanted = {"kind": "action", "action": action, "result": result}
        if start is not None:
            wanted["start"] = f"{start:#x}"
        await_event(self._dom0, self._place, self._since, wanted)


def counter(action: str) -> str:
    """Give what finds in `it`, the answer to Metrics, how often an action was not applicable (Python)."""
    sample = f'pcipt_actions_total{{action="{action}",outcome="{NOT_APPLICABLE}"}} '
    return f"int(it['text'].split({sample!r})[1].split()[0])"


def plans_without_effect(dom0: Dom0) -> dict[str, int]:
    """Give how often each kind of action was not applicable so far."""
    it = answer(dom0, "Metrics")
    return {action: eval(counter(action), {"it": it}) for action in PAGES}


def answer(dom0: Dom0, method: str, **parameters: Any) -> Any:
    """Give the service's answer over its socket: what `pcipt` prints with --json, in a tenth of the time."""
    return dom0.call(inside.answer_of, method, parameters)


def wait_answer(
    dom0: Dom0, condition: str, method: str = "Status", *, timeout: float = PATIENCE, **parameters: Any
) -> Any:
    """Wait until an answer, `it`, meets a condition in Python, and give it."""
    arguments = (method, parameters, condition, timeout)
    return dom0.call(inside.await_answer, *arguments, uses=[inside.answer_of], timeout=timeout + PATIENCE)


def await_event(dom0: Dom0, place: str, since: str, wanted: dict[str, str]) -> list[dict[str, Any]]:
    """Wait until the history of a place has an event with these members; give all that it has since."""
    arguments, uses = (place, since, wanted, PATIENCE), [inside.answer_of, inside.await_answer]
    return dom0.call(inside.await_event, *arguments, uses=uses, timeout=2 * PATIENCE)


def plug(dom0: Dom0, driver: str, name: str, bus: str = "rp1", place: str = HOT_PATH) -> None:
    """Plug a function in, and wait until the service has acted on it: Linux has it before."""
    since = now(dom0)
    dom0.qmp("device_add", driver=driver, id=name, bus=bus)
    await_event(dom0, place, since, {"kind": "hotplug", "action": "add"})


def unplug(dom0: Dom0, name: str, place: str = HOT_PATH) -> None:
    """Take it out again, and wait until the service has acted on that."""
    since = now(dom0)
    dom0.qmp("device_del", id=name)
    dom0.control.wait_event("DEVICE_DELETED", PATIENCE, device=name)
    await_event(dom0, place, since, {"kind": "hotplug", "action": "remove"})


def status(dom0: Dom0, health: str = "healthy") -> Any:
    """Give the service's state, which is this.

    While the service itself says that something is not compared yet, it is asked again.
    """
    told = wait_answer(dom0, "'unsettled' not in {finding['code'] for finding in it['findings']}")
    assert told["health"] == health, told
    return told


def ask(dom0: Dom0, question: str) -> Any:
    """Give what a reading command says with --json; degraded is no failure here."""
    done = dom0.run(f"pcipt {question} --json", check=False)
    assert done.rc in (0, 4), done.stdout + done.stderr
    return done.json()


def findings(dom0: Dom0, sbdf: str) -> dict[str, str]:
    """Give the findings about a function: text by code."""
    return {f["code"]: f["text"] for f in answer(dom0, "Status")["findings"] if f["sbdf"] == sbdf}


def held(dom0: Dom0, sbdf: str) -> list[tuple[int, int, str]]:
    """Give what `pcipt mappings` lists for a function: start, size, by whom."""
    listed = answer(dom0, "Mappings")["mappings"]
    return sorted((int(m["start"], 16), m["size"], m["by"]) for m in listed if m["sbdf"] == sbdf)


def driver_of(dom0: Dom0, sbdf: str) -> str:
    """Give the name of a function's driver, empty if it has none."""
    return dom0.run(f"basename $(readlink /sys/bus/pci/devices/{sbdf}/driver) || true").stdout.strip()


def main_pid(dom0: Dom0) -> int:
    return int(dom0.run("systemctl show pcipt -p MainPID --value").stdout)


def configure(dom0: Dom0, text: str) -> None:
    """Give the service other settings and have it act on them; an empty text takes the file away."""
    dom0.run(f"rm -f {SETTINGS}")
    if text:
        dom0.put(SETTINGS, text.encode())
    dom0.run(
        "since=$(date +@%s.%N); systemctl reload pcipt; until journalctl -q -t pcipt --since $since"
        " PCIPT_KIND=settings | grep -q 'read again'; do sleep 0.1; done"
    )
    resync(dom0)


def resync(dom0: Dom0) -> Any:
    """Have everything compared."""
    return answer(dom0, "Resync", dry_run=False)


def restart(dom0: Dom0) -> None:
    """Start the service anew and wait until it answers, whatever it has to say."""
    dom0.run("systemctl reset-failed pcipt; systemctl restart pcipt")
    wait_answers(dom0)


def wait_answers(dom0: Dom0) -> None:
    wait_answer(dom0, "True", timeout=START_SECONDS)


def wait_healthy(dom0: Dom0) -> None:
    wait_answer(dom0, "it['health'] == 'healthy'")


def alike(dom0: Dom0) -> None:
    """Leave a scene to one kind of dom0 where nothing in it depends on the kind."""
    if dom0.mode != "pv":
        pytest.skip("the same on both kinds of dom0, and a start of the service takes seconds")


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
    """Take the driver off a function meanwhile. pcipt may have let Linux bind it again before the end."""
    driver = dom0.run(f"readlink -f /sys/bus/pci/devices/{sbdf}/driver").stdout.strip()
    dom0.run(f"echo {sbdf} > {driver}/unbind")
    try:
        yield
    finally:
        dom0.run(f"test -e /sys/bus/pci/devices/{sbdf}/driver || echo {sbdf} > {driver}/bind")
