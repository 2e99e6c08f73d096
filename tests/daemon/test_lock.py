"""The lock that keeps a second daemon out."""

import errno
import os

import pytest

from pcipt.daemon import lock
from pcipt.daemon.lock import only_one
from pcipt.errors import InputError


@pytest.mark.parametrize("state", ["/proc/nowhere", "/dev/null", "/sys/kernel"])
def test_a_directory_that_cannot_be_written_is_told_and_not_locked(state):
    with only_one(state) as why, only_one(state) as again:
        assert why == again
        assert why in {
            os.strerror(n) for n in (errno.ENOENT, errno.EEXIST, errno.EPERM, errno.EACCES, errno.EROFS)
        }


def test_a_full_disk_loosens_no_lock(tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lock.os, "pwrite", full)
    with only_one(str(tmp_path)), pytest.raises(InputError, match="pid unknown"), only_one(str(tmp_path)):
        pass
