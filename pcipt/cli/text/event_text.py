"""Changes and events in words: the lines that `decode`, `monitor` and `history` print.

Each function takes the JSON object that the same command prints with --json, so text and JSON agree.
"""

from collections.abc import Callable

from pcipt.cli.text.terminal import BOLD, GREEN, RED, YELLOW, folded, painted
from pcipt.errors import printable
from pcipt.hints import Any
from pcipt.words import size_text

Json = dict[str, Any]
ADDRESS = 12  # columns of an address
NOTHING_THERE = "nothing"  # the daemon's word for an address of refused DMA at which it knows nothing
SHADES = {"refused": YELLOW, "failed": RED, "new": YELLOW, "gone": GREEN}


def lines_from_event(
    event: Json, *, day: bool = False, width: int | None = None, colour: bool = False
) -> list[str]:
    """Return one event of the daemon as lines of text: its time (UTC), an address, and what happened in
    words.

    The time is a time of day with milliseconds; with `day` it is date and time without milliseconds. The
    address is "-" if the event is not about one function. An event of an unknown kind is shown as its
    members, "key=value". Lines are folded to `width` columns; None does not fold. `colour` adds terminal
    colours.

    Raises: KeyError if an event of a known kind lacks a member of that kind.
    """
    when = str(event.get("when", ""))
    clock = f"{when[:10]} {when[11:19]}" if day else when[11:23]
    address = printable(str(event.get("sbdf") or "-"))
    words = _WORDS.get(str(event.get("kind")), _unknown)(event)
    start = len(clock) + 1
    first, *more = folded(f"{clock} {address:{ADDRESS}} {words}", width, start + ADDRESS + 1)
    if not colour:
        return [first, *more]
    end = start + max(ADDRESS, len(address))
    shade = (
        YELLOW
        if event.get("kind") in {"lost", "dma-fault"}
        else SHADES.get(str(event.get("result") or event.get("state")))
    )
    whole = f"{first[:start]}{painted(first[start:end], BOLD)}{painted(first[end:], shade)}"
    return [whole, *(painted(line, shade) for line in more)]


def text_from_action(item: Json) -> str:
    """Return the text that follows an action's name: " BAR 0 0x…-0x… (16K): done; planned because …".

    BAR, range and detail are left out if the action has none. The detail stands after the result, and what
    can be done after the detail of a refusal. The reason of the plan is last: after the action it may hold
    no more.
    """
    step = f"; next: {printable(item['next'])}" if item.get("next") else ""
    detail = f" ({printable(item['detail'])}{step})" if item.get("detail") else ""
    why = " because" if item["result"] == "planned" else "; planned because"
    return f"{text_from_span(item)}: {item['result']}{detail}{why} {printable(item['reason'])}"


def text_from_span(item: Json) -> str:
    """Return the BAR and the address range of an action, each with a space before it: " BAR 0 0x…-0x… (16K)".

    If the action has a start but no size, its start address takes the place of the range. Return an empty
    text if the action has neither BAR nor start.
    """
    bar = f" {_bar(item)}" if item.get("bar") is not None else ""
    if item.get("start") is None:
        return bar
    start, size = int(item["start"], 16), item.get("size")
    return bar + (f" {start:#x}-{start + size - 1:#x} ({size_text(size)})" if size else f" {start:#x}")


def text_from_change(change: Json) -> str:
    """Return a change in words, without the function's address: "BAR 0 moved from 0x… to 0x… (16K)".

    A change of an unknown kind is shown as its members, "key=value".
    """
    return _CHANGES.get(str(change.get("change")), _unknown)(change)


def text_from_write(write: Json) -> str:
    """Return a decoded write as text, without the function's address: offset, size in bytes, value, writer.

    An unknown size is shown as "?". An unknown writer is left out.
    """
    size = "?" if write["size"] is None else write["size"]
    who = f"  {printable(write['who'])}" if write["who"] else ""
    return f"  {int(write['offset'], 16):#05x} {size} <- {write['value']}{who}"


def _change(event: Json) -> str:
    """Return a register change in words: the change, its writer if known, whether reading back found the
    change.
    """
    who = f" by {printable(event['who'])}" if event.get("who") else ""
    found = ", found by reading back" if event.get("source") == "read-back" else ""
    return f"{text_from_change(event)}{who}{found}"


def _action(event: Json) -> str:
    return f"{event['action']}{text_from_action(event)}"


def _finding(event: Json) -> str:
    step = f" -> {printable(event['next'])}" if event["state"] == "new" and event.get("next") else ""
    return f"finding {event['state']}: {event['code']}: {printable(event['text'])}{step}"


def _hotplug(event: Json) -> str:
    """Return a hot-plug message in words; an unknown kernel word is shown after "hot-plug: "."""
    action = printable(str(event.get("action", "")))
    return _HOTPLUG.get(action, f"hot-plug: {action}")


def _fault(event: Json) -> str:
    """Return refused DMA in words: what, how often, whose device, and what lies there."""
    times = f", {event['count']} times" if event["count"] > 1 else ""
    owner, what = printable(event["owner"]), printable(event["text"])
    there = "nothing is known at the address" if what == NOTHING_THERE else f"the address is {what}"
    return (
        f"DMA {event['access'] or 'access'} at {event['address']} was refused{times}; "
        f"the device belongs to {owner}; {there}"
    )


def _lost(event: Json) -> str:
    """Return the event of lost records in words; an unknown number is shown as "some"."""
    return (
        f"lost {event.get('count') or 'some'}: {printable(str(event.get('text', 'events not read in time')))}"
    )


def _unknown(event: Json) -> str:
    """Return an event or change of unknown kind as "key=value, …", without its version and time."""
    return printable(
        ", ".join(f"{key}={value}" for key, value in event.items() if key not in {"version", "when"})
    )


def _bar(change: Json) -> str:
    """Return "BAR 2" for BAR number 2, and "ROM" for number 6."""
    return "ROM" if change["bar"] == 6 else f"BAR {change['bar']}"


def _mapped(change: Json) -> str:
    return f"{_bar(change)} mapped at {change['to']} ({size_text(change['size'])})"


def _unmapped(change: Json) -> str:
    return f"{_bar(change)} unmapped from {change['from']} ({size_text(change['size'])})"


def _moved(change: Json) -> str:
    how = {
        "obeyed": "; written while decoding: pcipt assumes that the hardware obeys",
        "ignored": "; written while decoding: pcipt assumes that the write was ignored",
    }.get(str(change.get("assumed")), "")
    return f"{_bar(change)} moved from {change['from']} to {change['to']} ({size_text(change['size'])}){how}"


def _decode(change: Json) -> str:
    return f"decoding: {_switches(change['from'])} -> {_switches(change['to'])}"


def _switches(decode: Json | None) -> str:
    """Return which accesses are decoded: "I/O and memory", "I/O", "memory", "nothing"; for None "unknown"."""
    if decode is None:
        return "unknown"
    on = [name for name, key in (("I/O", "io"), ("memory", "memory")) if decode[key]]
    return " and ".join(on) or "nothing"


def _rom(change: Json) -> str:
    return f"ROM {'enabled' if change['to'] else 'disabled'}"


def _window(change: Json) -> str:
    """Return a change of a bridge window in words: the ranges before and after; "closed" is no range."""
    spans = (
        "closed" if span is None else f"{span['base']}-{span['limit']}"
        for span in (change["from"], change["to"])
    )
    return f"{change['window']} window: {' -> '.join(spans)}"


def _numbers(change: Json) -> str:
    """Return a change of a bridge's bus numbers in words.

    If functions behind the bridge have new addresses because of it, the text has their number.
    """
    count = f"; {len(change['moved'])} functions behind it have new addresses" if change.get("moved") else ""
    return f"buses: {_three(change['from'])} -> {_three(change['to'])}{count}"


def _three(numbers: Json) -> str:
    """Return a bridge's bus numbers as "primary=00, secondary=01, subordinate=05"; an unknown one is "??"."""
    words = (f"{key}={'??' if value is None else format(value, '02x')}" for key, value in numbers.items())
    return ", ".join(words)


def _vf_bars(change: Json) -> str:
    spans = [
        f"BAR {vf['bar']} {vf['count']} x {size_text(vf['size'])} at {vf['address']}" for vf in change["to"]
    ]
    return f"virtual functions' BARs: {', '.join(spans) or 'none'}"


def _reset(change: Json) -> str:
    return f"{change['reset']} reset"


_HOTPLUG = {
    "add": "hot-plug: the function appeared",
    "remove": "hot-plug: the function left",
    "bind": "driver bound",
    "unbind": "driver unbound",
    "owner": "a guest's passthrough changed: pcipt asks Xen who owns the function now",
}

_WORDS: dict[str, Callable[[Json], str]] = {
    "change": _change,
    "action": _action,
    "finding": _finding,
    "hotplug": _hotplug,
    "dma-fault": _fault,
    "lost": _lost,
}

_CHANGES: dict[str, Callable[[Json], str]] = {
    "bar-mapped": _mapped,
    "bar-unmapped": _unmapped,
    "bar-moved": _moved,
    "decode": _decode,
    "rom": _rom,
    "window": _window,
    "bus-numbers": _numbers,
    "vf-bars": _vf_bars,
    "reset": _reset,
}
