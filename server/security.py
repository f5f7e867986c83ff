"""Who may call: the bearer secret, names in certificates, and a limit on what needs neither."""

from __future__ import annotations

import hmac
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import grpc
from grpc_health.v1 import health

from jellyfish.errors import ConfigError
from jellyfish.files.credentials import read_ca, read_chain

log = logging.getLogger(__name__)

OPEN = "/grpc.health.v1.Health/"  # answers anybody: whoever probes a server holds no secret
WATCHES = 4  # Health.Watch streams a connection
NAME_LIMIT = 200  # characters of a service that is watched

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


class Certificates:
    """The server's certificates, which are read again when their files change.

    Connections keep what they began with. Files that cannot be used change nothing.

    Args:
        cert: PEM file of the server's certificate, and of those between it and its CA.
        key: PEM file of its key.
        client_ca: PEM file of the CAs of clients, who must then show a certificate; None: no CA.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._seen = self._stamp()

    def credentials(self) -> grpc.ServerCredentials:
        """Return what gRPC serves with.

        Raises:
            ConfigError: a file cannot be used.
        """
        asked = self._client_ca is not None
        changed: Any = self._changed  # None, for no change, is missing in the stubs
        return grpc.dynamic_ssl_server_credentials(self._read(), changed, asked)

    def _changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the next connection is to be met with, if that is new.

        gRPC asks before each handshake, on a thread of its own.
        """
        stamp = self._stamp()  # before reading: what is written meanwhile is read the next time
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            found = self._read()
        except ConfigError as error:
            log.error("the certificates stay as they were: %s", error)
            return None
        log.info("new certificates from %s", self._cert)
        return found

    def _read(self) -> grpc.ServerCertificateConfiguration:
        ca = None if self._client_ca is None else read_ca(self._client_ca, "tls_client_ca")
        return grpc.ssl_server_certificate_configuration([read_chain(self._cert, self._key)], ca)

    def _stamp(self) -> tuple[object, ...]:
        return tuple(map(_version, filter(None, (self._cert, self._key, self._client_ca))))


def _version(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a file from what it was before; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


class BoundedHealth(health.aio.HealthServicer):  # type: ignore[misc,name-defined]  # untyped
    """gRPC's health service, with at most `WATCHES` watches a connection."""

    def __init__(self) -> None:
        super().__init__()
        self._watches: Counter[str] = Counter()

    async def Watch(self, request: Any, context: Context) -> None:  # noqa: N802 - gRPC's name
        """Tell the status of a service whenever it changes."""
        connection = context.peer()
        if len(request.service) > NAME_LIMIT:  # it is kept as long as the stream is open
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no service has such a name")
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
