"""The lock that keeps a second daemon out."""

import errno

import pytest

from pcipt.daemon import lock
from pcipt.daemon.lock import only_one
from pcipt.errors import InputError


def test_a_full_disk_loosens_no_lock(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", full)
    with only_one(str(tmp_path)), pytest.raises(InputError, match="pid unknown"), only_one(str(tmp_path)):
        pass
