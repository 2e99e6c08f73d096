"""What the packaging tests work on: a copy of this checkout, and the tools they may find."""

import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_OURS = shutil.ignore_patterns(
    ".git", ".venv", "build", "dist", "*.egg-info", "*.so", "*.o", "__pycache__", ".*_cache", ".hypothesis"
)


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """Copy the checkout as a commit of it would be, without git."""
    place = tmp_path_factory.mktemp("source") / "pcipt"
    shutil.copytree(REPOSITORY, place, symlinks=True, ignore=NOT_OURS)
    return place


@pytest.fixture
def tool():
    """Find a program, or skip with the package that brings it."""

    def find(name, package=None):
        path = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
        if path is None:
            pytest.skip(f"{name} is not installed (Debian: {package or name})")
        return path

    return find
