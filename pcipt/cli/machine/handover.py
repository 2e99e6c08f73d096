"""Steps that hand functions over between dom0 and guests, used by `release` and `reclaim`.

If a step fails, it and all steps before it are undone in reverse order. Each step has a text, so that a plan
can be shown without running it.
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

DOM0, QUARANTINE = "dom0", "quarantine"  # owners, in the daemon's words

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.frozen
class Step:
    """One step of a handover: `do` performs it, `undo` reverts it, `text` says what it does.

    `undo` is called after `do` has failed too, so it must revert a step that was done in part.
    """

    text: str
    do: Callable[[], None]
    undo: Callable[[], None] = lambda: None


class Steps:
    """Run steps in order; `told` collects the text and the result of each.

    With `dry_run` no step is performed, and each result is "planned". `quiet` prints nothing.
    """

    def __init__(self, *, dry_run: bool, quiet: bool) -> None:
        self._dry_run = dry_run
        self._quiet = quiet
        self.told: list[Json] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Perform all steps. If one fails or a signal arrives, undo all steps so far in reverse order.

        A signal does not interrupt a step: the step ends first.

        Raises: StateError that names the failed step, after undoing; KeyboardInterrupt after undoing, if a
                signal arrived.
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
        """Undo the given steps in their order; return the text of each error."""
        trouble = []
        for step in done:
            try:
                step.undo()
            except PciptError as error:
                trouble.append(str(error))
        return trouble

    def _tell(self, step: Step, result: str) -> None:
        """Add a step's result to `told`, and print it."""
        self.told.append({"step": step.text, "result": result})
        if self._quiet:
            return
        try:
            print(printable(f"{step.text}: {result}"), flush=True)
        except OSError:  # stdout is closed or the disk is full: the handover continues
            self._quiet = True


def _after(trouble: Iterable[str]) -> str:
    """Return a text that says whether undoing succeeded; `trouble` holds its errors."""
    said = "; ".join(trouble)
    return f"undoing failed too: {said}" if said else "all is as it was"


@contextmanager
def signals_deferred() -> Iterator[list[int]]:
    """Yield a list to which SIGINT, SIGTERM and SIGHUP add their number, instead of stopping the with-block.

    Raises: KeyboardInterrupt at the end of the with-block, if a signal arrived.
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
    """Make the daemon restore a function's reserved regions in dom0, and keep them until the block ends.

    Yields the daemon's reply to `Reclaim`. The regions are restored before the with-block starts.

    Raises: as `client.call`.
    """
    with closing(stream(socket, "Reclaim", {"function": str(sbdf)})) as parts:
        yield next(parts)


def look(socket: str, sbdf: Sbdf) -> Json:
    """Send `Release`: the daemon checks who owns the function now and acts on it. Return its reply.

    Raises: StateError if an action of the daemon failed; as `client.call`.
    """
    told = call(socket, "Release", {"function": str(sbdf)})
    failed = [action for action in told["actions"] if action["result"] == "failed"]
    if failed:
        raise StateError(f"{failed[0]['action']} {failed[0]['sbdf']}: {failed[0]['detail']}")
    return told


def require_root(command: str, euid: int) -> None:
    """Raise NotPermittedError if `euid` is not 0. `command` is the subcommand that needs root."""
    if euid != 0:
        raise NotPermittedError(f"pcipt {command}", "only root may give functions away or take them back")


def owners_in(status: Json) -> dict[str, str]:
    """Return the owner of each function that dom0 has given away, by address, from the daemon's status."""
    return {each["sbdf"]: each["owner"] for each in status.get("given_away", [])}


def print_end(told: Iterable[Json], answer: Json, form: str | None) -> None:
    """Print for each function its owner and its reserved regions. `told` holds the daemon's reply for each.

    If `form` is set (--json), print `answer` with these replies as one JSON object instead.
    """
    functions = list(told)
    if form:
        print_json({**answer, "functions": functions}, form)
        return
    for each in functions:
        regions = ", ".join(f"{region['start']} {region['mapped']}" for region in each.get("regions", []))
        print(printable(f"{each['sbdf']}: {each['owner']}" + (f"; regions: {regions}" if regions else "")))


def complain_of_others(told: Iterable[Json], wanted: str) -> bool:
    """Print each function whose owner is not `wanted`, on stderr; return True if there is any."""
    wrong = [each for each in told if each["owner"] != wanted]
    for each in wrong:
        complain(f"{each['sbdf']}: all was done, and yet it belongs to {each['owner']}, not to {wanted}")
    return bool(wrong)


def complain(text: str) -> None:
    """Print one line on stderr."""
    print(f"pcipt: {printable(text)}", file=sys.stderr)
