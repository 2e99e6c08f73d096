import pytest

from pcipt.host import sysfs
from tests import trees


@pytest.fixture(scope="session", params=trees.RECORDED)
def recorded(request, tmp_path_factory):
    """Each recorded machine in turn, unpacked."""
    return trees.unpack(request.param, tmp_path_factory.mktemp("recorded"))


@pytest.fixture(params=[0, 1 << 30], ids=["at once", "one by one"])
def way(request, monkeypatch):
    """Read the files of a function with one call of the extension, then file by file."""
    monkeypatch.setattr(sysfs, "AT_ONCE_FROM", request.param)
