"""Steps of the ledger as JSON objects and back. Pure.

Between two saves of the whole ledger, each step is appended to a file. A step is an action, the event that
happened to it, and the time. Applied again in the same order, the steps produce the same ledger.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import attrs

from pcipt.errors import MalformedError
from pcipt.remap.actions import Action
from pcipt.remap.json_fields import (
    Fields,
    Reader,
    address,
    bar_number,
    byte_count,
    flag,
    frames,
    function,
    member,
    one_of,
    text,
)
from pcipt.remap.ledger import Event, Ledger
from pcipt.remap.mapped_pages import MappedPages, MappedRun, mapped_to_json, run_from_json
from pcipt.remap.vpci.roster import Listed, listed_from_json, listed_to_json


@attrs.frozen
class Step:
    """A step of the ledger: an action and what happened to it.

    `when` is the time of the event (UTC, RFC 3339).
    """

    action: Action
    event: Event
    when: str

    def apply(self, ledger: Ledger) -> None:
        """Record the step in a ledger, which changes in place.
        Raises: StateError as `Ledger.step`; the ledger is then unchanged.
        """
        ledger.step(self.action, self.event, self.when)


@attrs.frozen
class Noted:
    """A change of the record of pages that vPCI mapped, which needed no call.

    `run` is what is recorded now; if `held` is False, its pages are not recorded any more for its BAR.
    """

    run: MappedRun
    held: bool

    def apply(self, ledger: Ledger) -> None:
        """Record the change in a ledger, which changes in place."""
        self.record(ledger.mapped)

    def record(self, mapped: MappedPages) -> None:
        """Record the change in mapped pages, which change in place."""
        if self.held:
            mapped.put(self.run)
        else:
            mapped.take(self.run.place, self.run.bar, self.run.frames)


@attrs.frozen
class Read:
    """What was read of the function at a place; `listed` is None if Linux has none there any more."""

    place: str
    listed: Listed | None

    def apply(self, ledger: Ledger) -> None:
        """Record it in a ledger's roster, which changes in place."""
        if self.listed is None:
            ledger.roster.functions.pop(self.place, None)
        else:
            ledger.roster.functions[self.place] = self.listed


AnyStep = Step | Noted | Read
_NOTED, _READ = "noted", "read"

KINDS: Mapping[str, type[Action]] = {kind.word: kind for kind in get_args(Action)}

_SBDF = (str, function)
_FRAMES = (lambda pages: [pages.start, pages.count], frames)
_ADDRESS = (hex, address)
_TEXT, _FLAG = (str, text), (bool, flag)
#  each field of an action: the function that writes it, the function that reads it
CODED: Mapping[str, tuple[Callable[[Any], Any], Reader[Any]]] = {
    "sbdf": _SBDF, "physfn": _SBDF, "moved_from": _SBDF, "moved_to": _SBDF,
    "frames": _FRAMES, "before": _ADDRESS, "address": _ADDRESS,
    "reason": _TEXT, "place": _TEXT, "late": _TEXT, "bar": (int, bar_number), "size": (int, byte_count),
    "extended": _FLAG, "vfs_on": _FLAG, "anew": _FLAG, "counted": _FLAG, "region": _FLAG,
    "on": _FLAG,
}  # fmt: skip


_WRITTEN = {
    kind: tuple((field.name, CODED[field.name][0]) for field in attrs.fields(kind)) for kind in KINDS.values()
}


def step_to_json(step: AnyStep) -> dict[str, Any]:
    """Return a step as a JSON object: "event", "action" (its word), "when", and the fields of the action.

    Fields that are None are left out. Addresses are text, pages a list of first frame and count. A change
    without a call has "event" "noted", "held", and "run" as `mapped_to_json` writes it. What was read has
    "event" "read", "place", and "listed" unless it is None.
    """
    if isinstance(step, Read):
        listed = {} if step.listed is None else {"listed": listed_to_json(step.listed)}
        return {"event": _READ, "place": step.place, **listed}
    if isinstance(step, Noted):
        return {"event": _NOTED, "held": step.held, "run": mapped_to_json([step.run])[0]}
    action, fields = step.action, _WRITTEN[type(step.action)]
    told = {name: write(value) for name, write in fields if (value := getattr(action, name)) is not None}
    return {"event": step.event.value, "action": step.action.word, "when": step.when, **told}


def step_from_json(value: Any) -> AnyStep:
    """Return the step from the object that `step_to_json` wrote.
    Raises: MalformedError, which names the field, if `value` is not an object, or if a field is missing, is
            not one of the action, or has no valid value.
    """
    try:
        given = Fields(value)
        step = _OTHERS.get(value.get("event"), _step)(given)
        given.end()
    except ValueError as error:
        raise MalformedError("ledger", 0, f"not a step: {error}") from error
    return step


def _noted(given: Fields) -> Noted:
    """Return the change without a call from its fields. Raises: ValueError, which names a wrong field."""
    given.take("event", text)
    return Noted(given.take("run", run_from_json), given.take("held", flag))


def _read(given: Fields) -> Read:
    """Return what was read of a place from its fields. Raises: ValueError, which names a wrong field."""
    given.take("event", text)
    return Read(given.take("place", text), given.find("listed", listed_from_json, None))


def _step(given: Fields) -> Step:
    """Return the step of an action from its fields. Raises: ValueError, which names a wrong field."""
    event, when = given.take("event", member(Event)), given.take("when", text)
    kind = KINDS[given.take("action", one_of(KINDS))]
    told = {
        field.name: given.take(field.name, CODED[field.name][1])
        for field in attrs.fields(kind)
        if field.default is attrs.NOTHING or field.name in given
    }
    return Step(kind(**told), event, when)


_OTHERS: Mapping[Any, Callable[[Fields], AnyStep]] = {_NOTED: _noted, _READ: _read}
