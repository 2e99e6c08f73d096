"""Steps of the ledger as plain JSON values and back: what is appended to its file between two savings.

A step is an action, the event that befell it, and when. Replayed in order they make the ledger that they
made the first time.
"""

from collections.abc import Callable, Mapping
from typing import Any, get_args

import attrs

from pcipt.errors import AddressError, MalformedError
from pcipt.pci import Address, Frames, Gfn, parse_sbdf
from pcipt.remap.actions import Action
from pcipt.remap.ledger import Event, Ledger


@attrs.frozen
class Step:
    action: Action
    event: Event
    when: str

    def apply(self, ledger: Ledger) -> None:
        ledger.step(self.action, self.event, self.when)


KINDS: Mapping[str, type[Action]] = {kind.word: kind for kind in get_args(Action)}

_SBDF = (str, parse_sbdf)
_FRAMES = (lambda frames: [frames.start, frames.count], lambda pair: Frames(Gfn(int(pair[0])), int(pair[1])))
_ADDRESS = (hex, lambda text: Address(int(text, 16)))
#  fields that JSON cannot hold: how they are written, how they are read
_CODED: Mapping[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sbdf": _SBDF, "physfn": _SBDF, "moved_from": _SBDF, "moved_to": _SBDF,
    "frames": _FRAMES, "before": _ADDRESS, "address": _ADDRESS,
}  # fmt: skip
_PLAIN = (lambda value: value, lambda value: value)


def step_to_json(step: Step) -> dict[str, Any]:
    fields = attrs.asdict(step.action, recurse=False)
    told = {name: _CODED.get(name, _PLAIN)[0](value) for name, value in fields.items() if value is not None}
    return {"event": step.event.value, "action": step.action.word, "when": step.when, **told}


def step_from_json(value: Any) -> Step:
    """Read a step back.

    Raises: MalformedError for anything that `step_to_json` does not write.
    """
    try:
        given = dict(value)
        event, when, kind = Event(given.pop("event")), str(given.pop("when")), KINDS[given.pop("action")]
        fields = {name: _CODED.get(name, _PLAIN)[1](held) for name, held in given.items()}
        return Step(kind(**fields), event, when)
    except (KeyError, TypeError, ValueError, IndexError, AddressError) as error:
        raise MalformedError("ledger", 0, f"not a step: {error!r}") from error
