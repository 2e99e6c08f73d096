"""Read for the engine which functions are kept for guests."""

from pcipt.engine.views.policy.kept import Kept
from pcipt.errors import InputError
from pcipt.host.policy.places import read_host_bridges
from pcipt.host.policy.policy_files import read_entries
from pcipt.pci import Finding

UNREADABLE = "policy-unreadable"


def read_kept(
    directory: str | None, settings: str, root: str, before: Kept
) -> tuple[Kept, tuple[Finding, ...]]:
    """Return the policy below `directory`, and a finding if it cannot be used: `before` holds then.

    The file `settings` may have entries too. `root` is where sysfs is mounted at `sys`. A `directory` of None
    has no policy.
    """
    if directory is None:
        return Kept(), ()
    try:
        return Kept(read_entries(directory, settings), read_host_bridges(root)), ()
    except InputError as error:
        why = (
            f"the policy of devices for guests cannot be used: {error}; until you correct the file and run "
            "`systemctl reload pcipt`, the policy that was read before is used"
        )
        return before, (Finding(UNREADABLE, why),)
    except OSError as error:
        why = (
            f"the policy of devices for guests cannot be read: {directory}: {error.strerror or error}; the "
            "policy that was read before is used"
        )
        return before, (Finding(UNREADABLE, why),)
