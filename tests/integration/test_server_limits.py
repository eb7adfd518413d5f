"""What one client can take from the others: memory, threads, the event loop, words."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import logging
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import grpc
import numpy as np
import pytest
import tensorflow as tf
from asgi import ask
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from tfapp.errors import ReleaseError
from tfapp.serving.server import Batching, Limits, ServerSettings, json_answers, json_requests
from tfapp.serving.server import core as core_module
from tfapp.serving.server import grpc_services as grpc_module
from tfapp.serving.server.grpc_services import GrpcServices
from tfapp.serving.server.lifecycle import Server
from tfapp.serving.server.loaded import LoadedModel
from tfapp.serving.server.messages import model_status
from tfapp.serving.server.request_checks import check_features
from tfapp.serving.server.rest import RestApp
from tfapp.serving.server.signatures import Signature, refusal
from tfapp.serving.server.status import Code, RequestError, invalid
from tfapp.serving.server.tensors import array_of
from tfapp.serving.server.versions import Versions
from tfapp.serving.server.work import Work

MODEL = "/v1/models/tiny"
PREDICT = f"{MODEL}:predict"
LONGEST = 24


def predict(core, payload, **options):
    return asyncio.run(ask(RestApp(core), "POST", PREDICT, payload, **options))


def ids(rows, columns):
    inputs = {
        name: np.ones((rows, columns), int).tolist() for name in ("token_ids", "padding_mask", "segment_ids")
    }
    return {"signature_name": "serve_ids", "inputs": inputs}


class AtOnce:
    """Counts how many calls run at once, and the rows of each."""

    def __init__(self, call):
        self.call = call
        self.running = self.most = 0
        self.rows = []
        self._lock = threading.Lock()

    def __call__(self, *inputs):
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.rows.append(len(inputs[0]))
        try:
            return self.call(*inputs)
        finally:
            with self._lock:
                self.running -= 1


@pytest.fixture
def blocked(loaded, monkeypatch):
    """The default signature computes nothing before the event is set."""
    signature = loaded.signatures["serving_default"]
    go, run = threading.Event(), signature.run

    def wait(inputs):
        assert go.wait(60)
        return run(inputs)

    monkeypatch.setattr(signature, "run", wait)
    yield go
    go.set()


async def until(condition):
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def test_rows_longer_than_the_model_reads_are_refused(served):
    core = served()
    assert predict(core, ids(2, LONGEST)).status == 200
    answer = predict(core, ids(2, LONGEST + 1))
    assert answer.status == 400
    assert "25 columns; the model reads at most 24" in answer.json["error"]


def one_for_all(*shape):
    """A request by tensors, each of one number that stands for all of its shape."""
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "tiny", "serve_ids"
    for name in ("token_ids", "padding_mask", "segment_ids"):
        tensor = tf.make_tensor_proto(np.ones([1] * len(shape), np.int32))
        for dimension, size in zip(tensor.tensor_shape.dim, shape, strict=True):
            dimension.size = size
        message.inputs[name].CopyFrom(tensor)
    return message


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1024, 512), "512 columns; the model reads at most 24"),
        ((10**6, 8), "1000000 rows; at most 1024 are taken"),
        ((8,), "must have the shape [?,?], not [8]"),
    ],
)
def test_a_message_is_refused_for_its_shape_before_its_values_are_read(served, monkeypatch, shape, words):
    monkeypatch.setattr(grpc_module, "array_of", lambda *_: pytest.fail("values were read"))
    with pytest.raises(RequestError) as refused:
        asyncio.run(GrpcServices(served()).predict(one_for_all(*shape), None))
    assert words in refused.value.message


def test_values_are_read_in_slices_and_the_last_stands_for_the_rest():
    values = np.arange(100_000, dtype=np.int32)
    tensor = tensor_pb2.TensorProto(dtype=tf.int32.as_datatype_enum, int_val=values.tolist())
    tensor.tensor_shape.dim.add(size=50_010)
    tensor.tensor_shape.dim.add(size=2)
    np.testing.assert_array_equal(array_of(tensor, "ids").ravel()[:100_000], values)
    np.testing.assert_array_equal(array_of(tensor, "ids").ravel()[100_000:], [99_999] * 20)
    tensor.tensor_shape.dim[0].size = 1 << 23
    with pytest.raises(RequestError, match="at most 33554432 bytes may be left out: send all values"):
        array_of(tensor, "ids")
    tensor.tensor_shape.dim[0].size = 49_999
    with pytest.raises(RequestError, match="100000 values for the shape"):
        array_of(tensor, "ids")


def tensor_of(kind, shape, **values):
    tensor = tensor_pb2.TensorProto(dtype=kind.as_datatype_enum, **values)
    for size in shape:
        tensor.tensor_shape.dim.add(size=size)
    return tensor


@pytest.mark.parametrize(
    "tensor",
    [
        tensor_of(tf.string, [3], string_val=[b"a text"]),
        tensor_of(tf.string, [2, 2], string_val=[b"a", b"text\0"]),
        tensor_of(tf.string, [2]),
        tensor_of(tf.int32, [2, 3]),
        tensor_of(tf.float32, [2, 2], float_val=[1.5, 2.5]),
        tensor_of(tf.bool, [], bool_val=[True]),
        tensor_of(tf.uint8, [0, 4]),
    ],
)
def test_what_a_tensor_leaves_out_is_filled_in_as_tensorflow_does(tensor):
    expected = tf.io.parse_tensor(tensor.SerializeToString(), tf.dtypes.as_dtype(tensor.dtype))
    read = array_of(tensor, "it")
    assert read.shape == tuple(expected.shape)
    assert read.tolist() == expected.numpy().tolist()


def test_one_text_may_stand_for_all_rows_but_not_for_gigabytes(served):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "tiny"
    message.inputs["text"].CopyFrom(tensor_of(tf.string, [3], string_val=[b"a good film"]))
    code, answer = by_grpc(served(), "Predict", message.SerializeToString())
    assert (code, len(answer.outputs["label"].string_val)) == (grpc.StatusCode.OK, 3)
    large = tensor_of(tf.string, [1024], string_val=[bytes(1 << 16)])
    with pytest.raises(RequestError, match="at most 33554432 bytes may be left out"):
        array_of(large, "image_bytes")
    with pytest.raises(RequestError, match="strings are taken in string_val"):
        array_of(tensor_of(tf.string, [1], tensor_content=b"x"), "text")


@pytest.fixture
def directly(loaded, monkeypatch):
    """Counts what `serve_ids` computes."""
    signature = loaded.signatures["serve_ids"]
    counted = AtOnce(signature._direct)
    monkeypatch.setattr(signature, "_direct", counted)
    assert not signature.joins
    return counted


def test_what_is_not_joined_is_computed_in_batches_as_many_at_once_as_there_are_threads_for_them(
    served, loaded, directly
):
    """Rows of different lengths are not joined, but their memory is bounded all the same."""
    core, payload = served(), ids(20, 6)
    payload["inputs"]["token_ids"] = [[2, *([5 + row] * 4), 3] for row in range(20)]

    async def together():
        calls = (ask(RestApp(core), "POST", PREDICT, payload) for _ in range(6))
        return await asyncio.gather(*calls)

    answers = asyncio.run(together())
    assert directly.most <= 2
    assert sorted(directly.rows) == [4] * 6 + [8] * 12
    signature = loaded.signatures["serve_ids"]
    arrays = [np.array(payload["inputs"][alias], np.int32) for alias in signature.inputs]
    whole = signature.named(signature.run(arrays))["probabilities"]
    for answer in answers:
        np.testing.assert_allclose(answer.json["outputs"]["probabilities"], whole, atol=1e-5)


class Numbers(tf.Module):
    """Reads numbers from strings, and refuses those that hold none."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(self, text):
        return {"number": tf.strings.to_number(text)}


@pytest.fixture
def numbers(tmp_path):
    """Makes a signature that reads numbers, and counts what it computes by itself."""
    module = Numbers()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with contextlib.ExitStack() as stack:
        session = stack.enter_context(tf.compat.v1.Session(graph=tf.Graph()))
        alone, again = (stack.enter_context(ThreadPoolExecutor(threads)) for threads in (2, 1))
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))

        def make(**batching):
            signature = Signature(
                meta.signature_def["serving_default"],
                session,
                batching=Batching(**batching),
                alone=alone,
                again=again,
                by_length=False,
                key=str(tmp_path),
            )
            signature._direct = AtOnce(signature._direct)
            return signature

        yield make


def test_what_spoils_a_batch_is_found_by_halves_one_run_at_a_time(numbers):
    signature = numbers(max_batch_size=32, batch_timeout_micros=200_000)
    texts, all_wait = [b"none", *(b"%d" % number for number in range(31))], threading.Event()
    signature._again.submit(all_wait.wait, 60)
    with ThreadPoolExecutor(32) as pool:
        calls = [signature.submit([np.array([text], object)], pool) for text in texts]
        asyncio.run(until(lambda: len(signature._refused) + sum(call.done() for call in calls) == 32))
        refused = len(signature._refused)
        all_wait.set()
    assert isinstance(calls[0].exception(), RequestError)
    assert [call.result()[0][0] for call in calls[1:]] == list(range(31))
    assert (sum(signature._direct.rows[:1]), signature._direct.most) == (refused, 1)
    assert len(signature._direct.rows) <= 1 + 2 * 5


def test_batches_that_were_refused_do_not_wait_for_what_is_not_joined(numbers):
    signature, busy = numbers(max_batch_size=4), threading.Event()
    for _ in range(2):
        signature._alone.submit(busy.wait, 60)
    with ThreadPoolExecutor(1) as pool:
        call = signature.submit([np.array([b"none"], object)], pool)
        assert isinstance(call.exception(60), RequestError)
        more = [np.array([b"%d" % number for number in range(5)], object)]
        assert signature.submit(more, pool).result(60)[0].tolist() == list(range(5))  # beyond a batch
    assert not busy.is_set()
    busy.set()


def test_with_batches_of_one_each_row_is_computed_by_itself(served, loaded, numbers, monkeypatch):
    signature = numbers(max_batch_size=1)
    monkeypatch.setitem(loaded.signatures, "numbers", signature)
    payload = {"signature_name": "numbers", "instances": [str(number) for number in range(50)]}
    assert predict(served(), payload).json["predictions"] == list(range(50))
    assert (signature._direct.rows, signature._direct.most <= 2) == ([1] * 50, True)


def test_of_many_failures_of_one_request_none_is_left_unheard(served):
    """Five parts are refused; the first is the answer, and the others are no news for the log."""
    core, heard = served(), []

    async def live():
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: heard.append(context))
        payload = {"signature_name": "serve_examples", "instances": [f"no example {n}" for n in range(40)]}
        answer = await ask(RestApp(core), "POST", PREDICT, payload)
        await until(lambda: not core.waiting)
        gc.collect()
        await asyncio.sleep(0)
        return answer

    assert asyncio.run(live()).status == 400
    assert heard == []


def test_a_computation_counts_until_it_ends_though_its_answer_was_given_up(
    served, loaded, blocked, monkeypatch
):
    closed = []
    monkeypatch.setattr(loaded, "close", lambda: closed.append(blocked.is_set()))
    core = served(limits=Limits(seconds=0.05, waiting_rows=3))
    app = RestApp(core)

    async def live():
        late = await ask(app, "POST", PREDICT, {"instances": ["x", "y"]})
        assert late.status == 504
        assert "not answered within 0.05 seconds" in late.json["error"]
        assert (core.waiting, loaded.requests) == (2, 1)
        assert (await ask(app, "POST", PREDICT, {"instances": ["x", "y"]})).status == 429
        closing = asyncio.create_task(core.versions.close())
        await asyncio.sleep(0.1)
        assert closed == []
        blocked.set()
        async with asyncio.timeout(60):
            await closing
        assert (core.waiting, loaded.requests, closed) == (0, 0, [True])

    asyncio.run(live())


def test_a_request_that_is_cancelled_counts_until_its_computation_ends(served, loaded, blocked):
    core = served()

    async def live():
        asking = asyncio.create_task(ask(RestApp(core), "POST", PREDICT, {"instances": ["x"]}))
        await until(lambda: core.waiting)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert (core.waiting, loaded.requests) == (1, 1)
        blocked.set()
        await until(lambda: not core.waiting)
        assert loaded.requests == 0

    asyncio.run(live())


def test_what_has_not_begun_is_taken_back():
    async def live():
        ended, begun, waiting = [], Future(), Future()
        begun.set_running_or_notify_cancel()
        work = Work(lambda: ended.append(True))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await work.results([begun, waiting])
        work.leave()
        await asyncio.sleep(0)
        assert (waiting.cancelled(), ended) == (True, [])
        begun.set_result(None)
        await until(lambda: ended)
        assert ended == [True]

    asyncio.run(live())


def one_text(text):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "tiny"
    message.inputs["text"].CopyFrom(tf.make_tensor_proto([text]))
    return message.SerializeToString()


def test_an_expired_deadline_is_answered_without_computing(served, loaded, monkeypatch):
    signature = loaded.signatures["serving_default"]
    monkeypatch.setattr(signature, "submit", lambda *_: pytest.fail("it was computed"))
    for seconds in (0.0, -1.0):
        code, words = by_grpc(served(), "Predict", one_text(b"x"), seconds=seconds)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "within 0 seconds" in words


def test_the_deadline_that_a_client_gave_is_named(served, blocked):
    assert "within 0.02 seconds" in by_grpc(served(), "Predict", one_text(b"x"), seconds=0.02)[1]


@pytest.mark.parametrize("step", [(json_requests, "parse"), (json_answers, "predictions")])
def test_reading_and_writing_are_timed_too(served, monkeypatch, step):
    """The time limit holds also for what waits for the threads that read and write."""
    go, core = threading.Event(), served(limits=Limits(seconds=0.05))
    monkeypatch.setattr(*step, lambda *_: go.wait(60))
    monkeypatch.setattr(core_module, "_LARGE", 10)

    async def late():
        answer = await ask(RestApp(core), "POST", PREDICT, {"instances": ["x"]})
        assert (answer.status, go.is_set(), core.requests) == (504, False, 1)
        go.set()
        await until(lambda: not core.requests)

    asyncio.run(late())


def test_what_is_read_for_a_request_that_was_cancelled_counts_and_what_waits_is_let_go(served, monkeypatch):
    monkeypatch.setattr(core_module, "_LARGE", 0)
    core, go, kept = served(), threading.Event(), []

    async def receive():
        with core.request() as request:
            request.take(100)
            body = np.zeros(100)
            kept.append(weakref.ref(body))
            await request.aside(100, lambda _: go.wait(60), body)

    async def cancelled():
        receiving = [asyncio.create_task(receive()) for _ in range(3)]  # two threads: the third waits
        await until(lambda: len(kept) == 3)
        assert all(each.cancel() for each in receiving)
        await asyncio.wait(receiving)
        receiving.clear()
        await until(lambda: core.requests == 2)
        gc.collect()
        assert (core.body_bytes, [body() is None for body in kept]) == (200, [False, False, True])
        go.set()
        await until(lambda: not core.requests)
        assert core.body_bytes == 0

    asyncio.run(cancelled())


def test_images_do_not_wait_for_large_messages(served, monkeypatch):
    core, go = served(), threading.Event()
    for _ in range(2):
        core.reading.submit(go.wait, 60)
    monkeypatch.setattr(core_module, "check_features", lambda *_: None)
    monkeypatch.setattr(LoadedModel, "feature", "image_bytes")
    assert predict(core, {"instances": ["x"]}).status == 200
    assert not go.is_set()
    go.set()


def test_images_are_counted_and_timed_while_they_are_looked_at(served, loaded, monkeypatch):
    go, seen = threading.Event(), []
    core = served(limits=Limits(seconds=0.05, waiting_rows=3))

    def look(*_):
        seen.append(core.waiting)
        assert go.wait(60)

    monkeypatch.setattr(core_module, "check_features", look)
    monkeypatch.setattr(LoadedModel, "feature", "image_bytes")

    async def live():
        app = RestApp(core)
        assert (await ask(app, "POST", PREDICT, {"instances": ["x", "y"]})).status == 504
        assert (await ask(app, "POST", PREDICT, {"instances": ["x", "y"]})).status == 429
        go.set()
        await until(lambda: not core.waiting)

    asyncio.run(live())
    assert seen == [2]


def example(**features):
    made = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        for name, value in features.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


@pytest.mark.parametrize("alias", ["image_bytes", "examples", "inputs"])
def test_images_are_as_small_inside_of_examples(alias):
    def check(*images):
        values = images if alias == "image_bytes" else [example(image_bytes=image) for image in images]
        inputs = {alias: np.array([*values, None], object)[:-1]}
        model, signature = SimpleNamespace(feature="image_bytes"), SimpleNamespace(of_strings=True)
        check_features(model, signature, inputs, Limits(pixels=30_000))

    small, large = (tf.io.encode_png(np.zeros((side, side, 3), np.uint8)).numpy() for side in (100, 200))
    check(small, small)
    with pytest.raises(RequestError, match=f"{alias} 1: .*200 x 200 pixels, more than max_pixels = 30,000"):
        check(small, large)
    with pytest.raises(RequestError, match=f"{alias} 0: "):
        check(b"\xff\xd8\xff" + bytes(80))


def test_examples_that_cannot_be_read_are_refused_with_their_place():
    model, signature = SimpleNamespace(feature="image_bytes"), SimpleNamespace(of_strings=True)
    for value in (b"no example", example(other=b"x")):
        with pytest.raises(RequestError, match="examples 0: ") as refused:
            check_features(model, signature, {"examples": np.array([value, None], object)[:1]}, Limits())
        assert refused.value.code is Code.INVALID_ARGUMENT


def test_all_bodies_together_are_bounded(served):
    core = served(limits=Limits(body_bytes=200))
    payload = {"instances": ["a good film"]}
    with core.request() as request:
        request.take(8 * 200 - 10)
        full = predict(core, payload)
        refused, _words = by_grpc(core, "Predict", one_for_all(2, 2).SerializeToString())
    assert (full.status, full.headers["connection"], full.headers["retry-after"]) == (429, "close", "1")
    assert refused is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert predict(core, payload).status == 200
    assert (core.body_bytes, core.requests) == (0, 0)


class Context:
    """A call as gRPC's server hands it to a handler."""

    def __init__(self, seconds=None, **metadata):
        self.seconds = seconds
        self.metadata = metadata

    def invocation_metadata(self):
        return list(self.metadata.items())

    def time_remaining(self):
        return self.seconds

    async def abort(self, code, words):
        raise AbortedError(code, words)


class AbortedError(Exception):
    """What a call of gRPC ended with."""


def by_grpc(core, method, message, **metadata):
    """Calls a handler as gRPC does; returns the status and the words, or the answer."""
    name = f"/tensorflow.serving.PredictionService/{method}"
    (found,) = [
        handler
        for each in GrpcServices(core).handlers()
        if (handler := each.service(SimpleNamespace(method=name, invocation_metadata=())))
    ]
    try:
        return grpc.StatusCode.OK, asyncio.run(found.unary_unary(message, Context(**metadata)))
    except AbortedError as aborted:
        return aborted.args


@contextlib.asynccontextmanager
async def listening(server):
    """A server that listens in this process."""
    started = asyncio.Event()
    running = asyncio.create_task(server.run(started.set))
    try:
        waiting = asyncio.create_task(started.wait())
        await asyncio.wait([running, waiting], return_when=asyncio.FIRST_COMPLETED)
        assert waiting.done()
        yield
    finally:
        server.stop()
        await running


async def begin(server, head, *, length=0):
    """Opens a connection and sends the head of a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode())
    return reader, writer


async def status_of(reader):
    async with asyncio.timeout(60):
        return int((await reader.readline()).split()[1])


def test_idle_connections_and_watched_health_leave_the_server_to_others(folder, loaded, monkeypatch):
    """Twenty sockets and streams without a request, with two requests allowed; then three requests."""
    monkeypatch.setattr(loaded, "close", lambda: None)
    monkeypatch.setattr(loaded, "requests", 0)  # loops of other tests ended before what was given up
    monkeypatch.setattr(Server, "_load", lambda *_: loaded)
    server = Server(ServerSettings(folder, port=0, grpc_port=0, limits=Limits(requests=2)))
    body = b'{"instances": ["x"]}'

    async def ask_all(channel):
        idle = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(20)]
        watches = [health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()) for _ in idle]
        for watch in watches:
            await watch.read()
        predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict
        assert (await predict(one_for_all(1, 2), timeout=60)).outputs
        slow = [await begin(server, f"POST {PREDICT}", length=len(body)) for _ in range(2)]
        await until(lambda: server.core.requests == 2)
        refused, _ = await begin(server, f"POST {PREDICT}", length=len(body))
        assert await status_of(refused) == 429
        with pytest.raises(grpc.RpcError) as full:
            await predict(one_for_all(1, 2), timeout=60)
        assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        health, _ = await begin(server, "GET /healthz")
        assert await status_of(health) == 200
        server.stop()  # what was let in is answered, also when its body comes later
        await until(lambda: server.core.draining)
        for reader, writer in slow:
            writer.write(body)
            assert await status_of(reader) == 200
        for watch in watches:
            watch.cancel()

    async def run():
        async with listening(server), grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
            await ask_all(channel)

    asyncio.run(run())


def test_a_request_is_refused_at_the_door_of_a_server_that_ends(served):
    core = served()
    core.draining = True
    refused = predict(core, {"instances": ["x"]})
    assert (refused.status, refused.headers["connection"]) == (503, "close")
    assert by_grpc(core, "Predict", b"")[0] is grpc.StatusCode.UNAVAILABLE


def test_what_is_large_is_read_and_written_off_the_event_loop(served, monkeypatch):
    threads = {}

    def noted(module, name):
        call = getattr(module, name)

        def note(*arguments):
            threads.setdefault(name, set()).add(threading.current_thread() is threading.main_thread())
            return call(*arguments)

        monkeypatch.setattr(module, name, note)

    noted(json_requests, "parse")
    noted(json_answers, "predictions")
    core = served()
    assert predict(core, {"instances": ["x"]}).status == 200
    assert threads == {"parse": {True}, "predictions": {True}}
    threads.clear()
    monkeypatch.setattr(core_module, "_LARGE", 10)
    assert predict(core, {"instances": ["x"]}).status == 200
    assert threads == {"parse": {False}, "predictions": {False}}


@pytest.mark.parametrize("end", ["]]}", ""])
def test_cycles_are_not_looked_for_while_json_is_read(end):
    """A hundred thousand lists are made; the collector would begin more than fifty times."""
    body, begun = b'{"instances": [' + b"[]," * 100_000 + b"[" + end.encode(), []

    def note(phase, _info):
        begun.append(phase)

    gc.callbacks.append(note)
    try:
        with contextlib.nullcontext() if end else pytest.raises(RequestError, match="JSON Parse error"):
            json_requests.parse(body)
    finally:
        gc.callbacks.remove(note)
    assert begun.count("start") < 5
    assert gc.isenabled()


def test_errors_are_short_and_tell_nothing_of_the_server(caplog):
    long = invalid("\N{SNOWMAN}" * 10_000).message
    assert len(long.encode()) <= 1000
    assert set(long) == {"\N{SNOWMAN}"}
    assert invalid("\ud800").message == "?"
    with caplog.at_level(logging.ERROR):
        inside = refusal(tf.errors.InternalError(None, None, "/secret/path"))
    assert (inside.code, "secret" in inside.message) == (Code.INTERNAL, False)
    assert "/secret/path" in caplog.text
    wrong = refusal(tf.errors.InvalidArgumentError(None, None, "it is wrong\n\t [[{{node a/b}}]]"))
    assert wrong.message == "it is wrong"
    assert refusal(tf.errors.InvalidArgumentError(None, None, "wrong [[{{node a/b}}]]")).message == "wrong"


@pytest.mark.parametrize("error", [ReleaseError, RuntimeError])
def test_the_status_of_a_version_does_not_tell_where_it_lies(folder, error):
    def load(path, _number):
        raise error(f"{path} is damaged")

    async def live():
        versions = Versions(folder, load)
        await versions.refresh()
        return model_status(versions, "tiny").model_version_status[0].status.error_message

    words = asyncio.run(live())
    assert words
    assert str(folder.parent) not in words


def test_a_long_name_from_a_client_fits_the_metadata_of_grpc(served):
    message = one_for_all(2, 2)
    message.inputs["x" * 10**6].CopyFrom(message.inputs["token_ids"])
    code, words = by_grpc(served(), "Predict", message.SerializeToString())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert len(words) <= 1000


@pytest.mark.parametrize("colon", ["%3A", "%3a"])
def test_an_encoded_colon_separates_the_verb(served, colon):
    core = served()
    app = RestApp(core)
    path = f"{MODEL}/versions/1{colon}predict"
    assert asyncio.run(ask(app, "POST", path, {"instances": ["x"]})).status == 200
    wrong = asyncio.run(ask(app, "GET", path))
    assert (wrong.status, wrong.headers["allow"]) == (405, "POST")
    assert 'request_latency_count{model_name="tiny",API="predict",entrypoint="REST"} 1' in core.metrics_page()


def test_bodies_may_be_compressed_within_the_limits(served):
    core = served(limits=Limits(body_bytes=1000))
    zipped = {"Content-Encoding": "GZip"}
    body = gzip.compress(b'{"instances": ["a good film"]}')
    assert predict(core, body, headers=zipped).status == 200
    for payload, status, words in (
        (gzip.compress(b" " * 500_000), 413, "larger than 1000 bytes"),
        (body[:-9], 400, "no gzip: it is cut short"),
        (body + b"more", 400, "goes on after its end"),
        (b"{}", 400, "no gzip"),
    ):
        answer = predict(core, payload, headers=zipped)
        assert (answer.status, words in answer.json["error"]) == (status, True), answer.json
    other = predict(core, body, headers={"Content-Encoding": "br"})
    assert (other.status, "gzip or identity" in other.json["error"]) == (415, True)
    assert core.body_bytes == 0


def test_the_scheme_of_a_token_may_be_written_in_any_case(served):
    core = served(token="secret")
    for scheme in ("Bearer", "bearer", "BEARER"):
        given = f"{scheme} secret"
        assert predict(core, {"instances": ["x"]}, headers={"Authorization": given}).status == 200
        assert by_grpc(core, "Predict", b"", authorization=given)[0] is grpc.StatusCode.INVALID_ARGUMENT
    for given in ("bearer Secret", "Basic secret", "secret", "bearer"):
        assert predict(core, {"instances": ["x"]}, headers={"Authorization": given}).status == 401
        assert by_grpc(core, "Predict", b"", authorization=given)[0] is grpc.StatusCode.UNAUTHENTICATED
    assert by_grpc(core, "Predict", b"")[0] is grpc.StatusCode.UNAUTHENTICATED
