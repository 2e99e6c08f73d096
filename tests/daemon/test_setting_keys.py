import tomllib

from pcipt.daemon.setting_keys import KEYS, file_from_keys
from pcipt.daemon.settings import Settings, parse_settings
from pcipt.remap.actions import Action

WORDS = {kind.word for kind in Action.__args__}


def test_every_kind_of_action_has_its_switch():
    assert {key.name for key in KEYS if key.name.startswith("actions.")} == {f"actions.{w}" for w in WORDS}


def test_the_shipped_file_names_every_key_with_its_default():
    text = file_from_keys()
    assert parse_settings(text.encode(), "file") == Settings()
    bare = "\n".join(line.removeprefix("#") for line in text.splitlines() if not line.startswith("# "))
    assert parse_settings(bare.encode(), "file") == Settings()
    document = tomllib.loads(bare)
    assert document["actions"].keys() == WORDS
    assert all(f"# {key.about}:\n#   {key.accepts.words}\n" in text for key in KEYS)
