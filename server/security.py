"""Who may call: the bearer secret, names in certificates, and a limit on what needs neither."""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health

OPEN = "/grpc.health.v1.Health/"  # answers anybody: whoever probes a server holds no secret
WATCHES = 4  # Health.Watch streams a connection

Context = Any  # grpc.aio.ServicerContext is generic in ways that help nobody here


class SecretInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # in stubs alone
    """Refuses every call without the bearer secret, whatever it calls; health checks apart.

    Args:
        secret: what calls must carry as `authorization: Bearer SECRET`.
    """

    def __init__(self, secret: str) -> None:
        self._wanted = f"Bearer {secret}".encode()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Return the method's handler, or one that refuses."""
        if handler_call_details.method.startswith(OPEN):
            return await continuation(handler_call_details)
        given = dict(handler_call_details.invocation_metadata or ()).get("authorization", "")
        if hmac.compare_digest(str(given).encode(), self._wanted):
            return await continuation(handler_call_details)
        # Streaming both ways, for methods of any kind: others would wait for a request first.
        return grpc.stream_stream_rpc_method_handler(_refuse)


async def _refuse(_requests: Any, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong or no bearer secret")


class BoundedHealth(health.aio.HealthServicer):  # type: ignore[misc,name-defined]  # untyped
    """gRPC's health service, with at most `WATCHES` watches a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: Counter[str] = Counter()

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802 - gRPC's name
        """Tell the status of a service whenever it changes."""
        connection = context.peer()
        if self._watches[connection] >= WATCHES:
            why = f"more than {WATCHES} watches on one connection"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, why)
        self._watches[connection] += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches[connection] -= 1
            if not self._watches[connection]:
                del self._watches[connection]


def certificate_name(context: Context) -> str | None:
    """Return the name in the certificate that the peer has shown; None where it showed none.

    It is the subject's common name, or the first alternative name where there is none. gRPC has
    checked by then that the certificate descends from the job's CA.
    """
    shown = context.auth_context()
    for key in ("x509_common_name", "x509_subject_alternative_name"):
        for name in shown.get(key, ()):
            return str(name.decode(errors="replace"))
    return None


def identity(context: Context) -> str:
    """Return who calls: the name in the peer's certificate, else its IP address without port."""
    return certificate_name(context) or _address(context.peer())


def _address(peer: str) -> str:
    """Return the address in gRPC's name of a peer, such as `ipv6:%5B::1%5D:4711`."""
    _, _, rest = unquote(peer).partition(":")
    return rest.rpartition(":")[0].strip("[]") or rest
