"""Builds the two cffi extension modules; everything else stands in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["csrc/build.py:decode", "csrc/build.py:hypervisor"])
