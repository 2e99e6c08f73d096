"""The completion for zsh, which uses zsh's _arguments."""

from __future__ import annotations

from commands import Command, Value

FRAME = r"""#compdef pcipt
# zsh completion for pcipt, written by scripts/describe from the program's own parsers.

# The functions of the machine named by --root, or of this one; without segment if that is how one began.
_pcipt_addresses() {
    local root=/ i
    local -a names
    for ((i = 1; i < CURRENT; i++)); do
        case $words[i] in
            --root) root=$words[i+1] ;;
            --root=*) root=${words[i]#--root=} ;;
        esac
    done
    names=(${root%/}/sys/bus/pci/devices/*(N:t))
    [[ -n ${(M)names:#$PREFIX*} ]] || names=(${names#0000:})
    compadd -- $names
}

@FUNCTIONS@
_pcipt "$@"
"""

OWN = ("'(- *)'{-h,--help}'[show how it is used]'", "'(- *)'{-V,--version}'[show the version]'")


def completion(commands: list[Command]) -> str:
    """Return the completion script: one shell function a command.

    The function of a command with parts selects a part.
    """
    top = [command for command in commands if len(command.words) == 1]
    functions = [_choice("_pcipt", top, OWN)]
    for command in commands:
        if command.parts:
            parts = [part for part in commands if part.words[:-1] == command.words]
            functions.append(_choice(_function(command), parts, ()))
        else:
            functions.append(f"{_function(command)}() {{\n    _arguments -S \\\n{_specs(command)}\n}}\n")
    return FRAME.replace("@FUNCTIONS@", "\n".join(functions))


def _function(command: Command) -> str:
    return "_pcipt_" + "_".join(command.words)


def _choice(name: str, among: list[Command], options: tuple[str, ...]) -> str:
    """Return the shell function `name`, which selects one of the commands `among`."""
    listed = "\n".join(f"        {_quoted(c.words[-1] + ':' + c.about.replace(':', ' -'))}" for c in among)
    chosen = "\n".join(f"                {c.words[-1]}) {_function(c)} ;;" for c in among)
    own = "".join(f"{option} " for option in options)
    return f"""{name}() {{
    local curcontext=$curcontext context state line
    local -a commands
    commands=(
{listed}
    )
    _arguments -C {own}'1:command:->command' '*::argument:->argument'
    case $state in
        command) _describe -t commands command commands ;;
        argument)
            case $line[1] in
{chosen}
            esac
            ;;
    esac
}}
"""


def _specs(command: Command) -> str:
    """Return the specifications of a command's options and operands for _arguments."""
    specs = []
    for option in command.options:
        about = option.about.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]").replace(":", "\\:")
        for name in option.names:
            mark, value = "", ""
            if option.value is not None:
                # `=`: the value may be in the same word or the next; `=-`: only in the same word.
                long = name.startswith("--")
                mark = ("=" if option.value.required else "=-") if long else ""
                value = f":{'' if option.value.required else ':'}{_action(option.value)}"
            specs.append(_quoted(f"*{name}{mark}[{about}]{value}"))
    for number, operand in enumerate(command.operands, 1):
        place = "*" if operand.many else str(number)
        specs.append(_quoted(f"{place}:{'' if operand.required or operand.many else ':'}{_action(operand)}"))
    return " \\\n".join(f"        {spec}" for spec in specs)


def _action(value: Value) -> str:
    """Return the part of a specification that says what completes a value."""
    what = {
        "address": "_pcipt_addresses",
        "directory": "_files -/",
        "file": "_files",
        "words": f"({' '.join(value.words)})",
    }
    return f"{value.name.lower().replace(':', ' ')}:{what.get(value.kind, ' ')}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
