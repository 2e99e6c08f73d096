"""The completion for fish: one `complete` line for each command, option and operand."""

from __future__ import annotations

from commands import Command, Value

FRAME = r"""# fish completion for pcipt, written by scripts/describe from the program's own parsers.

# Is what was typed so far this command, and no part of it?
function __pcipt_is
    set -l typed
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; or set -a typed $word
    end
    set -l count (count $argv)
    test (count $typed) -ge $count; or return 1
    test $count -eq 0; and test (count $typed) -gt 0; and return 1
    test $count -eq 0; or test "$typed[1..$count]" = "$argv"
end

# The same, and nothing was chosen behind it yet.
function __pcipt_wants
    __pcipt_is $argv; or return 1
    set -l typed
    for word in (commandline -opc)[2..-1]
        string match -q -- '-*' $word; or set -a typed $word
    end
    test (count $typed) -eq (count $argv)
end

# The functions of the machine named by --root, or of this one; without segment if that is how one began.
function __pcipt_addresses
    set -l root /
    set -l words (commandline -opc)
    for i in (seq (count $words))
        switch $words[$i]
            case --root
                set root $words[(math $i + 1)]
            case '--root=*'
                set root (string replace -- '--root=' '' $words[$i])
        end
    end
    set -l names
    for path in (string trim -r -c / -- $root)/sys/bus/pci/devices/*
        set -a names (string replace -r '.*/' '' -- $path)
    end
    set -l begun (commandline -ct | string replace -r '.*=' '')
    if string match -q -- "$begun*" $names
        printf '%s\n' $names
    else
        string replace -r '^0000:' '' -- $names
    end
end

complete -c pcipt -f
complete -c pcipt -n __pcipt_is -s h -l help -d 'show how it is used'
complete -c pcipt -n __pcipt_is -s V -l version -d 'show the version'
"""


def completion(commands: list[Command]) -> str:
    """Return the completion script for these commands."""
    lines = []
    for command in commands:
        before = " ".join(("__pcipt_wants", *command.words[:-1]))
        lines.append(
            f"complete -c pcipt -n {_quoted(before)} -a {command.words[-1]} -d {_quoted(command.about)}"
        )
        for option in command.options:
            names = " ".join(f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names)
            lines.append(
                f"complete -c pcipt -n {_quoted('__pcipt_is ' + command.name)} {names}"
                f"{_taken(option.value)} -d {_quoted(option.about)}"
            )
            if option.value is not None and not option.value.required:
                long = next(name for name in option.names if name.startswith("--"))
                lines.append(
                    f"complete -c pcipt -n {_quoted('__pcipt_is ' + command.name)}"
                    f" -a {_quoted(' '.join(f'{long}={word}' for word in option.value.words))}"
                )
        lines += [
            f"complete -c pcipt -n {_quoted('__pcipt_is ' + command.name)}{_offered(operand)}"
            for operand in command.operands[:1]
        ]
    return FRAME + "\n".join(lines) + "\n"


def _taken(value: Value | None) -> str:
    """Return the fish options for the value that an option requires; empty if it requires none."""
    if value is None or not value.required:
        return ""
    return f" {'-r' if value.kind == 'file' else '-x'}{_offered(value)}"


def _offered(value: Value) -> str:
    """Return the fish options for what completes a value; empty for free text."""
    if value.kind == "words":
        return f" -a {_quoted(' '.join(value.words))}"
    offers = {
        "address": " -a '(__pcipt_addresses)'",
        "directory": " -a '(__fish_complete_directories)'",
        "file": " -F",
    }
    return offers.get(value.kind, "")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
