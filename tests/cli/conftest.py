import pytest

from tests import trees


@pytest.fixture(scope="session", params=trees.RECORDED)
def recorded(request, tmp_path_factory):
    """Each recorded machine in turn, unpacked."""
    return trees.unpack(request.param, tmp_path_factory.mktemp("recorded"))
