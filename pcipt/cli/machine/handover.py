"""Steps that hand functions over between dom0 and guests, used by `release` and `reclaim`.

If a step fails, it and all steps before it are undone in reverse order. Each step has a text, so that a plan
can be shown without running it.
"""

import fcntl
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from pcipt import values as attrs
from pcipt.cli.machine.client import call
from pcipt.cli.text.render import print_json
from pcipt.cli.text.terminal import tell
from pcipt.errors import InputError, NotPermittedError, PciptError, StateError, printable
from pcipt.hints import Any
from pcipt.pci import Sbdf

Json = dict[str, Any]

DOM0, QUARANTINE, ORPHANED = "dom0", "quarantine", "nobody (orphan)"  # owners, in the daemon's words

_WHY = "Xen's list of owners (debug key Q) cannot be read; `pcipt host` shows why"

INTERRUPTIONS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@attrs.frozen
class Step:
    """One step of a handover: `do` performs it, `undo` reverts it, `text` says what it does.

    If `do` fails, `undo` is called too, so `undo` must also revert a step that was done in part. Both raise a
    PciptError if they fail.
    """

    text: str
    do: Callable[[], None]
    undo: Callable[[], None] = lambda: None


class Steps:
    """A runner of handover steps, with their results in `told`.

    `told` collects {"step": text, "result": word} for each step that was begun. The results are "done",
    "failed", "interrupted" or "planned". With `dry_run` no step is performed, and each result is "planned".
    Each result is also printed on stdout, unless `quiet` is True.
    """

    def __init__(self, *, dry_run: bool, quiet: bool) -> None:
        self._dry_run = dry_run
        self._quiet = quiet
        self.told: list[Json] = []

    def run(self, steps: Sequence[Step]) -> None:
        """Perform all steps in order. If a step fails or a signal arrives, undo the steps in reverse order.

        The step that failed, or during which the signal arrived, is undone too. A signal (SIGINT, SIGTERM,
        SIGHUP) does not interrupt a step: the step ends first. A step fails if it raises a PciptError; after
        any other exception nothing is undone. In a dry run no step is performed.

        Raises: StateError that names the failed step and says whether undoing succeeded; KeyboardInterrupt
                after undoing, if a signal arrived.
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
        """Undo the given steps in their order; return the texts of the errors.

        An error does not stop the undoing.
        """
        trouble = []
        for step in done:
            try:
                step.undo()
            except PciptError as error:
                trouble.append(str(error))
        return trouble

    def _tell(self, step: Step, result: str) -> None:
        """Add a step's result to `told`, and print it.

        If stdout cannot be written, print nothing from now on.
        """
        self.told.append({"step": step.text, "result": result})
        if self._quiet:
            return
        try:
            print(printable(f"{step.text}: {result}"), flush=True)
        except OSError:  # stdout is closed or the disk is full: the handover continues
            self._quiet = True


def _after(trouble: Iterable[str]) -> str:
    """Return the last part of an error message: what came of undoing the steps that were done.

    `trouble` are the errors of undoing. Without an error the text is "all steps are undone"; else it lists
    them.
    """
    said = "; ".join(trouble)
    return f"undoing failed too: {said}" if said else "all steps are undone"


@contextmanager
def signals_deferred() -> Iterator[list[int]]:
    """Run the with-block without interruption by SIGINT, SIGTERM and SIGHUP.

    Yields a list to which the number of each signal that arrives is added. A signal has no other effect. The
    former handlers are restored after the with-block.

    Raises: KeyboardInterrupt after the with-block, if a signal arrived and the with-block raised nothing.
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
def alone(socket: str, *, dry_run: bool) -> Iterator[None]:
    """Let no other release or reclaim run during the with-block; wait for one that runs. No-op in a dry run.

    The lock is a file beside the control socket that only root can open. It ends with the process.

    Raises: InputError if the file cannot be made.
    """
    if dry_run:
        yield
        return
    directory = os.path.dirname(os.path.abspath(socket))
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(os.path.join(directory, "handover.lock"), flags, 0o600)
    except FileNotFoundError:  # nor is there a control socket: whoever asks the daemon tells it
        descriptor = -1
    except OSError as error:
        raise InputError(
            directory, f"the lock of the handover cannot be made: {error.strerror or error}"
        ) from error
    if descriptor == -1:
        yield
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            complain("another `pcipt release` or `pcipt reclaim` is running; pcipt waits until it has ended")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def look(socket: str, sbdf: Sbdf) -> Json:
    """Send `Release` to the daemon and return its reply.

    The daemon asks Xen who owns the function now. It withdraws or restores the function's reserved regions if
    the owner requires it.

    Raises: StateError if an action of the daemon failed; the errors of `client.call`.
    """
    told = call(socket, "Release", {"function": str(sbdf)})
    failed = [action for action in told["actions"] if action["result"] == "failed"]
    if failed:
        raise StateError(f"{failed[0]['action']} {failed[0]['sbdf']}: {failed[0]['detail']}")
    return told


def require_root(command: str, euid: int) -> None:
    """Check that `euid` is 0. `command` is the subcommand that needs root; the error names it.

    Raises: NotPermittedError if `euid` is not 0.
    """
    if euid != 0:
        raise NotPermittedError(f"pcipt {command}", "only root may give functions away or take them back")


def is_pv(status: Json) -> bool:
    """Return True if the reply to `Status` is about a PV dom0, from which no region can be withdrawn."""
    return status.get("dom0") == "pv"


def owners_in(status: Json) -> dict[str, str]:
    """Return the owner of each function in the daemon's list of functions that were given away.

    The keys are the functions' addresses as text. The list has the functions that are bound to xen-pciback,
    also if dom0 still owns them, and those that Xen shows with another owner. `status` is the daemon's reply
    to `Status`.
    """
    return {each["sbdf"]: each["owner"] for each in status.get("given_away", [])}


def print_end(told: Iterable[Json], answer: Json, form: str | None) -> None:
    """Print one line for each function: its owner and its reserved regions, in the order of `told`.

    `told` holds the daemon's reply for each function. If `form` is set (the value of --json), print one JSON
    object instead: `answer` with these replies as "functions".
    """
    functions = list(told)
    if form:
        print_json({**answer, "functions": functions}, form)
        return
    for each in functions:
        found = each.get("regions", [])
        kept = ", ".join(region["start"] for region in found if region["mapped"] == "not-applicable")
        regions = ", ".join(
            f"{region['start']} {region['mapped']}"
            for region in found
            if region["mapped"] != "not-applicable"
        )
        owner = each["owner"] if each.get("owner_told", True) else "owner not known"
        words = [f"{each['sbdf']}: {owner}"]
        words += [f"regions: {regions}"] if regions else []
        words += [f"{kept} cannot be withdrawn: dom0 is PV and reaches it as before"] if kept else []
        print(printable("; ".join(words)))


def print_undone(error: StateError | KeyboardInterrupt, answer: Json, form: str | None) -> None:
    """Print one JSON object about steps that were undone, if `form` is set (the value of --json).

    The object is `answer` without functions; its "result" tells whether a step failed or a signal arrived.
    `error` is what `Steps.run` raised.
    """
    if form:
        result = "failed" if isinstance(error, StateError) else "interrupted"
        print_json({**answer, "result": result, "functions": []}, form)


def complain_of_others(told: Iterable[Json], wanted: str) -> bool:
    """Print a line on stderr for each function whose owner is not `wanted`, or could not be looked at.

    Return True if there is one whose owner is not `wanted`. `told` holds the daemon's reply for each
    function.
    """
    wrong = []
    for each in told:
        if not each.get("owner_told", True):
            complain(f"{each['sbdf']}: all steps are done; it is not known whether {wanted} owns it: {_WHY}")
        elif each["owner"] != wanted:
            wrong.append(each)
    for each in wrong:
        complain(f"{each['sbdf']}: all steps are done, but it belongs to {each['owner']}, not to {wanted}")
    return bool(wrong)


def complain(text: str) -> None:
    """Print `text` as one line on stderr, after "pcipt: ". Unprintable characters are escaped."""
    tell(f"pcipt: {printable(text)}")
