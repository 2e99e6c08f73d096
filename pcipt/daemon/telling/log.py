"""The log: structlog to journald with fields if systemd runs the service, else one line an event to stderr.

The text repeats all fields. Values from devices, files and peers are always escaped, and the number of
messages about one device is limited.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

import structlog

from pcipt.daemon.limits import Limits
from pcipt.daemon.telling.journal import Journal, stderr_is_journal
from pcipt.daemon.telling.messages import MESSAGE_IDS
from pcipt.errors import printable

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
VALUE_LIMIT = 2000  # characters of one value
IDENTIFIER = "pcipt"
FACILITY_DAEMON = "3"

Deliver = Callable[[str, str, Mapping[str, str]], None]  # level, text, fields


class Logs:
    """The log of the daemon. `deliver` writes one message. `level` may be changed at any time.

    Events are logged as `log.info("add-device", kind="action", sbdf=…, reason=…)`. `kind` selects the
    MESSAGE_ID and must be a key of MESSAGE_IDS; it may be left out. Each other argument becomes a field
    (PCIPT_SBDF, PCIPT_REASON, …; errno becomes ERRNO). An event below `level`, or above the rate limit of its
    kind and device, is not delivered.
    """

    def __init__(
        self, deliver: Deliver, level: str = "info", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.level = level
        self._deliver = deliver
        self._clock = clock
        self._limits = Limits()
        processors: list[Any] = [self._by_level, self._by_limit, self._hand_over]
        self._logger = structlog.wrap_logger(None, processors=processors, wrapper_class=structlog.BoundLogger)

    def debug(self, event: str, **fields: Any) -> None:
        """Log an event at level "debug"; see the class."""
        self._logger.debug(event, **fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log an event at level "info"; see the class."""
        self._logger.info(event, **fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log an event at level "warning"; see the class."""
        self._logger.warning(event, **fields)

    def error(self, event: str, **fields: Any) -> None:
        """Log an event at level "error"; see the class."""
        self._logger.error(event, **fields)

    def _by_level(
        self, _logger: object, name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Return the event unchanged. `name` is its level.

        Raises: structlog.DropEvent if it is less important than `level`.
        """
        if PRIORITIES[name] > PRIORITIES[self.level]:
            raise structlog.DropEvent
        return event

    def _by_limit(
        self, _logger: object, _name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Return the event if its kind and device are within the rate limit.

        When an event is dropped and the one before it was not, a warning is logged. The next event that
        passes has the number of dropped ones, as `held_back`.

        Raises: structlog.DropEvent if there were too many events of this kind about this device.
        """
        about = event.get("sbdf")
        passes, held = self._limits.take((event.get("kind") or event["event"], about), self._clock())
        if passes:
            return {**event, "held_back": held} if held else event
        if held == 1:
            which = {"sbdf": about} if about is not None else {}
            what = str(event.get("kind") or event["event"])
            told = f"too many messages of kind {what}, some are only counted"
            notice = {"event": told, "kind": "limit", **which, "of": what}
            self._send("warning", notice)
        raise structlog.DropEvent

    def _hand_over(
        self, _logger: object, name: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Deliver the event, and end the processing by structlog.

        Raises: structlog.DropEvent, always: structlog has nothing more to do with the event.
        """
        self._send(name, event)
        raise structlog.DropEvent  # delivered: structlog must do nothing more

    def _send(self, level: str, event: Mapping[str, Any]) -> None:
        """Deliver one event as text and as fields."""
        kind = event.get("kind")
        values = {key: _safe(value) for key, value in event.items() if key not in {"event", "kind"}}
        what = _safe(event["event"])
        text = what + "".join(
            f" {key}={_quoted(value)}" for key, value in values.items() if value != what
        )  # not repeated if the event's name says it already
        fields = {_field(key): value for key, value in values.items()}
        if kind is not None:
            fields |= {"MESSAGE_ID": MESSAGE_IDS[kind], "PCIPT_KIND": kind}
        self._deliver(level, text, fields)


def start_logging(level: str = "info") -> Logs:
    """Return the log of the daemon: to journald if standard error is connected to it, else to stderr."""
    if stderr_is_journal(os.environ.get("JOURNAL_STREAM")):
        return Logs(to_journal(Journal()), level)
    return Logs(to_stderr, level)


def to_stderr(_level: str, text: str, _fields: Mapping[str, str]) -> None:
    """Write a message as one line to stderr. Ignore errors: stderr may be closed."""
    with contextlib.suppress(OSError, ValueError):  # stderr has been closed
        sys.stderr.write(f"pcipt: {text}\n")
        sys.stderr.flush()


def to_journal(journal: Journal) -> Deliver:
    """Return a function that delivers messages to `journal`.

    If journald has dropped messages, the next message that it accepts has their number.
    """
    told = 0

    def deliver(level: str, text: str, fields: Mapping[str, str]) -> None:
        nonlocal told
        missing = journal.dropped - told
        lost = {"PCIPT_NOT_LOGGED": str(missing)} if missing else {}
        before = journal.dropped
        journal.send(
            {
                "MESSAGE": f"{text} not_logged={missing}" if missing else text,
                "PRIORITY": str(PRIORITIES[level]),
                "SYSLOG_IDENTIFIER": IDENTIFIER,
                "SYSLOG_FACILITY": FACILITY_DAEMON,
                **fields,
                **lost,
            }
        )
        if journal.dropped == before:
            told = before

    return deliver


def _field(key: str) -> str:
    """Return the journal field of a log argument: ERRNO for "errno", else PCIPT_ and the name in capitals."""
    return "ERRNO" if key == "errno" else f"PCIPT_{key.upper()}"


def _safe(value: object) -> str:
    """Return a value as printable text, cut to VALUE_LIMIT characters with "…" at its end."""
    text = printable(str(value))
    return text if len(text) <= VALUE_LIMIT else f"{text[: VALUE_LIMIT - 1]}…"


def _quoted(text: str) -> str:
    """Return a text in double quotes if it is empty or has a space or a double quote; else unchanged.

    Each double quote in the text gets a backslash before it.
    """
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"' if " " in text or escaped != text or not text else text
