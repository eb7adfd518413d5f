"""Clients of a server that fails: what is asked again, what is not, and what the user is told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import grpc
import httpx2
import pytest
from model_servers import BREAKS, CLASSES, DRIP, RESET, Script, breaking_grpc_server, grpc_server, http_server

from tfapp.errors import ConfigError, DataError, ServingError
from tfapp.serving import AsyncClient, Client, Prediction
from tfapp.serving.client import base, rest
from tfapp.serving.client.exchange import Call, Exchange, _delay
from tfapp.serving.client.target import make_target

GOOD = Prediction("good", {"bad": 0.25, "good": 0.75})
BAD = Prediction("bad", {"bad": 0.875, "good": 0.125})
SERVERS = {"rest": http_server, "grpc": grpc_server}
FULL = "The batch scheduling queue to which this task was submitted is full"  # TF Serving's words
BUSY = {"rest": (503, FULL), "grpc": (grpc.StatusCode.UNAVAILABLE, FULL)}


def client(url, **options):
    return Client(url, "reviews", **{"classes": CLASSES, "feature": "text", "timeout": 10.0, **options})


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("protocol", SERVERS)
def test_answers_are_typed_and_in_order(protocol):
    texts = ["good", "", "zwölf", "a good one"] * 5
    expected = [GOOD, BAD, BAD, GOOD] * 5
    script = Script(delay=0.01)
    with SERVERS[protocol](script) as url, client(url) as ours:
        assert ours.predict(texts, batch_size=3) == expected
        assert sorted(itertools.chain(*script.texts)) == sorted(text.encode() for text in texts)
        assert {len(batch) for batch in script.texts} == {3, 2}
        assert ours.predict([]) == []


@pytest.mark.parametrize("protocol", SERVERS)
def test_an_async_client_answers_the_same(protocol):
    script = Script(BUSY[protocol])

    async def ask(url):
        async with AsyncClient(url, "reviews", classes=CLASSES, feature="text") as ours:
            every = [answer async for answer in ours.predict_each(["good", 5, "bad", "refuse"], batch_size=2)]
            return every, await ours.predict(["good"] * 7, batch_size=2)

    with SERVERS[protocol](script) as url:
        every, predictions = asyncio.run(ask(url))
    assert [every[0], every[2]] == [GOOD, BAD]
    assert str(every[1]) == "text 1 is int instead of str."
    assert str(every[3]) == "text 3: the image is damaged"
    assert predictions == [GOOD] * 7


@pytest.mark.parametrize("protocol", SERVERS)
def test_requests_are_under_way_at_once_but_no_more_than_allowed(protocol):
    script = Script(delay=0.05)
    with SERVERS[protocol](script) as url, client(url, max_in_flight=3) as ours:
        assert ours.predict(["good"] * 12, batch_size=1) == [GOOD] * 12
    assert 2 <= script.most_in_flight <= 3


@pytest.mark.parametrize("protocol", SERVERS)
def test_inputs_are_read_no_further_than_requests_are_under_way(protocol):
    taken = []

    def texts():
        for number in range(100):
            taken.append(number)
            yield "good"

    with SERVERS[protocol](Script()) as url, client(url, max_in_flight=2) as ours:
        answers = ours.predict_each(texts(), batch_size=5)
        assert next(answers) == GOOD
        assert len(taken) <= 15
        answers.close()
    assert len(taken) <= 15


@pytest.mark.parametrize("protocol", SERVERS)
def test_what_cannot_be_sent_or_is_refused_costs_no_other_its_answer(protocol):
    script = Script()
    with SERVERS[protocol](script) as url, client(url) as ours:
        answers = list(ours.predict_each(["good", "\ud800", "bad", "please refuse", "good"]))
        assert [answers[0], answers[2], answers[4]] == [GOOD, BAD, GOOD]
        assert isinstance(answers[1], DataError)
        assert "half a surrogate pair" in str(answers[1])
        assert isinstance(answers[3], DataError)
        assert str(answers[3]) == "text 3: the image is damaged"
        with pytest.raises(DataError, match="text 1: the image is damaged"):
            ours.predict(["good", "refuse"])
        with pytest.raises(DataError, match="put the single one into a list"):
            ours.predict("good")
        with pytest.raises(DataError, match="batch_size = 0"):
            ours.predict_each(["good"], batch_size=0)


@pytest.mark.parametrize("protocol", SERVERS)
@pytest.mark.parametrize("texts", [["good"], ["good"] * 32])
def test_a_refusal_of_everything_is_blamed_on_no_text(protocol, texts):
    script = Script()
    script.unwelcome = "Unrecognized servable version label: canray"
    with SERVERS[protocol](script) as url, client(url) as ours:
        answers = list(ours.predict_each(texts))
    assert [type(answer) for answer in answers] == [ServingError] * len(texts)
    assert "label: canray; check the model's name and version" in str(answers[0])
    assert len(script.seen) == 2


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_busy_server_is_asked_again_and_then_given_up(protocol):
    script = Script(BUSY[protocol], BUSY[protocol])
    with SERVERS[protocol](script) as url, client(url) as ours:
        assert ours.predict(["good"]) == [GOOD]
        assert len(script.seen) == 3
        script.failures = [BUSY[protocol]] * 9
        with pytest.raises(ServingError, match=r"is busy, asked 3 times: .*submitted is full.*max_in_flight"):
            client(url, retries=2).predict(["good"])
        assert len(script.seen) == 6
        with pytest.raises(ServingError, match="is busy: "):
            client(url, retries=0).predict(["good"])


@pytest.mark.parametrize(
    "reason", ["connection failure", "remote connection failure", "connection termination"]
)
def test_a_proxy_that_reached_no_server_is_asked_again_over_grpc_and_after_any_503(reason):
    words = f"upstream connect error or disconnect/reset before headers. reset reason: {reason}"
    script = Script((503, words))
    with http_server(script) as url, client(url) as ours:
        assert ours.predict(["good"]) == [GOOD]
    script = Script((grpc.StatusCode.UNAVAILABLE, words))
    with grpc_server(script) as url, client(url) as ours:
        if reason.endswith("termination"):
            with pytest.raises(ServingError, match="it was not asked again"):
                ours.predict(["good"])
            return
        assert ours.predict(["good"]) == [GOOD]
        script.failures = [(grpc.StatusCode.UNAVAILABLE, "no healthy upstream")] * 2
        with pytest.raises(ServingError, match=r"cannot be reached, asked 2 times: .*no healthy upstream"):
            client(url, retries=1).predict(["good"])


@pytest.mark.parametrize(("status", "dated"), [(429, False), (503, True)])
def test_retry_after_is_waited_for(status, dated):
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=3)
    after = format_datetime(moment, usegmt=True) if dated else "1"
    script = Script((status, "later", {"retry-after": after}))
    with http_server(script) as url, client(url) as ours:
        assert ours.predict(["good"]) == [GOOD]
    # A date has whole seconds, and some of the three are gone when it arrives.
    assert script.pauses[0] >= 1.0


@pytest.mark.parametrize("after", ["nan", "inf", "soon", "-5", "0", "Sun, 06 Nov 1994 08:49:37 GMT"])
def test_after_any_retry_after_there_is_a_pause_that_grows(after):
    busy = (429, "later", {"retry-after": after})
    script = Script(busy, busy)
    with http_server(script) as url, client(url) as ours:
        assert ours.predict(["good"]) == [GOOD]
    first, second = script.pauses
    assert first >= 0.05
    assert second >= 0.1


def test_clients_that_were_refused_together_do_not_come_back_together():
    delays = {_delay(1, 1.0) for _ in range(20)}
    assert len(delays) > 1
    assert min(delays) >= 1.0
    assert _delay(5000, None) <= 5.0


def test_grpcs_own_retry_after_is_waited_for_and_its_never_obeyed():
    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    script = Script((code, "later", (("grpc-retry-pushback-ms", "700"),)))
    with grpc_server(script) as url, client(url) as ours:
        assert ours.predict(["good"]) == [GOOD]
        assert script.pauses[0] >= 0.7
        script.failures = [(code, "never", (("grpc-retry-pushback-ms", "-1"),))]
        with pytest.raises(ServingError, match="is busy: RESOURCE_EXHAUSTED: never"):
            ours.predict(["good"])


def test_a_pause_longer_than_the_time_left_is_not_waited_for():
    script = Script((503, "later", {"retry-after": "60"}))
    with (
        http_server(script) as url,
        client(url) as ours,
        pytest.raises(ServingError, match="HTTP 503: later"),
    ):
        ours.predict(["good"])
    assert len(script.seen) == 1


@pytest.mark.parametrize(
    ("protocol", "failure", "words"),
    [
        ("rest", (500, "boom"), "failed: HTTP 500: boom; see the server's log"),
        ("rest", (404, "no such servable"), "lacks it: HTTP 404: no such servable; check the model's name"),
        (
            "rest",
            (401, "who?"),
            r"does not let you in: HTTP 401: who\?; give the token that the server wants",
        ),
        ("rest", (504, "slow"), "has not answered within 10 s: HTTP 504: slow"),
        ("rest", RESET, "broke the connection: .*; it was not asked again"),
        ("grpc", (grpc.StatusCode.INTERNAL, "boom"), "failed: INTERNAL: boom"),
        ("grpc", (grpc.StatusCode.NOT_FOUND, "no such servable"), "lacks it: NOT_FOUND: no such servable"),
        ("grpc", (grpc.StatusCode.UNAUTHENTICATED, "who?"), "does not let you in: UNAUTHENTICATED"),
        ("grpc", (grpc.StatusCode.ABORTED, "hm"), "failed: ABORTED: hm"),
        ("grpc", (grpc.StatusCode.UNAVAILABLE, "hm"), "broke the connection: UNAVAILABLE: hm; it was"),
    ],
)
def test_other_failures_are_told_and_not_asked_again(protocol, failure, words):
    script = Script(failure)
    with SERVERS[protocol](script) as url, client(url, version="stable") as ours:
        with pytest.raises(ServingError, match=rf"{url} \(model 'reviews', label 'stable'\) {words}"):
            ours.predict(["good"])
        assert len(script.seen) == 1
        assert ours.predict(["good"]) == [GOOD]


@pytest.mark.parametrize("how", BREAKS)
def test_a_grpc_connection_that_breaks_while_the_server_works_is_not_asked_again(how):
    with breaking_grpc_server(how) as (url, requests), client(url) as ours:
        with pytest.raises(ServingError, match=r"broke the connection: .*; it was not asked again"):
            ours.predict(["good"])
        assert len(requests) == 1


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_request_without_an_answer_costs_no_other_its_own(protocol):
    failure = (500, "boom") if protocol == "rest" else (grpc.StatusCode.INTERNAL, "boom")
    with SERVERS[protocol](Script(failure)) as url, client(url, max_in_flight=1) as ours:
        answers = list(ours.predict_each(["good"] * 4, batch_size=2))
    assert [type(answer) for answer in answers] == [ServingError, ServingError, Prediction, Prediction]


@pytest.mark.parametrize("protocol", SERVERS)
def test_a_slow_answer_is_given_up_and_not_asked_for_again(protocol):
    script = Script(delay=0.6)
    with SERVERS[protocol](script) as url, client(url, timeout=0.2) as ours:
        with pytest.raises(ServingError, match=r"has not answered within 0\.2 s"):
            ours.predict(["good"])
        assert len(script.seen) == 1


def ask_blocking(url, **options):
    return client(url, **options).predict(["good"])


def ask_awaiting(url, **options):
    async def ask():
        async with AsyncClient(url, "reviews", classes=CLASSES, feature="text", **options) as ours:
            return await ours.predict(["good"])

    return asyncio.run(ask())


@pytest.mark.parametrize("ask", [ask_blocking, ask_awaiting])
def test_an_answer_that_comes_byte_by_byte_is_given_up(ask):
    with (
        http_server(Script(DRIP)) as url,
        pytest.raises(ServingError, match=r"has not answered within 0\.5 s"),
    ):
        ask(url, timeout=0.5)


def test_each_step_of_a_request_has_the_time_that_the_steps_before_it_have_left(monkeypatch):
    now, found = [100.0], []

    def answer(request):
        limits = request.extensions["timeout"]
        for step, moment in (("pool", 100.0), ("connect", 103.0), ("write", 104.0), ("read", 109.5)):
            now[0] = moment
            found.append(limits.get(step))
        now[0] = 111.0
        assert 0 < limits.get("read") < 0.01
        return httpx2.Response(200, content=b"{}")

    monkeypatch.setattr(rest.time, "monotonic", lambda: now[0])
    target = make_target(
        "http://x", "reviews", version=None, token=None, ca_file=None, cert_file=None, key_file=None
    )
    transport = rest.RestTransport(target, 1)
    transport.close()
    transport._client = httpx2.Client(transport=httpx2.MockTransport(answer))
    failure = transport.send(Call("metadata"), 10.0)
    assert found == [10.0, 7.0, 6.0, 0.5]
    assert (failure.kind, failure.message) == ("late", "its answer had not ended")


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_server_that_is_not_there_is_looked_for_again(scheme):
    url = f"{scheme}://127.0.0.1:{free_port()}"
    with pytest.raises(ServingError, match=r"cannot be reached, asked 2 times: .*check the address"):
        client(url, retries=1).predict(["good"])


@pytest.mark.parametrize("protocol", SERVERS)
def test_the_token_and_the_version_go_with_every_request(protocol):
    script = Script()
    with SERVERS[protocol](script) as url, client(url, token="secret", version="can/ary") as ours:
        ours.predict(["good", "bad"], batch_size=1)
    assert [headers["authorization"] for _, headers, _ in script.seen] == ["Bearer secret"] * 2
    if protocol == "rest":
        assert script.seen[0][1]["path"] == "/v1/models/reviews/labels/can%2Fary:predict"


def test_a_token_that_others_can_read_is_warned_of(caplog):
    Client("http://127.0.0.1", "reviews", token="secret")
    Client("https://example.org", "reviews", token="secret")
    assert not caplog.records
    Client("http://example.org", "reviews", token="secret")
    assert "the token is sent to example.org unencrypted" in caplog.text


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the certificate, is not installed")
    folder = tmp_path_factory.mktemp("tls")
    paths = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext "
        f"subjectAltName=IP:127.0.0.1 -keyout {paths[0]} -out {paths[1]}".split(),
        check=True,
        capture_output=True,
    )
    return paths


@pytest.mark.parametrize("protocol", SERVERS)
def test_tls_trusts_the_given_certificate_and_no_other(protocol, certificate):
    key, chain = certificate
    if protocol == "rest":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        serving = http_server(Script(), tls=context)
    else:
        pair = (key.read_bytes(), chain.read_bytes())
        serving = grpc_server(Script(), credentials=grpc.ssl_server_credentials([pair]))
    with serving as url:
        with client(url, ca_file=chain) as ours:
            assert ours.predict(["good"]) == [GOOD]
        with client(url, retries=0) as ours, pytest.raises(ServingError, match="cannot be reached"):
            ours.predict(["good"])


def test_classes_that_do_not_fit_are_noticed():
    with http_server(Script()) as url:
        for classes in (("bad", "fine"), ("good", "bad"), ("bad", "good", "fine")):
            with pytest.raises(ServingError, match="answers with other classes than"):
                client(url, classes=classes).predict(["good"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"url": "localhost:8501"}, r"'localhost:8501' is no address of a server .*'http://localhost:8501'"),
        ({"url": "htp://localhost"}, "did you mean 'http'"),
        ({"url": "http://localhost:x"}, "give a port such as 8501"),
        ({"url": "http://"}, "the host is missing"),
        ({"model": ""}, "model is empty"),
        ({"retries": -1}, "retries = -1"),
        ({"max_in_flight": 0}, "max_in_flight = 0"),
        ({"timeout": 0}, "timeout = 0"),
        ({"classes": []}, "give a list of the classes' names"),
        ({"classes": "good"}, "give a list of the classes' names"),
        ({"feature": "image"}, "did you mean 'image_bytes'"),
        ({"ca_file": "ca.pem"}, "is not encrypted"),
        ({"url": "https://localhost", "cert_file": "me.pem"}, "go together"),
    ],
)
def test_bad_arguments_are_refused(arguments, words):
    with pytest.raises(ConfigError, match=words):
        Client(**{"url": "http://localhost", "model": "reviews", **arguments})


@pytest.mark.parametrize("url", ["https://localhost", "grpcs://localhost"])
def test_a_certificate_that_is_not_there_is_named(url):
    with pytest.raises(ConfigError, match=r"ca\.pem cannot be used \(No such file"):
        client(url, ca_file="ca.pem").predict(["good"])


def test_a_client_needs_no_tensorflow():
    code = (
        "import sys\nfrom tfapp.serving import AsyncClient, Client, Prediction\n"
        "for scheme in ('http', 'grpc'):\n"
        "    try:\n        Client(f'{scheme}://127.0.0.1:1', 'm', retries=0).predict(['a'])\n"
        "    except Exception as error:\n        print(type(error).__name__)\n"
        "print(sorted({'tensorflow', 'keras', 'pandas', 'scipy', 'tfapp.release'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split("\n") == ["ServingError", "ServingError", "[]", ""]


def answered(outcomes, steps):
    """Runs steps with outcomes prepared for each of their calls, and returns the calls and the result."""
    calls, outcome = [], None
    outcomes = iter(outcomes)
    while True:
        try:
            step = steps.send(outcome)
        except StopIteration as done:
            return calls, done.value
        calls.append(step.call)
        outcome = next(outcomes)


def exchange(**options):
    target = make_target(
        "http://localhost",
        "reviews",
        **dict.fromkeys(("version", "token", "ca_file", "cert_file", "key_file")),
    )
    return Exchange(target, 10.0, 0, **{"feature": None, "classes": None, **options})


SIGNATURES = {"serving_default": ("text",), "classify": ("inputs",)}


def test_feature_and_classes_are_asked_for_once():
    ours = exchange()
    calls, _ = answered([SIGNATURES, {"classes": [[b"bad", b"good"]]}], ours.learn())
    assert [call.kind for call in calls] == ["metadata", "predict"]
    assert (ours.feature, ours.classes) == ("text", CLASSES)
    assert answered([], ours.learn())[0] == []


def test_classes_are_asked_for_again_when_another_version_answers():
    ours = exchange(feature="text", classes=None)
    ours.classes = CLASSES
    served = {"label": ["fine"], "probabilities": [[0.1, 0.2, 0.7]]}
    outcomes = [served, SIGNATURES, {"classes": [[b"bad", b"poor", b"fine"]]}]
    calls, answers = answered(outcomes, ours.classify([b"x"], ["text 0"]))
    assert len(calls) == 3
    assert answers == [Prediction("fine", {"bad": 0.1, "poor": 0.2, "fine": 0.7})]


def test_classes_that_another_thread_learns_meanwhile_do_no_harm():
    """Version 2 takes over and is learned of elsewhere, while version 1 is at work on a request of here."""
    ours = exchange(feature="text", classes=None)
    ours.classes = CLASSES
    steps = ours.classify([b"x"], ["text 0"])
    next(steps)
    ours.classes = ("bad", "poor", "fine")
    with pytest.raises(StopIteration) as done:
        steps.send({"label": ["good"], "probabilities": [[0.25, 0.75]]})
    assert done.value.value == [GOOD]


def test_threads_that_start_together_share_one_connection(monkeypatch):
    made, both = [], threading.Barrier(2)

    def transport(_target, _connections):
        made.append(1)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # broken by the time where the second is kept out, as it should be
        return object()

    monkeypatch.setattr(base, "_transport", lambda *_arguments: transport)
    ours = client("http://localhost")
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: ours._connect("", ""), range(2))
    assert first is second
    assert made == [1]


def test_a_model_of_others_and_one_that_does_not_tell_its_classes_are_named():
    with pytest.raises(ServingError, match="takes pixels, size instead of 'text' or 'image_bytes'"):
        answered([{"serving_default": ("size", "pixels")}], exchange().learn())
    with pytest.raises(ServingError, match=r"give them as classes=\[\.\.\.\], .*edge/labels\.txt"):
        answered([{"serving_default": ("text",)}], exchange().learn())
