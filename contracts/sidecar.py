"""The sidecar of an artifact file, as far as more than its maker reads it: pipeline.sidecar writes it, the boot handler
takes the digest and the size of a root filesystem from it.
"""

from __future__ import annotations

SCHEMA = 2
"""Its ``schema``. Goes up when a reader of ``sha256`` (hex) or ``size`` (bytes) would have to change, or the pipeline
cannot tell any more whether what was built before is up to date."""
SUFFIX = ".json"
"""What it is called beyond the name of its file."""
