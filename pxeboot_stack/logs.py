"""What the container's own services log: one JSON object a line on standard error, without tokens.

``{"time": "...Z", "level": "info", "service": "watcher", "message": "..."}``, and what the caller gives as ``extra``:
``machine`` and ``client``, where a line is about one.
"""

from __future__ import annotations

import json
import logging
import re
import time

from contracts.tokens import PLACEHOLDER, mask

_EXTRA = ("machine", "client", "document", "status")  # the only attributes of a record that callers may add
_TOKEN_PATH = re.compile(r"/m/[^/\s\"']+")  # also one that was cut or mistyped
_MAX_MESSAGE = 4000


def mask_tokens(text: str) -> str:
    """Return *text* with every token replaced, and with whatever stands where one belongs."""
    return mask(_TOKEN_PATH.sub(f"/m/{PLACEHOLDER}", text))


class JsonFormatter(logging.Formatter):
    """Makes the line. A traceback is in ``error``, with its lines."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return *record* as one line."""
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{seconds}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "message": mask_tokens(record.getMessage())[:_MAX_MESSAGE],
        }
        line |= {name: mask_tokens(str(value)) for name in _EXTRA if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["error"] = mask_tokens(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def configure(service: str) -> None:
    """Have everything that this process logs written so, from level info."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
