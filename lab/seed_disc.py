"""The NoCloud seed of a machine as a disc: an ISO 9660 image with the label CIDATA that cloud-init finds by itself.

Format: https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html. The documents' names are longer
than plain ISO 9660 has room for, so they stand in it a second and a third time, as Rock Ridge and Joliet have them.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from pipeline import commit

LABEL = "CIDATA"
REQUIRED = ("meta-data", "user-data")
"""What cloud-init does not take a disc without."""
_MODE = 0o100400  # of the files in it: whoever mounts it is root; nobody else of the guest is to read its host key


def make_seed(documents: Mapping[str, str]) -> bytes:
    """Return the disc that holds *documents*, by their names.

    :raises ValueError: if one of :data:`REQUIRED` is missing.
    """
    import pycdlib  # noqa: PLC0415 (0.1 s that only a start of such a machine pays)

    if missing := [name for name in REQUIRED if name not in documents]:
        raise ValueError(f"a seed without {' and '.join(missing)} is none")
    disc = pycdlib.PyCdlib()
    disc.new(interchange_level=3, vol_ident=LABEL, joliet=3, rock_ridge="1.09")
    try:
        for number, (name, text) in enumerate(sorted(documents.items())):
            data = text.encode()
            disc.add_fp(
                io.BytesIO(data), len(data), f"/DOC{number}.;1", rr_name=name, joliet_path=f"/{name}", file_mode=_MODE
            )
        image = io.BytesIO()
        disc.write_fp(image)
    finally:
        disc.close()
    return image.getvalue()


def write_seed(path: Path, documents: Mapping[str, str]) -> None:
    """Publish the disc at *path*, readable by its owner only: there are keys in it.

    A machine that runs keeps the disc it was started with.
    """
    commit.publish_bytes(path, make_seed(documents), mode=0o600)
