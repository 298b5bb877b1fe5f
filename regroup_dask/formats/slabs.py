"""How a map is cut into slabs for reading and writing."""

from __future__ import annotations

import math
from collections.abc import Sequence

SLAB_BYTES = 16 * 2**20


def slab_ranges(shape: Sequence[int], *, slab_bytes: int = SLAB_BYTES) -> list[tuple[int, int]]:
    """Begin and end of consecutive slabs along the first axis, each of about `slab_bytes` as float32."""
    planes = max(1, slab_bytes // (4 * math.prod(shape[1:])))
    return [(begin, min(begin + planes, shape[0])) for begin in range(0, shape[0], planes)]
