"""The completion for bash. It starts no program: addresses come from sysfs by a glob."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from commands import Command

FRAME = r"""# bash completion for pcipt, written by scripts/describe from the program's own parsers.

_pcipt_words() {
    case $1 in
@WORDS@
    esac
}

_pcipt_operand() {
    case $1 in
@OPERANDS@
    esac
}

_pcipt_value() {
    case $1 in
@VALUES@
    esac
}

# The functions of the machine below $1 that begin with $2, with or without their segment.
_pcipt_addresses() {
    local path name
    for path in "${1%/}"/sys/bus/pci/devices/*; do
        name=${path##*/}
        if [[ ! -e $path && ! -L $path ]]; then
            continue
        elif [[ $name == "$2"* ]]; then
            echo "$name"
        elif [[ ${name#0000:} == "$2"* ]]; then
            echo "${name#0000:}"
        fi
    done
}

_pcipt() {
    local line=${COMP_LINE:0:COMP_POINT} command= root=/ option= kind= cut candidate i
    local -a words
    read -ra words <<< "$line"
    [[ $line == *[[:space:]] ]] && words+=("")
    local last=$((${#words[@]} - 1))
    local cur=${words[last]}
    for ((i = 1; i < last; i++)); do
        case ${words[i]} in
            --root) root=${words[i + 1]} ;;
            --root=*) root=${words[i]#--root=} ;;
            -*) ;;
            *) [[ -n $(_pcipt_words "$command${command:+ }${words[i]}") ]] &&
                command+=${command:+ }${words[i]} ;;
        esac
    done
    if [[ $cur == --*=* ]]; then
        option=${cur%%=*} cur=${cur#*=}
        kind=$(_pcipt_value "$command $option=")
    else
        kind=$(_pcipt_value "$command ${words[last - 1]}")
        if [[ -z $kind && $cur == -* ]]; then
            kind="words $(_pcipt_words "$command" | tr ' ' '\n' | grep -e '^-' | tr '\n' ' ')"
        fi
    fi
    [[ -n $kind ]] || kind=$(_pcipt_operand "$command")
    COMPREPLY=()
    case $kind in
        address) mapfile -t COMPREPLY < <(_pcipt_addresses "$root" "$cur") ;;
        file) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        directory) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
        words*) mapfile -t COMPREPLY < <(compgen -W "${kind#words}" -- "$cur") ;;
    esac
    # readline replaces only what stands behind the last of its word breaks.
    if [[ $COMP_WORDBREAKS == *:* && $cur == *:* ]]; then
        cut=${cur%"${cur##*:}"}
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"$cut"}
        done
    fi
    for candidate in "${COMPREPLY[@]}"; do
        [[ $candidate == *= ]] && compopt -o nospace 2>/dev/null
    done
    return 0
}

complete -F _pcipt pcipt
"""


def completion(commands: list[Command]) -> str:
    """Return the completion script: the frame with its tables filled in.

    The tables hold, for each command: its words and options, its operands, the values of its options.
    """
    top = [command.name for command in commands if len(command.words) == 1]
    words = [_row([""], " ".join([*top, "--help", "--version"]))]
    operands = [_row([""], "words " + " ".join(top))]
    values = []
    for command in commands:
        names: list[str] = []
        for option in command.options:
            names += option.names
            if option.value is None:
                continue
            told = _kind(option.value.kind, option.value.words)
            if option.value.required:
                values.append(_row([f"{command.name} {name}" for name in option.names], told))
            long = [name for name in option.names if name.startswith("--")]
            values += [_row([f"{command.name} {name}=" for name in long], told)] if long else []
            if not option.value.required:
                names += [f"{name}={word}" for name in long for word in option.value.words]
        words.append(_row([command.name], " ".join([*command.parts, *names])))
        if command.parts:
            operands.append(_row([command.name], "words " + " ".join(command.parts)))
        elif command.operands:
            operands.append(_row([command.name], _kind(command.operands[0].kind, command.operands[0].words)))
    return (
        FRAME.replace("@WORDS@", "\n".join(words))
        .replace("@OPERANDS@", "\n".join(operands))
        .replace("@VALUES@", "\n".join(values))
    )


def _kind(kind: str, words: Iterable[str]) -> str:
    """Return what the shell offers for a value: "words" and the words, else the kind."""
    return f"words {' '.join(words)}" if kind == "words" else kind


def _row(patterns: list[str], told: str) -> str:
    """Return one branch of a shell `case`: for these patterns, echo `told`."""
    listed = " | ".join(f'"{pattern}"' for pattern in patterns)
    return f"        {listed}) echo {shlex.quote(told)} ;;"
