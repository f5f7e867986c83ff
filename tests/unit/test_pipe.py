"""The pipe between the server and a worker process, both ends in one process."""

import asyncio
import pickle
import socket
from collections.abc import Iterator

import pytest

from server.pipe import BlockingPipe, LoopPipe, Unpacker, pack

BIG = bytes(8 << 20)  # far more than a socket holds


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_messages_survive_any_cut() -> None:
    messages = [b"", b"x", list(range(100))]
    stream = b"".join(pack(message) for message in messages)
    for step in (1, 3, 7, len(stream)):
        unpacker = Unpacker()
        chunks = (stream[i : i + step] for i in range(0, len(stream), step))
        got = [pickle.loads(data) for chunk in chunks for data in unpacker.feed(chunk)]
        assert got == messages


async def test_sending_never_waits_for_a_reader(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    pipe = LoopPipe(asyncio.get_running_loop(), ours, print, print)
    for number in range(3):  # nobody reads: this would block for ever
        pipe.send((number, BIG))
    reader = BlockingPipe(theirs).messages()
    for number in range(3):
        data = await asyncio.to_thread(next, reader)
        assert pickle.loads(data) == (number, BIG)
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
