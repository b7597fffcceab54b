"""Phase 3: fetch the NoCloud documents, before anything is written, so that their absence costs no disk."""

from __future__ import annotations

import re
from collections.abc import Mapping

from installer.client import RESTART_WITHIN, fetch
from installer.errors import InstallError

DOCUMENTS = ("meta-data", "user-data", "network-config", "vendor-data")

_LIMIT = 1 << 20  # bytes of one document
# meta-data is YAML, and JSON is YAML: a key, in quotes or not, with something behind it. There is no YAML parser here.
_INSTANCE_ID = re.compile(r"""(?:^|[{,])\s*["']?instance-id["']?\s*:\s*["']?[^\s"',}]""", re.MULTILINE)

Seed = Mapping[str, bytes]


def load(base_url: str) -> Seed:
    """Return the four NoCloud documents below *base_url*, by name.

    :raises InstallError: if one cannot be had, or cloud-init would not take them.
    """
    seed = {name: fetch(f"{base_url}{name}", limit=_LIMIT, within=RESTART_WITHIN) for name in DOCUMENTS}
    validate(seed)
    return seed


def validate(seed: Seed) -> None:
    """Check what cloud-init checks late and quietly.

    :raises InstallError: if a document is not text, or ``meta-data`` has no instance-id (without, the seed is ignored).
    """
    for name, data in seed.items():
        try:
            data.decode()
        except UnicodeDecodeError as error:
            raise InstallError(f"the seed's {name} is not UTF-8 text: {error.reason} at byte {error.start}") from None
    if not _INSTANCE_ID.search(seed["meta-data"].decode()):
        raise InstallError("the seed's meta-data has no instance-id")
