"""How hard archives are compressed. The level is part of what the bytes depend on."""

from __future__ import annotations

GZIP_LEVEL = 2
"""isal's. For the installer's initrd zlib's best is 9 % smaller and 28 times slower; isal's level 3 is 1 % smaller, and
gives other bytes on a CPU with AVX2 than on one without."""
