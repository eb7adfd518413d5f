"""The choice of batches from what was measured, and the file that says so."""

from __future__ import annotations

import asyncio

import pytest

from tfapp.errors import ConfigError, ReleaseError
from tfapp.serving.load import drive, post
from tfapp.serving.tuning import Measured, _best, _config


def measured(size, timeout, connections, rate, p99):
    return Measured(size, timeout, connections, rate, p99 / 2, p99, 0)


ROWS = (
    measured(1, 0, 16, 50, 300),
    measured(1, 0, 64, 60, 900),
    measured(16, 0, 16, 90, 200),
    measured(16, 0, 64, 99, 700),
    measured(32, 0, 16, 90, 150),
    measured(32, 0, 64, 98, 800),
    measured(64, 0, 16, 80, 50),
    measured(64, 0, 64, 90, 900),
)


def test_of_what_is_nearly_as_fast_the_one_that_waits_least_is_chosen():
    assert _best(ROWS, (16, 64)) == (32, 0)
    assert _best(ROWS[:4], (16, 64)) == (16, 0)
    assert _best(ROWS[1:2], (64,)) == (1, 0)


def test_the_written_config_is_read_back(tmp_path):
    pytest.importorskip("tensorflow_serving", reason="the extra 'serve' is not installed")
    from tfapp.serving.server.model_files import read_batching

    path = tmp_path / "batching.config"
    path.write_text(_config((32, 1000), ROWS))
    batching = read_batching(path)
    assert (batching.max_batch_size, batching.batch_timeout_micros) == (32, 1000)
    assert len([line for line in path.read_text().splitlines() if line.startswith("# ")]) == 2 + len(ROWS)
    path.write_text("allowed_batch_sizes: 8 pad_variable_length_inputs: true num_batch_threads { value: 2 }")
    assert read_batching(path).num_batch_threads == 2
    path.write_text("max_batch_size { value: 0 }")
    with pytest.raises(ConfigError, match="max_batch_size = 0"):
        read_batching(path)
    path.write_text("max_batch_size: many")
    with pytest.raises(ReleaseError, match=r"batching\.config cannot be read"):
        read_batching(path)


def test_the_load_generator_tells_right_wrong_refused_and_broken_answers_apart():
    async def live():
        async def answer(reader, writer):
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split(b"\r")[0])
                word = (await reader.readexactly(length)).strip(b'"')
                if word == b"break":
                    writer.close()
                    return
                status = b"429 Full" if word == b"full" else b"200 OK"
                writer.write(b"HTTP/1.1 %s\r\nContent-Length: 2\r\n\r\n%s" % (status, word[:2]))

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        requests = [post("/", word) for word in ("ok", "no", "full", "break")]
        loads = [
            await drive(
                "127.0.0.1",
                port,
                requests,
                connections=1,
                seconds=0.2,
                rate=20,
                check=lambda _place, body: body == b"ok",
            ),
            await drive("127.0.0.1", port, requests[:1], connections=3, seconds=0.05),
        ]
        server.close()
        return loads

    scripted, plain = asyncio.run(live())
    assert len(scripted.latencies) == 1
    assert scripted.failures == {"wrong answer": 1, "429": 1, "IncompleteReadError": 1}
    assert plain.latencies
    assert not plain.failures
    assert plain.rate > 0
