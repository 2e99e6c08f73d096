"""One recording of the machine for each boot, at most ten: what `pcipt diff` compares with.

A recording is named after its time and the first digits of the kernel's boot id: 20261130T080000Z.1b2c3d4e.
"""

import os
import re
import shutil

from pcipt.errors import InputError
from pcipt.host.recorder import record_machine
from pcipt.host.report.masks import BOOT_ID
from pcipt.host.tree import reason

DIRECTORY = "/var/lib/pcipt/boots"
MOST = 10
_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z\.[0-9a-f]{8}", re.ASCII)


def recorded_boots(directory: str = DIRECTORY) -> list[str]:
    """Return the paths of the recordings, the oldest first; none if there is no such directory."""
    try:
        names = os.listdir(directory)
    except OSError:
        return []
    return [os.path.join(directory, name) for name in sorted(names) if _NAME.fullmatch(name)]


def last_boot(boot_id: str, directory: str = DIRECTORY) -> str | None:
    """Return the path of the newest recording of another boot than `boot_id`; None if there is none."""
    others = [path for path in recorded_boots(directory) if not path.endswith(f".{boot_id[:8]}")]
    return others[-1] if others else None


def record_boot(root: str, boot_id: str, now: str, directory: str = DIRECTORY) -> str | None:
    """Record the machine below `root` for this boot, and remove the oldest recordings beyond `MOST`.

    `now` is the time as 20261130T080000Z. Return the path, or None if this boot has a recording already.
    Raises: InputError if the recording cannot be made.
    """
    if any(path.endswith(f".{boot_id[:8]}") for path in recorded_boots(directory)):
        return None
    path = os.path.join(directory, f"{now}.{boot_id[:8]}")
    if not _NAME.fullmatch(os.path.basename(path)):
        why = "has no id of this boot, so this boot is not recorded; `pcipt record DIR` needs no id"
        raise InputError(os.path.join(root, BOOT_ID), why)
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
    except OSError as error:
        raise InputError(directory, reason(error)) from error
    record_machine(root, path)
    for old in recorded_boots(directory)[:-MOST]:
        shutil.rmtree(old, ignore_errors=True)
    return path
