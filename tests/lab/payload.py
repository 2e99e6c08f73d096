"""The machine's second disk: a bare tar archive with the agent and this checkout."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

from .errors import LabError

REPOSITORY = Path(__file__).resolve().parents[2]
#: Where it is unpacked in dom0.
LAB_IN_DOM0 = "/srv/lab"
CHECKOUT_IN_DOM0 = f"{LAB_IN_DOM0}/pcipt"
#: A disk has whole sectors; QEMU also wants it not to be tiny.
DISK_UNIT = 1024 * 1024


def list_checkout(repository: Path) -> list[str]:
    """List what a commit of the checkout as it stands would hold: tracked, and untracked but not ignored."""
    command = ["git", "-c", "safe.directory=*", "-C", str(repository)]
    command += ["ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise LabError(f"cannot list the checkout {repository}: {done.stderr.strip()}")
    return sorted({name for name in done.stdout.split("\0") if name})


def write_payload(target: Path, extra: dict[str, Path] | None = None, repository: Path = REPOSITORY) -> None:
    """Write the payload disk; `extra` are files outside the checkout, by their place in it."""
    files = {name: repository / name for name in list_checkout(repository)}
    files.update(extra or {})
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, Path(__file__).with_name("agent.py"), "agent.py")
        for name, path in sorted(files.items()):
            if path.is_symlink() or path.exists():  # a tracked file may have been deleted
                add(archive, path, f"pcipt/{name}")
    size = target.stat().st_size
    with target.open("r+b") as disk:
        disk.truncate(-(-size // DISK_UNIT) * DISK_UNIT)


def unpack_checkout(target: Path, repository: Path = REPOSITORY) -> None:
    """Copy the files that the payload would hold into a folder."""
    for name in list_checkout(repository):
        path = repository / name
        if path.is_symlink() or path.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target / name, follow_symlinks=False)


def add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Add one file or link, owned by root."""
    info = archive.gettarinfo(path, arcname=name)
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    if info.islnk():  # a second name of a file already added: store it whole, so that each stands alone
        info.type = tarfile.REGTYPE
        info.size = path.stat().st_size
    if info.isreg():
        archive.addfile(info, io.BytesIO(path.read_bytes()))
    else:
        archive.addfile(info)
