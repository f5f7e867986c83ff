"""The pipe between the server and a worker process, both ends in one process."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from server.pipe import (
    AT_ONCE,
    HEADER,
    OUT_OF_BAND,
    BlockingPipe,
    LoopPipe,
    Unpacker,
    pack,
    unpack,
)
from server.worker import WorkerFrame

BIG = bytes(8 << 20)  # far more than a socket holds


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_messages_survive_any_cut() -> None:
    messages = [b"", b"x", list(range(100))]
    stream = b"".join(part for message in messages for part in pack(message))
    for step in (1, 3, 7, len(stream)):
        unpacker = Unpacker()
        got, rest = [], memoryview(stream)
        while rest:
            count = min(step, len(unpacker.space()), len(rest))
            unpacker.space()[:count] = rest[:count]
            rest = rest[count:]
            if (parts := unpacker.took(count)) is not None:
                got.append(unpack(parts))
        assert got == messages


def test_images_go_beside_the_pickle_out_of_their_own_memory() -> None:
    images = [bytes([i]) * size for i, size in enumerate((OUT_OF_BAND - 1, OUT_OF_BAND, 1 << 20))]
    head, *buffers = pack((7, "run", [WorkerFrame(b"tag", image, 608) for image in images]))
    assert all(a.obj is b for a, b in zip(buffers, images[1:], strict=True))
    assert len(head) < OUT_OF_BAND + 500
    _, _, frames = unpack([bytearray(head)[HEADER.size :], *map(bytearray, buffers)])
    assert [bytes(frame.image) for frame in frames] == images
    assert {(frame.tag, frame.px) for frame in frames} == {(b"tag", 608)}


async def test_sending_a_large_batch_hands_the_loop_back_after_a_little_of_it(
    pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, (ours, theirs) = asyncio.get_running_loop(), pair
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)  # the kernel would take more
    pipe = LoopPipe(loop, ours, print, print)
    calls: list[int] = []
    chunk = pipe._chunk

    def counted() -> list[memoryview]:
        parts = chunk()
        calls.append(sum(len(part) for part in parts))
        return parts

    monkeypatch.setattr(pipe, "_chunk", counted)
    images = [bytes(740_000)] * 8
    pipe.send([WorkerFrame(b"", image, 608) for image in images])
    assert len(calls) == 1  # in `send` itself; the rest from the loop, a call a turn
    reader = BlockingPipe(theirs).messages()
    frames = unpack(await asyncio.to_thread(next, reader))
    assert [bytes(frame.image) for frame in frames] == images
    assert max(calls) <= AT_ONCE
    assert len(calls) >= sum(map(len, images)) // AT_ONCE
    pipe.close()


async def test_sending_never_waits_for_a_reader(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    pipe = LoopPipe(asyncio.get_running_loop(), ours, print, print)
    for number in range(3):  # nobody reads: this would block for ever
        pipe.send((number, BIG))
    reader = BlockingPipe(theirs).messages()
    for number in range(3):
        assert unpack(await asyncio.to_thread(next, reader)) == (number, BIG)
    pipe.close()
    assert await asyncio.to_thread(next, reader, None) is None


async def test_messages_arrive_in_order_then_the_end(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    got: list[object] = []
    ended = asyncio.Event()
    pipe = LoopPipe(asyncio.get_running_loop(), ours, got.append, ended.set)
    child = BlockingPipe(theirs)
    for number in range(100):
        child.send(number)
    theirs.close()
    await asyncio.wait_for(ended.wait(), 5)
    assert got == list(range(100))
    pipe.send("to nobody")  # harmless
    pipe.close()


async def test_a_reader_that_went_away_ends_the_pipe(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    ours, theirs = pair
    ended = asyncio.Event()
    pipe = LoopPipe(asyncio.get_running_loop(), ours, print, ended.set)
    pipe.send(BIG)
    theirs.close()
    await asyncio.wait_for(ended.wait(), 5)
    pipe.close()
    assert ours.fileno() == -1


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\xff" * 40,
        bytes(40),
        HEADER.pack(0, 4) + b"what",
        HEADER.pack(1, 1) + (1 << 60).to_bytes(8) + b"?",
    ],
)
async def test_a_child_that_says_nonsense_is_given_up(
    pair: tuple[socket.socket, socket.socket], nonsense: bytes
) -> None:
    ours, theirs = pair
    ended = asyncio.Event()
    got: list[object] = []
    pipe = LoopPipe(asyncio.get_running_loop(), ours, got.append, ended.set)
    theirs.sendall(b"".join(pack("sense")) + nonsense)
    await asyncio.wait_for(ended.wait(), 5)
    assert got == ["sense"]
    pipe.send("to nobody")
    assert ours.fileno() == -1


def test_a_child_whose_server_is_gone_ends_without_a_word() -> None:
    """It may have been killed in the middle of a batch, or with answers that it had not read."""
    ours, theirs = socket.socketpair()
    with theirs:
        pipe = BlockingPipe(theirs)
        pipe.send((0, "unread"))
        ours.close()
        pipe.send((1, "nobody gets this"))
        assert list(pipe.messages()) == []
