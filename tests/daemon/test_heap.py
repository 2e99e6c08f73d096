"""The first work of the daemon: nothing is collected meanwhile, and what is left is permanent."""

import gc
import linecache

import pytest

from pcipt.daemon.heap import first


@pytest.fixture(autouse=True)
def thawed():
    yield
    gc.unfreeze()


def test_nothing_is_collected_before_the_first_work_is_done():
    seen = []
    assert first(lambda: seen.append(gc.isenabled()) or 7) == 7
    assert seen == [False]
    assert gc.isenabled()


def test_what_the_first_work_leaves_is_not_walked_again():
    kept = []
    first(lambda: kept.append([]))
    assert not any(each is kept[0] for each in gc.get_objects())


def test_cycles_of_the_first_work_are_collected_at_its_end():
    class Node:
        pass

    def work():
        node = Node()
        node.itself = node

    first(work)
    gc.unfreeze()
    assert not [each for each in gc.get_objects() if isinstance(each, Node)]


def test_after_an_error_garbage_is_collected_again():
    def fail():
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        first(fail)
    assert gc.isenabled()


def test_the_text_of_generated_methods_is_dropped():
    linecache.cache["<attrs generated init of a test>"] = (1, None, ["x"], "<attrs generated init of a test>")
    first(lambda: None)
    assert not linecache.cache
