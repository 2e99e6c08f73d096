"""The lock that keeps a second daemon out."""

import errno

import pytest

from pcipt.errors import InputError
from pcipt.service import lock
from pcipt.service.lock import only_one


def test_a_full_disk_loosens_no_lock(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", full)
    with only_one(str(tmp_path)), pytest.raises(InputError, match="pid unknown"), only_one(str(tmp_path)):
        pass
