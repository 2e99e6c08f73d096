"""Steps of the ledger as JSON objects and back. Pure.

Between two saves of the whole ledger, each step is appended to a file. A step is an action, the event that
happened to it, and the time. Applied again in the same order, the steps produce the same ledger.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import attrs

from pcipt.errors import AddressError, MalformedError
from pcipt.pci import Address, Frames, Gfn, parse_sbdf
from pcipt.remap.actions import Action
from pcipt.remap.ledger import Event, Ledger
from pcipt.remap.mapped_pages import MappedPages, MappedRun, mapped_from_json, mapped_to_json


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


AnyStep = Step | Noted
_NOTED = "noted"

KINDS: Mapping[str, type[Action]] = {kind.word: kind for kind in get_args(Action)}

_SBDF = (str, parse_sbdf)
_FRAMES = (lambda frames: [frames.start, frames.count], lambda pair: Frames(Gfn(int(pair[0])), int(pair[1])))
_ADDRESS = (hex, lambda text: Address(int(text, 16)))
#  fields that JSON cannot hold: the function that writes them, the function that reads them
_CODED: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sbdf": _SBDF, "physfn": _SBDF, "moved_from": _SBDF, "moved_to": _SBDF,
    "frames": _FRAMES, "before": _ADDRESS, "address": _ADDRESS,
}  # fmt: skip
_PLAIN = (lambda value: value, lambda value: value)


def step_to_json(step: AnyStep) -> dict[str, Any]:
    """Return a step as a JSON object: "event", "action" (its word), "when", and the fields of the action.

    Fields that are None are left out. Addresses are text, pages a list of first frame and count. A change
    without a call has "event" "noted", "held", and "run" as `mapped_to_json` writes it.
    """
    if isinstance(step, Noted):
        return {"event": _NOTED, "held": step.held, "run": mapped_to_json([step.run])[0]}
    fields = attrs.asdict(step.action, recurse=False)
    told = {name: _CODED.get(name, _PLAIN)[0](value) for name, value in fields.items() if value is not None}
    return {"event": step.event.value, "action": step.action.word, "when": step.when, **told}


def step_from_json(value: Any) -> AnyStep:
    """Return the step from the object that `step_to_json` wrote.
    Raises: MalformedError if `value` is not an object, if a field is missing, if a field is one that the
            action does not have, or if an event, word, address or range has no valid form. Other fields are
            not checked.
    """
    try:
        given = dict(value)
        if given["event"] == _NOTED:
            (run,) = mapped_from_json([given["run"]], "ledger")
            return Noted(run, held=bool(given["held"]))
        event, when, kind = Event(given.pop("event")), str(given.pop("when")), KINDS[given.pop("action")]
        fields = {name: _CODED.get(name, _PLAIN)[1](told) for name, told in given.items()}
        return Step(kind(**fields), event, when)
    except (KeyError, TypeError, ValueError, IndexError, AddressError) as error:
        raise MalformedError("ledger", 0, f"not a step: {error!r}") from error
