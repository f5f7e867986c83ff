"""How kernels are compiled: once, and kept on disk for the processes to come.

numba's own cache does not notice an edit in a callee that lives in another file, and takes a
checkout elsewhere for another program. So the cache's folder is named by the contents of all files
of this package, and by nothing else of where they lie: checkouts whose kernels are the same may
share one (NUMBA_CACHE_DIR; on a host, see `experiment.deploy`). A killed process, a full disk or a
power cut may leave an entry that numba fails on at every start from then on; such an entry goes.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import llvmlite
import numba
import numpy
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserProvidedCacheLocator

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
REPOSITORY = Path(__file__).resolve().parents[3]


def _cache() -> Path:
    digest = hashlib.sha256()
    for module in (numba, llvmlite, numpy):
        digest.update(f"{module.__name__} {module.__version__}\n".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return Path(numba.config.CACHE_DIR or REPOSITORY / ".numba_cache") / digest.hexdigest()[:16]


class _Locator(UserProvidedCacheLocator):  # type: ignore[misc] # numba has no types
    """Puts a function's forms into the cache's folder itself, wherever the source lies."""

    def get_cache_path(self) -> str:
        """Return that folder."""
        return str(numba.config.CACHE_DIR)


class _Files(CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(FunctionCache):  # type: ignore[misc]
    """A function's compiled forms on disk, without which it is compiled anew: no error then."""

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the form for a signature; None where there is none that can be read."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # whatever unpickling and linking something broken may raise
            self._discard(f"{self._impl.filename_base}.*", "unreadable: it is compiled anew", error)
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the form for a signature, where that is possible."""
        try:
            super().save_overload(sig, data)
        except Exception as error:  # of the disk, or of numba about a broken callee that it read
            self._discard("*.nb*", "not kept: the next process compiles anew", error)

    def _discard(self, which: str, what: str, error: Exception) -> None:
        reason = f"{type(error).__name__}: {error}"
        log.warning("compiled code of %s is %s (%s)", self._name, what, reason)
        for path in Path(self.cache_path).glob(which):
            with suppress(OSError):  # not ours, or gone already; whoever reads it is told the above
                path.unlink()


def compiled(function: F) -> F:
    """Return `function` compiled when first called with arguments of some types."""
    dispatcher = numba.njit(function)
    # Without a place to keep a cache, every process compiles for itself.
    with suppress(RuntimeError):
        dispatcher._cache = _Cache(function)
    return cast(F, dispatcher)


def inlined(function: F) -> F:
    """Return `function` compiled as part of its callers.

    That spares time where it is called once: each function compiled on its own goes through the
    optimizer together with all that it calls.
    """
    return cast(F, numba.njit(inline="always")(function))


numba.config.CACHE_DIR = str(_cache())
