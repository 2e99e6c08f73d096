"""Print a text that is generated from the program's own tables: `python3 scripts/describe KIND`."""

from __future__ import annotations

import sys
from collections.abc import Callable

import bash
import fish
import man
import zsh
from commands import read_commands

from pcipt.daemon.setting_keys import KEYS, file_from_keys

WRITERS: dict[str, Callable[[], str]] = {
    "pcipt.1": lambda: man.command_page(read_commands()),
    "pcipt.toml.5": lambda: man.settings_page(KEYS),
    "pcipt.toml": file_from_keys,
    "bash": lambda: bash.completion(read_commands()),
    "zsh": lambda: zsh.completion(read_commands()),
    "fish": lambda: fish.completion(read_commands()),
}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in WRITERS:
        sys.exit(f"usage: python3 scripts/describe {'|'.join(WRITERS)}")
    print(WRITERS[sys.argv[1]](), end="")
