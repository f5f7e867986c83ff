"""What this checkout has compiled of its schedulers: hosts and copies of it in tests read it."""

from __future__ import annotations

from pathlib import Path

import numba

from jellyfish.scheduling.kernels import compiling

assert compiling.__file__  # it says where the cache is
KEPT = {"NUMBA_CACHE_DIR": str(Path(numba.config.CACHE_DIR).parent)}
