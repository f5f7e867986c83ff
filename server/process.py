"""The server as one process: engine, workers, planner and gRPC, from start to end."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from random import Random
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from jellyfish.errors import RunError
from jellyfish.files.atomic import write_json
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import add_JellyfishServicer_to_server
from server.config import ServerJob
from server.engine import Engine
from server.limits import Limits
from server.planner import ProcessPlanner
from server.records import Records
from server.security import BoundedHealth, Certificates, SecretInterceptor
from server.service import Service
from server.throttled_log import ThrottledLog
from server.worker_process import ProcessWorker

log = logging.getLogger(__name__)

NAME = str(pb.DESCRIPTOR.services_by_name["Jellyfish"].full_name)
READY = "server.ready.json"
RETRY_S = 1.0  # before that file is tried again
MAX_METADATA_BYTES = 8 * 1024
DRAIN_S, FLUSH_S, STREAMS_S = 1.5, 0.5, 0.5  # with 2 s for workers: well within 5 s
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a busy port is an error, not a port to share
    ("grpc.max_concurrent_streams", 100),  # a connection; a client of ours needs two
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.keepalive_time_ms", 5_000),  # of silence, then a ping finds out who is gone
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),  # any number
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # ours ping every 5 s
)


def options(limits: Limits) -> list[tuple[str, Any]]:
    """Return gRPC's options for a server with these limits; a larger message ends its stream.

    What a client may send ahead of what is read is one such message a stream, which crosses the
    network without a stop. Left to itself, gRPC grows that window with the client's rate: to tens
    of MB where the client is faster than this process.
    """
    return [
        *OPTIONS,
        ("grpc.max_receive_message_length", limits.message_bytes),
        ("grpc.http2.bdp_probe", 0),
        ("grpc.http2.lookahead_bytes", limits.message_bytes),
    ]


class ServerProcess:
    """Serves as a job says.

    Args:
        job: what to serve, on what, and where to write.
    """

    def __init__(self, job: ServerJob) -> None:
        self._job = job
        self._health = BoundedHealth()
        self._records = Records(job.out_dir)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then end in order.

        Raises:
            ConfigError, DataError: something that the job names cannot be used.
            DeviceError: a worker does not start.
            RunError: the port is busy, or a file cannot be written.
        """
        (self._job.out_dir / READY).unlink(missing_ok=True)
        engine = self._engine()
        server = grpc.aio.server(
            interceptors=self._interceptors(), options=options(engine.settings.limits)
        )
        port = self._listen(server)
        service = Service(engine, self._job.max_clients_per_peer)
        add_JellyfishServicer_to_server(service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._job.reflection:
            names = (NAME, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)
        self._records.start()
        try:
            if await _unless(stop, engine.start()):
                await server.start()
                self._keep(self._records.keep_state(engine.state))
                await self._set_health(engine.healthy)
                self._keep(self._tell_ready(port))
                await stop.wait()
        finally:
            await self._end(server, service, engine)

    def _interceptors(self) -> list[SecretInterceptor]:
        secret = self._job.secret()
        return [] if secret is None else [SecretInterceptor(secret)]

    def _listen(self, server: grpc.aio.Server) -> int:
        job = self._job
        address = f"{job.host}:{job.port}"
        try:
            if job.tls_cert is None or job.tls_key is None:
                return server.add_insecure_port(address)
            certificates = Certificates(job.tls_cert, job.tls_key, job.tls_client_ca)
            return server.add_secure_port(address, certificates.credentials())
        except RuntimeError as error:
            raise RunError(
                f"cannot listen at {address}: the port is busy, or the host is none of this "
                "machine's"
            ) from error

    def _engine(self) -> Engine:
        job = self._job
        profile, policy = job.read_profile(), job.read_policy()
        workers = [
            ProcessWorker(spec, f"worker-{i}") for i, spec in enumerate(job.device_specs(profile))
        ]
        planner = ProcessPlanner(policy.solver)
        return Engine(
            profile,
            workers,
            planner,
            policy,
            Random(job.seed),
            job.engine,
            self._health_changed,
            self._records.on_plan,
            self._records.on_left,
        )

    async def _end(self, server: grpc.aio.Server, service: Service, engine: Engine) -> None:
        log.info("ending")
        try:
            await engine.stop(DRAIN_S)
            await service.close(FLUSH_S)
            await server.stop(STREAMS_S)
        finally:
            self._records.close(engine.state())

    async def _tell_ready(self, port: int) -> None:
        """Write where the server is; where the disk is full, as soon as it has room."""
        log.info("serving at %s:%d", self._job.host, port)
        path, told = self._job.out_dir / READY, ThrottledLog("start")
        while True:
            try:
                await asyncio.to_thread(write_json, path, {"port": port, "pid": os.getpid()})
                return
            except OSError as error:
                told.tell(f"{path} cannot be written, next try in {RETRY_S:g} s: {error}")
            await asyncio.sleep(RETRY_S)

    def _health_changed(self, healthy: bool) -> None:
        self._keep(self._set_health(healthy))

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Have `work` done beside all else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _set_health(self, healthy: bool) -> None:
        status = health_pb2.HealthCheckResponse
        for name in ("", NAME):
            await self._health.set(name, status.SERVING if healthy else status.NOT_SERVING)


async def _unless(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do `work` unless `stop` comes first; return whether it was done."""
    doing = asyncio.create_task(work)
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({doing, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            return False
        doing.result()  # raises what went wrong
        return True
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)
