"""The choice of batches from what was measured, and the file that says so."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from types import SimpleNamespace

import pytest

from tfapp.errors import ConfigError, ReleaseError
from tfapp.serving import tuning
from tfapp.serving.load import drive, post
from tfapp.serving.server.model_files import read_batching
from tfapp.serving.server.settings import Batching
from tfapp.serving.tuning import Measured, _best, _config
from tfapp.wire.configs import BatchingParameters, read_config


def measured(size, timeout, connections, rate, p99, failures=0):
    return Measured(size, timeout, connections, rate, p99 and p99 / 2, p99, failures)


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


@pytest.mark.parametrize(
    "failing",
    [
        (measured(128, 0, 16, 90, 10), measured(128, 0, 64, 500, 20, failures=1)),
        (measured(128, 0, 16, 90, 10, failures=1), measured(128, 0, 64, 500, 20)),
        (measured(128, 0, 16, 90, 10), measured(128, 0, 64, 0, None)),
    ],
)
def test_what_left_a_request_unanswered_is_never_chosen(failing):
    assert _best((*ROWS, *failing), (16, 64)) == (32, 0)
    with pytest.raises(ReleaseError, match="every setting left requests unanswered"):
        _best(failing, (16, 64))


@pytest.fixture
def release(tmp_path):
    """A folder that is taken for a release."""
    directory = tmp_path / "reviews" / "1"
    directory.mkdir(parents=True)
    (directory / "manifest.json").touch()
    return directory


@pytest.fixture
def servers(monkeypatch):
    """Servers that fail with batches of 4 from two connections on; notes what was asked of which."""
    loads = []

    def answers(_port, _requests, batching, connections, _seconds):
        loads.append((*batching, connections))
        fails = batching[0] == 4 and connections == 2
        return measured(*batching, connections, 1000 * batching[0], 5, failures=int(fails))

    monkeypatch.setattr(tuning.Golden, "load", lambda _path: SimpleNamespace(feature="text"))
    monkeypatch.setattr(tuning, "_server", lambda *_arguments: contextlib.nullcontext(0))
    monkeypatch.setattr(tuning, "_measured", answers)
    return loads


def tune(release):
    return tuning.tune_serving(release, texts=["a"], sizes=(1, 2, 4), timeouts=(0, 9), connections=(1, 2, 3))


def test_a_setting_that_fails_is_loaded_no_further(release, servers):
    assert (tune(release).max_batch_size, tune(release).batch_timeout_micros) == (2, 0)
    assert (4, 0, 2) in servers
    assert (4, 0, 3) not in servers


def test_texts_are_not_sent_to_a_release_of_images(release, servers, monkeypatch):
    monkeypatch.setattr(tuning.Golden, "load", lambda _path: SimpleNamespace(feature="image_bytes"))
    with pytest.raises(ConfigError, match="classifies images, and no texts: leave out --file"):
        tune(release)
    assert servers == []
    assert not (release.parent / "serving").exists()


def test_fields_that_are_not_measured_stay_as_the_user_has_them(release, servers):
    path = release.parent / "serving" / "batching.config"
    path.parent.mkdir()
    path.write_text(
        "max_batch_size { value: 64 } num_batch_threads { value: 3 } max_enqueued_batches { value: 7 }"
        "allowed_batch_sizes: [1, 8, 64] max_execution_batch_size { value: 16 }"
    )
    assert tune(release).path == path
    found = read_config(path, BatchingParameters())
    assert (found.max_batch_size.value, found.batch_timeout_micros.value) == (2, 0)
    assert (found.num_batch_threads.value, found.max_enqueued_batches.value) == (3, 7)
    # TF Serving wants the largest size last, and none beyond max_batch_size.
    assert (list(found.allowed_batch_sizes), found.max_execution_batch_size.value) == ([1, 2], 2)


@pytest.mark.parametrize(("splitting", "allowed"), [("false", [1, 2]), ("true", [1])])
def test_allowed_sizes_end_with_the_size_of_what_is_executed(release, servers, splitting, allowed):
    path = release.parent / "serving" / "batching.config"
    path.parent.mkdir()
    path.write_text(
        "allowed_batch_sizes: [1, 8] max_execution_batch_size { value: 1 } "
        f"enable_large_batch_splitting {{ value: {splitting} }}"
    )
    tune(release)
    found = read_config(path, BatchingParameters())
    assert (found.max_batch_size.value, found.max_execution_batch_size.value) == (2, 1)
    assert list(found.allowed_batch_sizes) == allowed


def test_a_config_that_cannot_be_read_is_said_before_anything_is_measured(release, servers):
    path = release.parent / "serving" / "batching.config"
    path.parent.mkdir()
    path.write_text("max_batch_size: many")
    with pytest.raises(ReleaseError, match=r"batching\.config cannot be read .*mend it, or delete it"):
        tune(release)
    assert servers == []
    assert path.read_text() == "max_batch_size: many"


def test_a_measured_server_asks_for_no_token_and_is_ended_even_if_it_does_not_want_to(
    release, tmp_path, monkeypatch
):
    stubborn = tmp_path / "stubborn"
    stubborn.write_text(
        f"#!{sys.executable}\nimport os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "port = 1 + ('TFAPP_TOKEN' in os.environ)\n"
        "print(f'Serving version 1 at http://127.0.0.1:{port}/', flush=True)\ntime.sleep(600)\n"
    )
    stubborn.chmod(0o755)
    monkeypatch.setenv("TFAPP_TOKEN", "secret")
    monkeypatch.setattr(tuning.sys, "executable", str(stubborn))
    monkeypatch.setattr(tuning, "_END_SECONDS", 0.1)
    with tuning._server(release, 1, 0) as port:
        assert port == 1


def test_the_written_config_is_read_back_and_overruled_field_by_field(tmp_path):
    path = tmp_path / "batching.config"
    assert read_batching(path) == Batching()
    path.write_text(_config((32, 1000), ROWS, BatchingParameters()))
    assert read_batching(path) == Batching(max_batch_size=32, batch_timeout_micros=1000)
    assert read_batching(path, {"max_batch_size": 4}) == Batching(max_batch_size=4, batch_timeout_micros=1000)
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
