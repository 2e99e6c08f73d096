"""Logging: structlog to stderr, one line an event, with priorities that journald reads.

Values from devices and files are escaped before they are printed.
"""

import os
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from pcipt.errors import printable

PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


def start_logging() -> Any:
    """Configure structlog for this process and return the daemon's logger."""
    to_journal = "JOURNAL_STREAM" in os.environ

    def render(_logger: object, name: str, event: MutableMapping[str, Any]) -> str:
        message = printable(str(event.pop("event")))
        fields = "".join(f" {key}={_quoted(value)}" for key, value in event.items())
        prefix = f"<{PRIORITIES.get(name, 6)}>" if to_journal else "pcipt: "
        return f"{prefix}{message}{fields}"

    structlog.configure(processors=[render], logger_factory=structlog.PrintLoggerFactory(file=sys.stderr))
    return structlog.get_logger()


def _quoted(value: object) -> str:
    text = printable(str(value))
    return f'"{text}"' if " " in text else text
