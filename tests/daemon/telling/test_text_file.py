import os
import stat

import pytest

from pcipt.daemon.telling import text_file as textfile
from pcipt.daemon.telling.text_file import Textfile


class Waiting:
    """A loop whose deadlines come when the test says so."""

    def __init__(self):
        self.deadlines = {}

    def after(self, name, seconds, callback):
        self.deadlines[name] = (seconds, callback)

    def cancel(self, name):
        self.deadlines.pop(name, None)

    def come(self):
        """Let the deadline come; tells how long it was waited for."""
        seconds, callback = self.deadlines.pop("textfile")
        callback()
        return seconds


class Scene:
    def __init__(self, path):
        self.loop, self.troubles, self.number = Waiting(), [], 0
        self.file = Textfile(self.loop, path, self.text, lambda *what: self.troubles.append(what))

    def text(self):
        self.number += 1
        return f"pcipt_functions {self.number}\n"


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "pcipt.prom")


def content(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def test_it_is_written_at_the_start_and_readable_for_all(path, tmp_path):
    scene = Scene(path)
    assert scene.loop.come() == 0
    assert content(path) == "pcipt_functions 1\n"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert os.listdir(tmp_path) == ["pcipt.prom"]


def test_many_changes_are_one_writing_after_a_pause(path):
    scene = Scene(path)
    scene.loop.come()
    for _ in range(100):
        scene.file.changed()
    assert scene.loop.come() == textfile.PAUSE
    assert content(path) == "pcipt_functions 2\n"


def test_without_a_change_it_is_written_again_after_minutes(path):
    """Its time says that the service lives: old metrics are seen."""
    scene = Scene(path)
    scene.loop.come()
    scene.loop.come()  # the end of the pause
    assert scene.number == 1
    assert scene.loop.come() == textfile.AGAIN - textfile.PAUSE
    assert scene.loop.come() == 0
    assert content(path) == "pcipt_functions 2\n"
    assert scene.loop.come() == textfile.PAUSE
    assert scene.number == 2


def test_a_change_after_the_pause_is_written_at_once(path):
    scene = Scene(path)
    scene.loop.come()
    scene.loop.come()  # the end of the pause
    scene.file.changed()
    assert scene.loop.come() == 0
    assert scene.number == 2
    assert list(scene.loop.deadlines) == ["textfile"]


def test_no_path_is_no_file(tmp_path):
    scene = Scene("")
    scene.file.changed()
    assert scene.loop.deadlines == {}
    scene.file.close()
    assert os.listdir(tmp_path) == []


def test_the_file_goes_with_the_daemon_and_moves_with_the_settings(path, tmp_path):
    scene = Scene(path)
    scene.loop.come()
    other = str(tmp_path / "other.prom")
    scene.file.move_to(other)
    assert os.listdir(tmp_path) == []
    scene.loop.come()
    assert os.listdir(tmp_path) == ["other.prom"]
    scene.file.move_to("")
    assert os.listdir(tmp_path) == []
    scene.file.close()


def test_a_disk_that_does_not_take_it_is_said_once_until_it_does(path):
    scene = Scene("/nonexistent/pcipt.prom")
    for _ in range(3):
        scene.file.changed()
        scene.loop.come()
    assert [(where, error.errno) for where, error in scene.troubles] == [("/nonexistent/pcipt.prom", 2)]
    scene.file.move_to(path)
    scene.loop.come()
    assert len(scene.troubles) == 1
    assert os.path.exists(path)


def test_a_full_disk_leaves_the_old_file(path, tmp_path, monkeypatch):
    scene = Scene(path)
    scene.loop.come()
    monkeypatch.setattr(
        os, "rename", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    scene.file.changed()
    scene.loop.come()
    assert [error.errno for _, error in scene.troubles] == [28]
    assert content(path) == "pcipt_functions 1\n"
    assert os.listdir(tmp_path) == ["pcipt.prom"]


def test_a_directory_that_was_made_anew_is_written_to(tmp_path):
    (tmp_path / "there").mkdir()
    scene = Scene(str(tmp_path / "there" / "pcipt.prom"))
    scene.loop.come()
    (tmp_path / "there").rename(tmp_path / "old")
    (tmp_path / "old" / "pcipt.prom").unlink()
    (tmp_path / "old").rmdir()
    (tmp_path / "there").mkdir()
    for _ in range(2):
        scene.file.changed()
        scene.loop.come()
    assert content(tmp_path / "there" / "pcipt.prom") == "pcipt_functions 3\n"
    assert len(scene.troubles) == 1


@pytest.mark.parametrize("lay", [os.mkfifo, os.mkdir, lambda at: os.symlink("/etc/passwd", at)])
@pytest.mark.parametrize("name", [".pcipt.prom.new", "pcipt.prom"])
def test_what_another_account_lays_in_the_way_holds_nothing_up(path, tmp_path, lay, name):
    lay(tmp_path / name)
    scene = Scene(path)
    scene.loop.come()
    if name == "pcipt.prom" and lay is os.mkdir:
        assert [error.errno for _, error in scene.troubles] == [21]
    else:
        assert content(path) == "pcipt_functions 1\n"
        assert not os.path.islink(path)
    scene.file.close()


def test_a_link_to_another_directory_is_followed_only_where_nobody_else_can_lay_it(tmp_path):
    """The directory above belongs to another account, which turned node_exporter's directory into a link."""
    above, precious = tmp_path / "prometheus", tmp_path / "precious"
    above.mkdir()
    precious.mkdir()
    os.symlink(precious, above / "node-exporter")
    os.chmod(above, 0o777)
    scene = Scene(str(above / "node-exporter" / "pcipt.prom"))
    scene.loop.come()
    assert len(scene.troubles) == 1
    assert os.listdir(precious) == []
    os.chmod(above, 0o755)
    scene.file.changed()
    scene.loop.come()
    assert os.listdir(precious) == ["pcipt.prom"]
    scene.file.close()
