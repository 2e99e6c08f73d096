"""Steps that hand functions over, and the way back: what a failing step leaves undone is undone in reverse.

Used by `release` and `reclaim`. A step says what it does before it is done; a plan of steps can be shown
without doing any.
"""

import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import attrs

from pcipt.cli.machine.client import call, stream
from pcipt.cli.text.render import print_json
from pcipt.errors import NotPermittedError, PciptError, StateError, printable
from pcipt.pci import Sbdf

Json = dict[str, Any]

DOM0, QUARANTINE = "dom0", "quarantine"  # the daemon's words for owners; xl takes the one's to the other

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.frozen
class Step:
    """`undo` is also called where `do` has failed half way."""

    text: str
    do: Callable[[], None]
    undo: Callable[[], None] = lambda: None


class Steps:
    """Does steps in order; `told` has what came of each."""

    def __init__(self, *, dry_run: bool, quiet: bool) -> None:
        self._dry_run = dry_run
        self._quiet = quiet
        self.told: list[Json] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Do them all, or none: whoever interrupts waits for the step's end, then what was done is undone.

        Raises: StateError that names the step that failed, after what was done has been undone;
                KeyboardInterrupt.
        """
        done: list[Step] = []
        with signals_deferred() as interrupted:
            for step in steps:
                if self._dry_run:
                    self._tell(step, "planned")
                    continue
                done.append(step)
                try:
                    step.do()
                except PciptError as error:
                    self._tell(step, "failed")
                    after = _after(self._undo(reversed(done)))
                    raise StateError(f"{step.text}: {error}; {after}") from error
                if interrupted:
                    self._tell(step, "interrupted")
                    trouble = self._undo(reversed(done))
                    complain(f"interrupted: {_after(trouble)}")
                    break
                self._tell(step, "done")

    def _undo(self, done: Iterable[Step]) -> list[str]:
        trouble = []
        for step in done:
            try:
                step.undo()
            except PciptError as error:
                trouble.append(str(error))
        return trouble

    def _tell(self, step: Step, result: str) -> None:
        self.told.append({"step": step.text, "result": result})
        if self._quiet:
            return
        try:
            print(printable(f"{step.text}: {result}"), flush=True)
        except OSError:  # nobody reads any more, or the disk is full: no reason to stop half way
            self._quiet = True


def _after(trouble: Iterable[str]) -> str:
    said = "; ".join(trouble)
    return f"undoing failed too: {said}" if said else "all is as it was"


@contextmanager
def signals_deferred() -> Iterator[list[int]]:
    """Note interruptions instead of stopping; at the end they stop us.

    Raises: KeyboardInterrupt.
    """
    noted: list[int] = []
    before = {
        each: signal.signal(each, lambda number, _frame: noted.append(number)) for each in INTERRUPTIONS
    }
    try:
        yield noted
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    if noted:
        raise KeyboardInterrupt


@contextmanager
def regions_held(socket: str, sbdf: Sbdf) -> Iterator[Json]:
    """Have the daemon put a function's regions back, and keep them there meanwhile; gives what it told.

    Raises: as `client.call`.
    """
    with closing(stream(socket, "Reclaim", {"function": str(sbdf)})) as parts:
        yield next(parts)


def look(socket: str, sbdf: Sbdf) -> Json:
    """Have the daemon look who has a function now, and act.

    Raises: StateError where what it did then failed; as `client.call`.
    """
    told = call(socket, "Release", {"function": str(sbdf)})
    failed = [action for action in told["actions"] if action["result"] == "failed"]
    if failed:
        raise StateError(f"{failed[0]['action']} {failed[0]['sbdf']}: {failed[0]['detail']}")
    return told


def require_root(command: str, euid: int) -> None:
    """See to it that we may do it.

    Raises: NotPermittedError.
    """
    if euid != 0:
        raise NotPermittedError(f"pcipt {command}", "only root may give functions away or take them back")


def owners_in(status: Json) -> dict[str, str]:
    """Read from the daemon's status who has what dom0 gave away."""
    return {each["sbdf"]: each["owner"] for each in status.get("given_away", [])}


def print_end(told: Iterable[Json], answer: Json, form: str | None) -> None:
    """Tell who has the functions and what became of their regions."""
    functions = list(told)
    if form:
        print_json({**answer, "functions": functions}, form)
        return
    for each in functions:
        regions = ", ".join(f"{region['start']} {region['mapped']}" for region in each.get("regions", []))
        print(printable(f"{each['sbdf']}: {each['owner']}" + (f"; regions: {regions}" if regions else "")))


def complain_of_others(told: Iterable[Json], wanted: str) -> bool:
    """Say which functions Xen is not seen to have given to whom they were to go; whether there are any."""
    wrong = [each for each in told if each["owner"] != wanted]
    for each in wrong:
        complain(f"{each['sbdf']}: all was done, and yet it belongs to {each['owner']}, not to {wanted}")
    return bool(wrong)


def complain(text: str) -> None:
    print(f"pcipt: {printable(text)}", file=sys.stderr)
