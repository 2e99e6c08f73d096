"""What belongs into a report besides the recording: logs, versions, settings; and the masks of a machine.

Every part may be missing: the reason is kept and told. Nothing is changed; `journalctl`, `dmesg` and `xl
dmesg` only read.
"""

import platform
import re
import shutil
import subprocess
from collections.abc import Collection, Iterator

from pcipt import values as attrs
from pcipt.errors import InputError
from pcipt.host.report.masks import BOOT_ID, Masks
from pcipt.host.tree import Tree, reason

HOST_NAME = "proc/sys/kernel/hostname"  # read to mask it; never recorded
SETTINGS = "etc/pcipt/pcipt.toml"
RELEASE = "etc/os-release"
_LIMIT = 1 << 20
_LINES = 5000
_PATIENCE = 60.0
# A line of a log belongs into a report if it is about PCI, the IOMMU, memory of devices or Xen itself. A
# command line may hold passwords and never does.
_ABOUT = re.compile(
    r"pci|[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]\b|VT-d|AMD-Vi|DMAR|IVRS|IVMD|RMRR|IOMMU|MMCFG|ECAM|MSI|IO-?APIC|x2apic"
    r"|vfio|Xen (?:version|Hypervisor)|xen_version|BIOS-e820|BAR \d|\bAER\b|ACPI: (?:DMAR|IVRS|MCFG)|pcipt",
    re.IGNORECASE,
)
_NEVER = re.compile(r"command ?line|\bBOOT_IMAGE=|password|passwd|MSDM|SLIC", re.IGNORECASE)

#  name in the report, the commands that give it: the first that works is taken
LOGS: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("kernel.log", (("journalctl", "-k", "-b", "-o", "short-monotonic", "--no-hostname"), ("dmesg",))),
    ("xen.log", (("xl", "dmesg"),)),
    ("pcipt.log", (("journalctl", "-t", "pcipt", "-b", "-o", "short-iso", "--no-hostname"),)),
)


@attrs.frozen
class Part:
    """One part of a report: its name, and its content or the reason why it is missing."""

    name: str
    text: str | None
    why: str = ""


def masks_for(root: str, keep: Collection[str] = ()) -> Masks:
    """Return masks that know the name of the host below `root` and the id of its boot."""
    return Masks(_read(root, HOST_NAME)[0] or "", _read(root, BOOT_ID)[0] or "", keep)


def collect_parts(root: str, *, live: bool) -> Iterator[Part]:
    """Yield settings and distribution of the machine below `root`; of the running one (`live`) also logs."""
    for name, path in (("settings.toml", SETTINGS), ("os-release", RELEASE)):
        yield Part(name, *_read(root, path))
    if live:
        for name, commands in LOGS:
            yield _log(name, commands)


def versions(program: str) -> dict[str, str]:
    """Return the versions of pcipt (`program`), of Python and of Linux, and the processor's architecture."""
    return {
        "pcipt": program,
        "python": platform.python_version(),
        "linux": platform.release(),
        "machine": platform.machine(),
    }


def relevant(text: str) -> str:
    """Return the lines of a log that are about PCI, IOMMU or Xen, at most the last 5000."""
    found = [line for line in text.splitlines() if _ABOUT.search(line) and not _NEVER.search(line)]
    return "".join(f"{line}\n" for line in found[-_LINES:])


def _log(name: str, commands: tuple[tuple[str, ...], ...]) -> Part:
    """Return the relevant lines of a log, by the first command that works."""
    why = ""
    for command in commands:
        if shutil.which(command[0]) is None:
            why = why or f"{command[0]} is not installed"
            continue
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            why = reason(error) if isinstance(error, OSError) else f"{command[0]} did not end in time"
            continue
        if done.returncode == 0:
            return Part(name, relevant(done.stdout.decode(errors="replace")))
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"{command[0]} failed with {done.returncode}"
    return Part(name, None, why)


def _read(root: str, path: str) -> tuple[str | None, str]:
    """Return the text of a file below `root` and "", or None and the reason why it cannot be read."""
    try:
        with Tree(root) as tree:
            return tree.read(path, _LIMIT).decode(errors="replace"), ""
    except OSError as error:
        return None, reason(error)
    except InputError as error:
        return None, str(error)
