import pytest

from tests import trees
from tests.answers import answering


@pytest.fixture(scope="session", params=trees.RECORDED)
def recorded(request, tmp_path_factory):
    """Each recorded machine in turn, unpacked."""
    return trees.unpack(request.param, tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def daemon(tmp_path):
    """Answer requests by method: `answers` of the test, else an error; as often as asked."""
    answers = {}
    with answering(tmp_path / "control", answers) as path:
        yield path, answers
