"""Trees of files for tests: a small sysfs made of a few words, and the recordings of ../shared/data."""

import os
import tarfile
from pathlib import Path

import pytest

from tests.machines import config

REPO = Path(__file__).resolve().parents[1]
DATA = REPO.parent / "shared" / "data"
RECORDED = ("32em64t-2n8c+1mic", "40intel64-2g2n4c+pci", "2pa-pcidomain32bits", "nvidiagpunumanodes")

EMPTY_LINE = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
FILES = {
    "config": config(),
    "vendor": "0x8086\n",
    "device": "0x10d3\n",
    "class": "0x020000\n",
    "resource": 13 * EMPTY_LINE,
}


def put(path, content):
    """Make one file of text or bytes; None takes it away, a callable makes what it likes at that path."""
    path.unlink(missing_ok=True)
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def add(root, home, files=(), *, link=True, **more):
    """Add a function whose directory is sys/devices/`home`, linked as Linux does it."""
    directory = root / "sys/devices" / home
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {**FILES, **dict(files), **more}.items():
        put(directory / name, content)
    listing = root / "sys/bus/pci/devices"
    listing.mkdir(parents=True, exist_ok=True)
    if link:
        (listing / directory.name).symlink_to(f"../../../devices/{home}")
    return directory


def a_directory(path):
    path.mkdir()


def a_fifo(path):
    os.mkfifo(path)


def a_link(target):
    return lambda path: path.symlink_to(target)


def unpack(name, directory):
    """Unpack a recorded machine of ../shared/data; skip where there is none."""
    archive = DATA / "sysfs" / f"{name}.tar.xz"
    if not archive.exists():
        pytest.skip(f"the recordings of other projects are not here: {archive.name}")
    with tarfile.open(archive) as recorded:  # tar(1) needs xz, which a fresh Debian does not have
        recorded.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.2 has none
        recorded.extractall(directory)
    return directory / name


def dumps():
    """Name the lspci dumps of ../shared/data; one that does not exist where there are none."""
    folder = DATA / "pciutils"
    found = [path for path in sorted(folder.glob("*")) if path.name not in {"COPYING", "README.md"}]
    return found or [folder / "missing"]
