"""Builds the cffi extension modules, packs recorded machines whole; the rest is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.sdist import sdist


class SourceDistribution(sdist):
    """Copies recorded machines with their links: sysfs is made of them, and setuptools would follow them."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        shutil.copytree("fixtures", Path(base_dir) / "fixtures", symlinks=True)


setup(
    cffi_modules=["csrc/build.py:decode", "csrc/build.py:files", "csrc/build.py:hypervisor"],
    cmdclass={"sdist": SourceDistribution},
    # All keep to the stable ABI of the oldest Python that we run on: one wheel serves all that follow.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
