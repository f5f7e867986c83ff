"""A gRPC server that only echoes: `python -m benchmarks.bare_server --out FOLDER`.

What grpc.aio itself takes for the messages of Jellyfish: each frame is answered at once with an
acknowledgement and a result as long as the real server's, and nothing is done with it. Its port
goes to server.ready.json in FOLDER.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import Any

import grpc

from jellyfish.files.atomic import write_json
from jellyfish.protocol import jellyfish_pb2 as pb
from jellyfish.protocol.jellyfish_pb2_grpc import (
    JellyfishServicer,
    add_JellyfishServicer_to_server,
)

EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs alone
MAX_MESSAGE_BYTES = 8 * 1024 * 1024
DETECTIONS = pb.Detections(boxes=[0.1, 0.2, 0.3, 0.4] * 2, scores=[0.9, 0.5], classes=[0, 0])
STAGES = pb.Stages(dispatch_ms=0.1, decode_ms=0.1, wait_ms=0.1, execute_ms=0.1)


class Echo(JellyfishServicer):  # type: ignore[misc]  # generated, without types
    """Answers whatever it gets."""

    async def Register(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        """Admit anybody."""
        return pb.RegisterResponse(token="none")

    async def Stream(self, request_iterator, context):  # type: ignore[no-untyped-def]  # noqa: N802
        """Answer each frame twice, as the real server does."""
        while (frame := await context.read()) is not EOF:
            ack = pb.Ack(id=frame.id, server_ms=0.1)
            await context.write(pb.ServerMessage(ack=ack))
            result = pb.Result(
                id=frame.id,
                outcome=pb.OUTCOME_OK,
                next_px=frame.px,
                dnn_px=frame.px,
                batch=1,
                server_ms=0.1,
                stages=STAGES,
                detections=DETECTIONS,
            )
            await context.write(pb.ServerMessage(result=result))


async def serve(out: Path) -> None:
    """Serve until killed."""
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES)])
    add_JellyfishServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    write_json(out / "server.ready.json", {"port": port})
    await server.wait_for_termination()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    asyncio.run(serve(parser.parse_args().out))
