import pytest

from pcipt.errors import InputError
from pcipt.service.settings import Settings, read_settings


def test_no_file_means_the_defaults(tmp_path):
    settings = read_settings(str(tmp_path / "none"), required=False)
    assert settings == Settings()
    assert settings.performs("add-device")
    assert settings.performs("remove-device")


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(InputError, match="no such settings file"):
        read_settings(str(tmp_path / "none"), required=True)


@pytest.mark.parametrize(
    ("text", "performed"),
    [
        ("", {"add-device", "remove-device"}),
        ('mode = "observe"', set()),
        ("[actions]\nadd-device = false", {"remove-device"}),
        ('mode = "enforce"\n[actions]\nremove-device = false', {"add-device"}),
    ],
)
def test_what_may_be_performed(tmp_path, text, performed):
    path = tmp_path / "pcipt.toml"
    path.write_text(text)
    settings = read_settings(str(path), required=True)
    assert {word for word in ("add-device", "remove-device") if settings.performs(word)} == performed


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mod = 1", "unknown key mod; did you mean mode?"),
        ("zzz = 1", "unknown key zzz; expected one of mode, actions, watch"),
        ('mode = "force"', "mode is 'force'; expected one of enforce, observe"),
        ("actions = 1", "actions is no table"),
        ("[actions]\nadd_device = true", "unknown key actions.add_device; did you mean actions.add-device?"),
        ("[actions]\nadd-device = 1", "actions.add-device is 1; expected true or false"),
        ("[watch]\nsource = 'ebpf'", "watch.source is 'ebpf'; expected one of kprobe, xentrace, none"),
        ("[watch]\nsettle-ms = 0", "watch.settle-ms is 0; expected a number from 1 to 10000"),
        ("[watch]\nsettle-ms = true", "watch.settle-ms is True"),
        ("watch = 1", "watch is no table"),
        ("x\nmode = 1", "line 1"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path, text, words):
    path = tmp_path / "pcipt.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        read_settings(str(path), required=True)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
