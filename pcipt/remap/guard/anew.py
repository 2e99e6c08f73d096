"""The guard of a function that is told anew: the addition after its removal must be allowed. Pure."""

from pcipt.remap.actions import Action, AddDevice, RemoveDevice
from pcipt.remap.guard.devices import DEVICE_RULES
from pcipt.remap.guard.facts import Facts, Rule

# what does not hold as long as Xen still lists the function
_LATER = frozenset({"not-known", "vfs-as-planned", "conventional-bridge"})


def _can_be_added(action: RemoveDevice, facts: Facts) -> str | None:
    """Refuse to remove a function that is to be added again if a rule of additions refuses that."""
    if not action.anew:
        return None
    addition = AddDevice(action.sbdf, action.reason)
    rules = (rule for name, kind, rule in DEVICE_RULES if kind is AddDevice and name not in _LATER)
    why = next(filter(None, (rule(addition, facts) for rule in rules)), None)
    return f"it could not be added again: {why}" if why is not None else None


#        name, kind of action, rule
ANEW_RULES: tuple[tuple[str, type[Action], Rule], ...] = (("added-again", RemoveDevice, _can_be_added),)
