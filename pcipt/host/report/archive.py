"""Archives of reports: written so that nothing of the machine is in their headers, and read with distrust.

An archive may come from anybody. It is unpacked into a new directory: regular files first, then links, none
of them outside; readers resolve links below the root as always (host/tree.py).
"""

import gzip
import io
import os
import tarfile
from collections.abc import Iterator

from pcipt.errors import InputError
from pcipt.hints import BinaryIO
from pcipt.host.tree import reason

MEMBERS = 1 << 20
BYTES = 1 << 30  # of all files together
TOP = "pcipt-report"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def pack(directory: str, file: str) -> None:
    """Write all below `directory` into the new gzipped tar archive `file`, which only its owner may read.

    The members have no owner and no time. The file gets its name when it is complete.
    Raises: InputError if the file exists already or cannot be written.
    """
    aside = f"{file}.part"
    try:
        descriptor = os.open(aside, _NEW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                _pack(directory, out)
            os.link(aside, file)  # fails if the file exists, unlike a rename
        finally:
            os.unlink(aside)
    except OSError as error:
        about = aside if isinstance(error, FileExistsError) and error.filename2 is None else file
        raise InputError(about, reason(error)) from error


def unpack(file: str, directory: str) -> str:
    """Unpack an archive into the empty `directory`; return the root of the machine in it.

    That is the directory that holds sys/: the top one or the only one in it.
    Raises: InputError if the file is no tar archive, is too large, or a member would lie outside.
    """
    try:
        with tarfile.open(file) as tar:
            _unpack(tar, file, directory)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile) as error:
        raise InputError(file, f"is no archive of a report: {error}") from error
    except OSError as error:
        raise InputError(error.filename or file, reason(error)) from error
    for root in (directory, *(os.path.join(directory, name) for name in sorted(os.listdir(directory)))):
        if os.path.isdir(os.path.join(root, "sys")):
            return root
    raise InputError(file, "is no recorded machine: the directory sys is missing")


def _pack(directory: str, out: BinaryIO) -> None:
    """Write all below `directory` into `out`."""
    with (
        gzip.GzipFile("", "wb", fileobj=out, mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for path in _below(directory):
            tar.add(os.path.join(directory, path), f"{TOP}/{path}", recursive=False, filter=_bare)


def _below(directory: str) -> Iterator[str]:
    """Yield the paths of all files and links below a directory, sorted."""
    found = []
    for home, folders, names in os.walk(directory):
        links = [name for name in folders if os.path.islink(os.path.join(home, name))]
        found += [os.path.relpath(os.path.join(home, name), directory) for name in (*names, *links)]
    yield from sorted(found)


def _bare(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return a member without its owner and times."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


def _unpack(tar: tarfile.TarFile, file: str, directory: str) -> None:
    """Unpack files and links; everything else in the archive is left out."""
    links: list[tuple[str, str]] = []
    left = BYTES
    for number, member in enumerate(tar, 1):
        path = os.path.normpath(member.name)
        if number > MEMBERS or os.path.isabs(path) or path.split("/")[0] == ".." or "\0" in path:
            raise InputError(
                file, f"is not safe to unpack: {'too many members' if number > MEMBERS else path}"
            )
        place = os.path.join(directory, path)
        if not (member.issym() or member.isreg()):
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if member.issym():
            links.append((place, member.linkname))  # the last: nothing is made through a link
            continue
        left -= member.size
        if left < 0:
            raise InputError(file, f"is not safe to unpack: more than {BYTES >> 20} MiB")
        content = tar.extractfile(member) or io.BytesIO()
        with open(place, "xb") as out:
            while piece := content.read(1 << 20):
                out.write(piece)
    for place, target in links:
        os.symlink(target, place)
