import os
import stat

import pytest

from pcipt.daemon.telling import text_file as textfile
from pcipt.daemon.telling.text_file import Textfile, write_aside


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


def test_without_a_change_nothing_is_written_nor_waited_for(path):
    scene = Scene(path)
    scene.loop.come()
    scene.loop.come()  # the end of the pause
    assert scene.number == 1
    assert scene.loop.deadlines == {}
    scene.file.changed()
    assert scene.loop.come() == 0  # the pause is long over


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
    write_aside(path, "old\n")
    monkeypatch.setattr(
        os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(OSError, match="No space"):
        write_aside(path, "new\n")
    assert content(path) == "old\n"
    assert os.listdir(tmp_path) == ["pcipt.prom"]


def test_a_link_laid_in_the_way_is_not_followed(path, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.symlink(victim, tmp_path / ".pcipt.prom.new")
    with pytest.raises(OSError, match=r"symbolic links"):
        write_aside(path, "text\n")
    assert victim.read_text() == "precious"
