"""What a function is, without decoding the rest of it: enough for one line of a list."""

from pcipt.pci.config import ConfigSpace
from pcipt.pci.ids import Ids, join_ids
from pcipt.pci.raw import RawFunction


def identify(raw: RawFunction) -> Ids:
    """Tell the ids of a function as `decode_function` does, a bridge's subsystem excepted.

    Of one that does not answer, what Linux knows.
    """
    config = ConfigSpace(raw.config or b"")
    if not config.answers:
        return raw.ids
    ids, _ = join_ids(raw.ids, config, virtual=raw.physfn is not None, subsystem_at=None)
    return ids
