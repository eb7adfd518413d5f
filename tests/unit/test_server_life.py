"""A server from start to end, with models that need no loading."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import subprocess
import threading
import weakref

import pytest

from tfapp.errors import ConfigError, OutputError, ReleaseError
from tfapp.serving.server import Server, ServerSettings, lifecycle, serve, versions
from tfapp.serving.server.versions import Versions


class Model:
    """What a version is made of here; like a graph, it is in a cycle with itself."""

    def __init__(self, number):
        self.version = number
        self.manifest_sha256 = "0" * 64
        self.requests = 0
        self.closed = threading.Event()
        self.itself = self

    def close(self):
        gc.collect()
        self.closed.set()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    return tmp_path / "tiny"


@pytest.fixture
def unfrozen():
    yield
    gc.unfreeze()


def settings(folder, **options):
    return ServerSettings(folder, **{"port": 0, "grpc_port": None, "poll_seconds": 0.01, **options})


def test_a_checksum_stands_for_one_version(folder):
    with pytest.raises(ConfigError, match=r"every version to come.* give saved_models/<name>/<version>"):
        Server(settings(folder, manifest_sha256="0" * 64))
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        settings(folder, manifest_sha256="0" * 63)


def tell_to_end():
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.usefixtures("unfrozen")
def test_a_version_that_gave_way_is_freed_the_first_one_too(folder, monkeypatch):
    made, said = [], []

    def load(_server, _directory, number):
        model = Model(number)
        made.append((weakref.ref(model), model.closed))
        return model

    def swap():
        (folder / "2").mkdir()
        made[0][1].wait(60)
        tell_to_end()

    def announce(line):
        said.append(line)
        if line.startswith("Serving version 1"):
            threading.Thread(target=swap).start()

    monkeypatch.setattr(Server, "_load", load)
    serve(settings(folder), announce=announce)
    gc.collect()
    assert [model() for model, _ in made] == [None, None]
    assert said[-1] == "Ending: requests in flight are answered."


@pytest.mark.usefixtures("unfrozen")
def test_a_server_told_to_end_while_it_loads_serves_nothing_and_lets_go_what_it_loaded(folder, monkeypatch):
    said, told, model = [], threading.Event(), Model(1)

    def load(_server, _directory, _number):
        with pytest.raises(ConnectionRefusedError):  # nobody waits at a port where nobody answers
            socket.create_connection(("127.0.0.1", _server.port), timeout=10)
        tell_to_end()
        told.wait(60)
        return model

    def announce(line):
        said.append(line)
        told.set()

    monkeypatch.setattr(Server, "_load", load)
    serve(settings(folder), announce=announce)
    assert said == ["Ending as soon as the loading is over."]
    assert model.closed.is_set()


def test_a_server_that_cannot_serve_says_so_instead_of_that_it_serves(folder, monkeypatch):
    async def broken(_self, sockets):
        raise RuntimeError("no")

    monkeypatch.setattr(Server, "_load", lambda _server, _directory, number: Model(number))
    monkeypatch.setattr(lifecycle._Web, "serve", broken)
    said = []
    with pytest.raises(RuntimeError, match="no"):
        asyncio.run(Server(settings(folder)).run(lambda: said.append("started")))
    assert said == []


def test_a_port_taken_while_the_model_was_loaded_is_named(folder, monkeypatch):
    taken = []

    def load(server, _directory, number):
        other = socket.socket()
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", server.port))
        other.listen()
        taken.append(other)
        return Model(number)

    monkeypatch.setattr(Server, "_load", load)
    with pytest.raises(OutputError, match=r"REST cannot listen at 127\.0\.0\.1:0 .*choose another"):
        asyncio.run(Server(settings(folder)).run())
    taken[0].close()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two pairs of key and certificate, and a file that is none of either."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificates, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    for name, more in (("a", ["-nodes"]), ("b", ["-nodes"]), ("locked", ["-passout", "pass:secret"])):
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=localhost", *more]
        subprocess.run(
            [*command, "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
            check=True,
            capture_output=True,
        )
    (folder / "garbage").write_text("no certificate")
    return folder


@pytest.mark.parametrize(
    ("certificate", "key"),
    [
        ("garbage", "a.key"),
        ("a.pem", "garbage"),
        ("a.pem", "b.key"),
        ("none", "a.key"),
        ("locked.pem", "locked.key"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_refused_before_anything_loads(
    folder, certificates, certificate, key
):
    with pytest.raises(ConfigError, match=f"{certificate} and .*{key} cannot be used .*as PEM files"):
        settings(folder, tls_certificate=certificates / certificate, tls_key=certificates / key)
    assert settings(folder, tls_certificate=certificates / "a.pem", tls_key=certificates / "a.key")


@pytest.mark.parametrize(
    ("host", "token", "encrypted", "warning"),
    [
        ("0.0.0.0", None, False, "no token is asked for"),
        ("0.0.0.0", "secret", False, "the token is sent to 0.0.0.0 unencrypted"),
        ("0.0.0.0", "secret", True, None),
        ("127.0.0.1", "secret", False, None),
    ],
)
@pytest.mark.usefixtures("unfrozen")
def test_what_others_could_do_on_this_network_is_warned_of(
    folder, certificates, monkeypatch, host, token, encrypted, warning
):
    said = []

    def load(_server, _directory, _number):
        raise ReleaseError("no model")

    monkeypatch.setattr(Server, "_load", load)
    pair = {"tls_certificate": certificates / "a.pem", "tls_key": certificates / "a.key"} if encrypted else {}
    with pytest.raises(ReleaseError, match="no model"):
        serve(settings(folder, host=host, token=token, **pair), announce=said.append)
    assert len(said) == (warning is not None)
    assert warning is None or warning in said[0]


def test_tuned_fields_stay_beside_those_that_are_given(folder, monkeypatch):
    (folder / "serving").mkdir()
    config = "max_batch_size { value: 16 } batch_timeout_micros { value: 7 } num_batch_threads { value: 3 }"
    (folder / "serving" / "batching.config").write_text(config)
    given = []
    monkeypatch.setattr(
        lifecycle, "LoadedModel", lambda *_arguments, batching, **_options: given.append(batching)
    )
    for batching in ({}, {"max_batch_size": 2}):
        Server(settings(folder, batching=batching))._load(folder / "1", 1)
    assert [(each.max_batch_size, each.batch_timeout_micros, each.num_batch_threads) for each in given] == [
        (16, 7, 3),
        (2, 7, 3),
    ]
    with pytest.raises(ConfigError, match="max_batch_size = 0"):
        settings(folder, batching={"max_batch_size": 0})


def test_watching_goes_on_whatever_happens(folder, monkeypatch, caplog):
    async def live():
        looks, again = [], asyncio.Event()

        async def refresh():
            looks.append(1)
            if len(looks) == 1:
                raise RuntimeError("unforeseen")
            again.set()

        watched = Versions(folder, lambda _path, number: Model(number))
        monkeypatch.setattr(watched, "refresh", refresh)
        watching = asyncio.create_task(watched.watch(0.001))
        await asyncio.wait(
            [watching, again_task := asyncio.create_task(again.wait())],
            timeout=60,
            return_when="FIRST_COMPLETED",
        )
        assert again_task.done()
        watching.cancel()
        await watched.close()

    asyncio.run(live())
    assert "cannot be looked at: unforeseen" in caplog.text
    assert "Traceback" in caplog.text


def test_a_version_that_failed_is_tried_again_after_a_while(folder, monkeypatch):
    loads = []

    def load(_path, number):
        loads.append(number)
        if len(loads) < 3:
            raise MemoryError("for now")
        return Model(number)

    async def live():
        served = Versions(folder, load)
        await served.refresh()
        await served.refresh()
        assert (loads, served.ready) == ([1], False)
        now = versions.time.monotonic()
        monkeypatch.setattr(versions.time, "monotonic", lambda: now + versions._FIRST_RETRY + 1)
        await served.refresh()
        await served.refresh()
        assert (loads, served.ready) == ([1, 1], False)  # the second wait is longer
        monkeypatch.setattr(versions.time, "monotonic", lambda: now + 4 * versions._FIRST_RETRY)
        await served.refresh()
        assert served.newest().version == 1
        await served.close()

    asyncio.run(live())


def test_versions_are_found_as_everywhere_else(tmp_path):
    """A name that is a number is a model's name too; names of one number are one version."""
    folder = tmp_path / "2024"
    for name in ("007", "7", "3", "\u0664", "99999999999999999999"):
        (folder / name).mkdir(parents=True)
    (folder / "8").touch()
    loaded = []

    def load(path, number):
        loaded.append((path.name, number))
        return Model(number)

    async def live(path):
        served = Versions(path, load)
        await served.refresh()
        await served.close()
        return served.name

    assert asyncio.run(live(folder)) == "2024"
    assert loaded == [("7", 7)]
    (folder / "3" / "manifest.json").touch()
    assert asyncio.run(live(folder / "3")) == "2024"
    assert loaded[1:] == [("3", 3)]
    (folder / "named").mkdir()
    (folder / "named" / "manifest.json").touch()
    with pytest.raises(ReleaseError, match="its name is no version number"):
        Versions(folder / "named", load)
