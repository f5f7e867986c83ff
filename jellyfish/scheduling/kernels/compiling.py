"""How kernels are compiled: once, and kept on disk for the processes to come.

numba's own cache does not notice an edit in a callee that lives in another file. So the cache's
folder is named by the contents of all files of this package.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])
REPOSITORY = Path(__file__).resolve().parents[3]


def _cache() -> Path:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return Path(numba.config.CACHE_DIR or REPOSITORY / ".numba_cache") / digest.hexdigest()[:16]


def compiled(function: F) -> F:
    """Return `function` compiled when first called with arguments of some types."""
    try:
        return cast(F, numba.njit(cache=True)(function))
    except RuntimeError:  # nowhere to keep a cache: every process compiles for itself
        return cast(F, numba.njit(function))


def inlined(function: F) -> F:
    """Return `function` compiled as part of its callers.

    That spares time where it is called once: each function compiled on its own goes through the
    optimizer together with all that it calls.
    """
    return cast(F, numba.njit(inline="always")(function))


numba.config.CACHE_DIR = str(_cache())
