"""The server without sockets: what it answers, what it refuses, and how versions come and go."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import jsonschema
import numpy as np
import pytest
import tensorflow as tf
from asgi import ask
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    predict_pb2,
)

from tfapp.release.integrity import check_servable
from tfapp.serving import load_release
from tfapp.serving.client.channel import _UNTOUCHED
from tfapp.serving.server import Batching, Limits
from tfapp.serving.server.grpc_services import GrpcServices
from tfapp.serving.server.rest import METRICS, RestApp
from tfapp.serving.server.signatures import Signature
from tfapp.serving.server.status import RequestError
from tfapp.serving.server.versions import Versions

MODEL = "/v1/models/tiny"
PREDICT = f"{MODEL}:predict"
TEXTS = (
    "a good film",
    "",
    "the market fell",
    "the team won the game and the season was long " * 4,
    "an early vote",
)


@pytest.fixture
def app(served):
    return RestApp(served())


@pytest.fixture(scope="module")
def expected(folder):
    predictor = load_release(folder / "1")
    return {text: predictor.predict([text])[0] for text in TEXTS}


def request(app, *arguments, **options):
    return asyncio.run(ask(app, *arguments, **options))


def predict(app, payload, **options):
    return request(app, "POST", PREDICT, payload, **options)


def test_rows_are_answered_as_the_predictor_does(app, expected):
    answer = predict(app, {"instances": [{"text": text} for text in TEXTS]})
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    for text, row in zip(TEXTS, answer.json["predictions"], strict=True):
        assert row["label"] == expected[text].label
        np.testing.assert_allclose(
            row["probabilities"], list(expected[text].probabilities.values()), atol=1e-5
        )
        np.testing.assert_allclose(sum(row["probabilities"]), 1, atol=1e-6)


def test_the_forms_of_a_request_mean_the_same(app):
    encoded = {"b64": base64.b64encode(TEXTS[0].encode()).decode()}
    rows = [
        predict(app, {"instances": [given], "signature_name": name}).json["predictions"][0]
        for given in (TEXTS[0], encoded, {"text": TEXTS[0]}, {"text": encoded})
        for name in ("serving_default", "serve")
    ]
    columns = [
        predict(app, {"inputs": given}).json["outputs"] for given in ([TEXTS[0]], {"text": [TEXTS[0]]})
    ]
    for column in columns:
        rows.append({name: values[0] for name, values in column.items()})
    for row in rows:
        assert row.keys() == {"label", "logits", "probabilities"}
        np.testing.assert_allclose(row["logits"], rows[0]["logits"], rtol=1e-5, atol=1e-5)


def test_one_function_under_two_names_is_loaded_once(loaded):
    assert loaded.signatures["serve"] is loaded.signatures["serving_default"]
    assert len(set(map(id, loaded.signatures.values()))) == 4


def test_tensors_and_examples_are_taken_by_their_signatures(app, loaded):
    golden = loaded.golden
    ids = golden.inputs.token_ids[3][0]
    row = {"token_ids": ids, "padding_mask": [1] * len(ids), "segment_ids": [0] * len(ids)}
    by_ids = predict(app, {"signature_name": "serve_ids", "instances": [row]}).json["predictions"][0]
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[golden.inputs.texts[3].encode()]))
    example = tf.train.Example(features=tf.train.Features(feature={"text": feature})).SerializeToString()
    encoded = {"b64": base64.b64encode(example).decode()}
    by_example = predict(app, {"signature_name": "serve_examples", "instances": [encoded]})
    np.testing.assert_allclose(by_ids["probabilities"], golden.probabilities[3], atol=1e-4)
    np.testing.assert_allclose(
        by_example.json["predictions"][0]["probabilities"], golden.probabilities[3], atol=1e-4
    )


def test_joined_requests_get_their_own_answers(app, loaded):
    """Fifty requests at once go through one queue, in batches of texts of all lengths."""
    golden = loaded.golden
    payloads = [{"instances": [text]} for text in golden.inputs.texts]

    async def all_at_once():
        return await asyncio.gather(*(ask(app, "POST", PREDICT, payload) for payload in payloads))

    answers = asyncio.run(all_at_once())
    rows = [answer.json["predictions"][0]["probabilities"] for answer in answers]
    np.testing.assert_allclose(rows, golden.probabilities, atol=1e-4)
    whole = predict(app, {"instances": list(golden.inputs.texts)}).json["predictions"]
    np.testing.assert_allclose([row["probabilities"] for row in whole], golden.probabilities, atol=1e-4)


def with_ids(ids):
    inputs = {"token_ids": ids, "padding_mask": [[1]], "segment_ids": [[0]]}
    return {"signature_name": "serve_ids", "inputs": inputs}


REFUSALS = [
    (b"", "JSON Parse error: The document is empty"),
    (b"{", "JSON Parse error"),
    (b"[" * 100_000, "nested too deeply"),
    (b'{"instances": ["\xff"]}', "JSON Parse error"),
    (b'{"instances": [' + b"9" * 5000 + b"]}", "JSON Parse error"),
    ([1], "JSON Value: [1] Is not object"),
    ({}, "Missing 'inputs' or 'instances' key"),
    ({"instances": [], "inputs": []}, "expecting only one of 'inputs' or 'instances'"),
    ({"instances": "x"}, "Expecting 'instances' to be an list/array"),
    ({"instances": []}, "No values in 'instances' array"),
    ({"instances": ["x"], "signature_name": 3}, "'signature_name' key must be a string value."),
    ({"instances": ["x"], "signature_name": "no"}, 'Serving signature name: "no" not found in signature def'),
    ({"instances": [3]}, "JSON Value: 3 Type: Number is not of expected type: string"),
    ({"instances": ["x", None]}, "Failed to process element: 1 of 'instances' list."),
    ({"instances": [{"words": "x"}]}, "JSON object: does not have named input: words"),
    ({"instances": [{"text": "x"}, {}]}, "keys must be equal to: text"),
    ({"instances": [{"text": "x"}, "y"]}, "Expecting object but got list at item 1 of input list"),
    ({"instances": ["y", {"text": "x"}]}, "Expecting value/list but got object at item 1 of input list"),
    ({"instances": ["x", ["y"]]}, "of 'instances' list. Error: INVALID_ARGUMENT"),
    ({"instances": [["x"], ["y"]]}, "input text must have the shape [?], not [2, 1]"),
    ({"instances": [{"b64": "%"}]}, "Unable to base64 decode"),
    ({"instances": ["\ud800"]}, "surrogate"),
    ({"inputs": {"words": ["x"]}}, "Missing named input: text in 'inputs' object."),
    ({"inputs": "x"}, "input text must have the shape [?], not []"),
    ({"inputs": []}, "text to be string but float is provided|the request has no rows"),
    ({"signature_name": "serve_ids", "instances": ["x"]}, "instances is a plain list, but expecting list of"),
    (
        {
            "signature_name": "serve_ids",
            "inputs": {"token_ids": [[1.5]], "padding_mask": [[1]], "segment_ids": [[0]]},
        },
        "JSON Value: 1.5 Type: Number is not of expected type: int32",
    ),
    (
        {
            "signature_name": "serve_ids",
            "inputs": {"token_ids": [[2**40]], "padding_mask": [[1]], "segment_ids": [[0]]},
        },
        "is not of expected type: int32",
    ),
    (
        {
            "signature_name": "serve_ids",
            "inputs": {"token_ids": [[1, 2]], "padding_mask": [[1]], "segment_ids": [[0]]},
        },
        "the same numbers of rows and columns",
    ),
    (
        {
            "signature_name": "serve_ids",
            "inputs": {"token_ids": [[10**6]], "padding_mask": [[1]], "segment_ids": [[0]]},
        },
        "indices",
    ),
]


@pytest.mark.parametrize(("payload", "words"), REFUSALS)
def test_wrong_requests_are_refused_in_words(app, payload, words):
    answer = predict(app, payload)
    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert any(each in answer.json["error"] for each in words.split("|")), answer.json


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("POST", "/v1/models/other:predict", 404, "Servable not found for request: Latest(other)"),
        ("POST", f"{MODEL}/versions/7:predict", 404, "Servable not found for request: Specific(tiny, 7)"),
        ("POST", f"{MODEL}/labels/new:predict", 400, "Unrecognized servable version label: new"),
        ("POST", f"{MODEL}/versions/{'9' * 30}:predict", 400, "Failed to convert version"),
        ("POST", f"{MODEL}:explain", 400, "Malformed request: POST /v1/models/tiny:explain"),
        ("GET", PREDICT, 405, "Malformed request: GET"),
        ("DELETE", MODEL, 405, "Malformed request: DELETE"),
        ("GET", "/v1/models/other", 404, "Could not find any versions of model other"),
        ("GET", f"{MODEL}/versions/9", 404, "Could not find version 9 of model tiny"),
        ("GET", "/v1/models", 400, "Missing model name in request."),
        ("GET", "/", 404, "there is nothing at /"),
    ],
)
def test_wrong_addresses_are_refused_in_words(app, method, path, status, words):
    answer = request(app, method, path, {"instances": ["x"]} if method == "POST" else b"")
    assert answer.status == status
    assert words in answer.json["error"]


def classify(app, **payload):
    return request(app, "POST", f"{MODEL}:classify", {"signature_name": "classify", **payload})


def test_examples_are_classified_as_tensorflow_serving_does(served, expected):
    core = served()
    app = RestApp(core)
    encoded = {"b64": base64.b64encode(TEXTS[0].encode()).decode()}
    forms = [{"text": TEXTS[0]}, {"text": [TEXTS[0]]}, {"text": encoded, "more": [1, True], "other": 2.5}]
    answer = classify(app, examples=[*forms, *({"text": text} for text in TEXTS)])
    jsonschema.validate(
        answer.json,
        request(app, "GET", "/openapi.json").json["paths"][f"{MODEL}:classify"]["post"]["responses"]["200"][
            "content"
        ]["application/json"]["schema"],
    )
    for text, row in zip([TEXTS[0]] * 3 + list(TEXTS), answer.json["results"], strict=True):
        assert [name for name, _ in row] == list(expected[text].probabilities)
        np.testing.assert_allclose(
            [score for _, score in row], list(expected[text].probabilities.values()), atol=1e-5
        )
    in_common = classify(app, context={"text": TEXTS[0]}, examples=[{}, {"text": TEXTS[2]}]).json["results"]
    for row, text in zip(in_common, (TEXTS[0], TEXTS[2]), strict=True):
        np.testing.assert_allclose(
            [score for _, score in row], list(expected[text].probabilities.values()), atol=1e-5
        )


def test_grpc_classifies_examples(served, expected):
    message = classification_pb2.ClassificationRequest(
        model_spec={"name": "tiny", "signature_name": "classify"}
    )
    plain = message.input.example_list.examples
    plain.add().features.feature["text"].bytes_list.value.append(TEXTS[0].encode())
    services = GrpcServices(served())
    answers = [asyncio.run(services.classify(message, Call()))]
    shared = message.input.example_list_with_context
    shared.context.features.feature["text"].bytes_list.value.append(TEXTS[0].encode())
    shared.examples.add()
    answers.append(asyncio.run(services.classify(message, Call())))
    for answer in answers:
        spec = answer.model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == ("tiny", 1, "classify")
        (row,) = answer.result.classifications
        found = {each.label: each.score for each in row.classes}
        assert found == pytest.approx(expected[TEXTS[0]].probabilities, abs=1e-5)
    shared.ClearField("examples")
    for clear in (False, True):
        if clear:
            message.ClearField("input")
        with pytest.raises(RequestError, match="Input is empty"):
            asyncio.run(services.classify(message, Call()))


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({}, "'examples' is expected"),
        ({"examples": {}}, "'examples' value to be an list/array"),
        ({"examples": []}, "is an empty array"),
        ({"examples": ["x"]}, "Example must be JSON object but got JSON String"),
        ({"examples": [{"text": "x"}], "context": 1}, "Example must be JSON object but got JSON Number"),
        ({"examples": [{"text": None}]}, "Feature: text has element with unexpected JSON type: Null"),
        ({"examples": [{"text": [["x"]]}]}, "Feature: text has element with unexpected JSON type: Array"),
        (
            {"examples": [{"text": ["x", 1]}]},
            "Unexpected element type in feature: text expecting type: bytes",
        ),
        ({"examples": [{"n": 2**63}]}, "Feature: n has uint64_t element. Only int64_t is supported."),
        ({"examples": [{"n": 10**400}]}, "Feature: n has a number that is too large"),
        ({"examples": [{"\ud800": "x"}]}, "surrogate"),
        ({"examples": [{"text": {"b64": "%"}}]}, "Unable to base64 decode"),
        ({"examples": [{"other": "x"}]}, "text"),
        ({"examples": [{}] * 1025}, "1025 rows; at most 1024 are taken"),
        ({"examples": [{"text": "x"}], "signature_name": "no"}, "No signature was found with the name: no"),
        ({"examples": [{"text": "x"}], "signature_name": ""}, "Expected one or two output Tensors, found 3"),
        ({"examples": [{"text": "x"}], "signature_name": "serve_ids"}, "Expected one input Tensor."),
        ({"examples": [{"text": "x"}], "signature_name": 1}, "'signature_name' key must be a string value."),
    ],
)
def test_what_cannot_be_classified_is_refused_in_words(app, payload, words):
    answer = classify(app, **payload)
    assert (answer.status, list(answer.json)) == (400, ["error"])
    assert words in answer.json["error"]


def test_releases_have_no_signature_to_regress_with(app):
    for name, words in (("", "Expected one output Tensor."), ("serve_ids", "Expected one input Tensor.")):
        payload = {"signature_name": name, "examples": [{"text": "x"}]}
        answer = request(app, "POST", f"{MODEL}:regress", payload)
        assert (answer.status, answer.json["error"]) == (400, words)


def test_status_and_metadata_are_those_of_tensorflow_serving(app):
    status = request(app, "GET", f"{MODEL}/versions/1").json
    error = {"error_code": "OK", "error_message": ""}
    assert status == {"model_version_status": [{"version": "1", "state": "AVAILABLE", "status": error}]}
    metadata = request(app, "GET", f"{MODEL}/metadata").json
    assert metadata["model_spec"] == {"name": "tiny", "signature_name": "", "version": "1"}
    default = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert default["inputs"]["text"]["dtype"] == "DT_STRING"
    assert default["method_name"] == "tensorflow/serving/predict"


def test_more_than_the_limits_is_refused(served):
    small = Limits(body_bytes=200, rows=2, text_bytes=10, waiting_rows=100)
    app = RestApp(served(limits=small))
    assert predict(app, {"instances": ["x" * 300]}).status == 413
    assert "at most 2 are taken" in predict(app, {"instances": ["x"] * 3}).json["error"]
    assert "text 1 has 11 bytes; at most 10" in predict(app, {"instances": ["x", "y" * 11]}).json["error"]
    full = predict(RestApp(served(limits=Limits(waiting_rows=1))), {"instances": ["x", "y"]})
    assert (full.status, full.headers["retry-after"]) == (429, "1")
    late = predict(RestApp(served(limits=Limits(seconds=1e-6))), {"instances": ["x"]})
    assert late.status == 504


def test_a_body_that_does_not_come_is_given_up(served):
    app = RestApp(served(limits=Limits(body_seconds=0.05)))
    sent = []

    async def receive():
        await asyncio.sleep(60)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": PREDICT, "raw_path": PREDICT.encode(), "headers": []}
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 408


def test_a_token_is_asked_for(served):
    app = RestApp(served(token="secret"))
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
        answer = predict(app, {"instances": ["x"]}, headers=headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert predict(app, {"instances": ["x"]}, headers={"Authorization": "Bearer secret"}).status == 200
    assert request(app, "GET", METRICS).status == 401
    assert request(app, "GET", "/healthz").status == 200
    bearer = {"Authorization": "Bearer secret"}
    description = request(app, "GET", "/openapi.json", headers=bearer).json
    gets = {path: each["get"].get("security") for path, each in description["paths"].items() if "get" in each}
    assert [path for path, security in gets.items() if security == []] == ["/healthz", "/readyz"]


def test_a_server_that_ends_refuses_new_requests(served):
    core = served()
    app = RestApp(core)
    assert request(app, "GET", "/readyz").status == 200
    core.draining = True
    assert request(app, "GET", "/readyz").status == 503
    answer = predict(app, {"instances": ["x"]})
    assert answer.status == 503
    assert answer.json["error"] in _UNTOUCHED  # by these words clients of gRPC know that they may ask again
    assert request(app, "GET", "/healthz").status == 200


def test_metrics_count_what_happened(app):
    predict(app, {"instances": ["x", "y"]})
    predict(app, {})
    page = request(app, "GET", METRICS).body.decode()
    assert ':tensorflow:serving:request_count{model_name="tiny",status="OK"} 1' in page
    assert ':tensorflow:serving:request_count{model_name="tiny",status="INVALID_ARGUMENT"} 1' in page
    assert 'request_latency_count{model_name="tiny",API="predict",entrypoint="REST"} 1' in page
    assert 'tfapp_request_rows_sum{model_name="tiny"} 2' in page
    assert 'tfapp_served_version{model_name="tiny"} 1' in page


def test_the_description_describes_requests_and_answers(app):
    description = request(app, "GET", "/openapi.json").json
    operation = description["paths"][PREDICT]["post"]
    body = operation["requestBody"]["content"]["application/json"]["schema"]
    answers = operation["responses"]["200"]["content"]["application/json"]["schema"]
    for payload in ({"instances": ["x", {"text": "y"}]}, {"instances": [{"b64": "eA=="}]}, {"inputs": ["x"]}):
        jsonschema.validate(payload, body)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"instances": [3]}, body)
    jsonschema.validate(predict(app, {"instances": ["x"]}).json, answers)
    for path, operations in description["paths"].items():
        if "{" not in path and "get" in operations:
            assert request(app, "GET", path).status == 200


class Call:
    """A call as it was let in."""

    async def aside(self, _size, call, *arguments):
        return call(*arguments)


def test_grpc_answers_with_the_messages_of_tensorflow_serving(served, loaded):
    services = GrpcServices(served())
    message = predict_pb2.PredictRequest(output_filter=["probabilities"])
    message.model_spec.name = "tiny"
    message.inputs["text"].CopyFrom(tf.make_tensor_proto(list(loaded.golden.inputs.texts)))
    answer = asyncio.run(services.predict(message, Call()))
    assert list(answer.outputs) == ["probabilities"]
    assert (answer.model_spec.version.value, answer.model_spec.signature_name) == (1, "serving_default")
    rows = tf.make_ndarray(answer.outputs["probabilities"])
    np.testing.assert_allclose(rows, loaded.golden.probabilities, atol=1e-4)
    status = asyncio.run(
        services.status(get_model_status_pb2.GetModelStatusRequest(model_spec={"name": "tiny"}), Call())
    )
    assert [each.version for each in status.model_version_status] == [1]
    asked = get_model_metadata_pb2.GetModelMetadataRequest(
        model_spec={"name": "tiny"}, metadata_field=["signature_def"]
    )
    metadata = asyncio.run(services.metadata(asked, Call()))
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert metadata.metadata["signature_def"].Unpack(signatures)
    assert set(signatures.signature_def) == set(loaded.signatures)


def spread(count):
    """A tensor of one number that stands for many."""
    tensor = tf.make_tensor_proto([1.0])
    tensor.tensor_shape.dim[0].size = count
    return tensor


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda message: message.inputs["text"].string_val.append(b"more"), "3 values for the shape [2]"),
        (
            lambda message: message.inputs["text"].tensor_shape.dim[0].__setattr__("size", 2**62),
            "at most 1024 are taken",
        ),
        (lambda message: message.inputs["text"].tensor_shape.dim[0].__setattr__("size", -1), "shape"),
        (lambda message: message.inputs["text"].__setattr__("dtype", 99), "type"),
        (lambda message: message.inputs["text"].__setattr__("dtype", 1), "string but float is provided"),
        (lambda message: message.inputs["text"].__setattr__("dtype", 21), "string but variant is provided"),
        (lambda message: message.inputs["text"].CopyFrom(spread(2**40)), "string but float is provided"),
        (lambda message: message.inputs["text"].CopyFrom(spread(4)), "string but float is provided"),
        (lambda message: message.inputs["other"].CopyFrom(message.inputs["text"]), "Sent extra: {other}"),
        (lambda message: message.inputs.pop("text"), "Missing but required: {text}"),
        (
            lambda message: message.output_filter.append("no"),
            "alias not found in signature: no",
        ),
        (lambda message: message.output_filter.extend(["label"] * 2), "duplicate output tensor alias: label"),
        (lambda message: message.model_spec.__setattr__("signature_name", "no"), 'key "no" not found'),
        (lambda message: message.model_spec.__setattr__("name", ""), "ModelSpec has no name specified."),
        (
            lambda message: message.model_spec.__setattr__("version_label", "x"),
            "Unrecognized servable",
        ),
    ],
)
def test_wrong_messages_are_refused_in_words(served, change, words):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = "tiny"
    message.inputs["text"].CopyFrom(tf.make_tensor_proto(["x", "y"]))
    change(message)
    with pytest.raises(RequestError) as refused:
        asyncio.run(GrpcServices(served()).predict(message, Call()))
    assert words in refused.value.message
    assert refused.value.code.name in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")


def light(closed):
    """Makes a loader that checks a release as the real one does, and loads nothing."""

    def make(directory, number):
        check_servable(directory)
        return SimpleNamespace(
            version=number, manifest_sha256="0" * 64, requests=0, close=lambda: closed.append(number)
        )

    return make


def test_versions_come_and_go_without_dropping_a_request(release, tmp_path):
    folder, closed = tmp_path / "tiny", []
    shutil.copytree(release.path, folder / "1")

    async def live():
        versions = Versions(folder, light(closed))
        await versions.refresh()
        with versions.lease("tiny") as old:
            shutil.copytree(release.path, folder / "2")
            await versions.refresh()
            await asyncio.sleep(0.1)
            assert (old.version, versions.states[1].state, closed) == (1, "UNLOADING", [])
            with versions.lease("tiny") as new:
                assert new.version == 2
            with pytest.raises(RequestError, match=r"Specific\(tiny, 1\)"), versions.lease("tiny", 1):
                pass
        await asyncio.sleep(0.1)
        assert (versions.states[1].state, closed) == ("END", [1])
        await versions.close()

    asyncio.run(live())


def test_the_end_does_not_wait_for_ever_for_what_is_still_computed(release, tmp_path, caplog):
    folder, closed = tmp_path / "tiny", []
    shutil.copytree(release.path, folder / "1")

    async def live():
        versions = Versions(folder, light(closed))
        await versions.refresh()
        with versions.lease("tiny"):
            await versions.close(0.05)

    asyncio.run(live())
    assert closed == []
    assert "1 versions of tiny still compute" in caplog.text


def test_a_spoiled_version_is_never_served_and_the_old_one_goes_on(release, tmp_path):
    folder = tmp_path / "tiny"
    for number in (1, 2, 4):
        shutil.copytree(release.path, folder / str(number))
    weights = folder / "2" / "variables" / "variables.data-00000-of-00001"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    (folder / "3").mkdir()
    manifest = json.loads((folder / "4" / "manifest.json").read_text())
    manifest["release"]["verdict"] = "refused"
    (folder / "4" / "manifest.json").write_text(json.dumps(manifest))

    async def live():
        versions = Versions(folder, light([]))
        await versions.refresh()
        assert {number: state.state for number, state in versions.states.items()} == {
            4: "END",
            3: "END",
            2: "END",
            1: "AVAILABLE",
        }
        assert "is damaged" in versions.states[2].problem
        assert "manifest.json" in versions.states[3].problem
        assert "refused" in versions.states[4].problem
        shutil.rmtree(folder / "2")
        shutil.copytree(release.path, folder / "2")
        await versions.refresh()
        assert versions.newest().version == 2  # mended
        shutil.rmtree(folder / "2")
        await versions.refresh()
        assert versions.newest().version == 1  # taken back
        shutil.rmtree(folder / "1")
        await versions.refresh()
        assert versions.newest().version == 1  # nothing better
        await versions.close()

    asyncio.run(live())


def test_models_config_chooses_versions_and_labels(release, tmp_path):
    folder = tmp_path / "tiny"
    for number in ("1", "2", "3"):
        shutil.copytree(release.path, folder / number)
    (folder / "serving").mkdir()
    (folder / "serving" / "models.config").write_text(
        """
        model_config_list { config { name: "tiny" base_path: "/models/tiny" model_platform: "tensorflow"
          model_version_policy { specific { versions: 1 versions: 2 } }
          version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 } } }
        """
    )

    async def live():
        versions = Versions(folder, light([]))
        await versions.refresh()
        assert sorted(versions.states) == [1, 2]
        assert versions.labels == {"stable": 1, "canary": 2}
        with versions.lease("tiny", label="stable") as stable, versions.lease("tiny") as newest:
            assert (stable.version, newest.version) == (1, 2)
        await versions.close()

    asyncio.run(live())


class Numbers(tf.Module):
    """Reads numbers from strings, and refuses those that hold none."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(self, text):
        return {"number": tf.strings.to_number(text)}


@pytest.mark.parametrize("by_length", [True, False])
def test_a_row_that_cannot_be_computed_spoils_no_other_request(tmp_path, by_length):
    module = Numbers()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        definition = meta.signature_def["serving_default"]
        batching = Batching(max_batch_size=16, batch_timeout_micros=50_000)
        signature = Signature(
            definition,
            session,
            batching=batching,
            alone=ThreadPoolExecutor(1),
            again=ThreadPoolExecutor(1),
            by_length=by_length,
            key=f"numbers {by_length}",
        )
        assert signature.joins

        def ask_for(text):
            return signature.run([np.array([text], object)])[0][0]

        async def together():
            texts = [b"%d" % number for number in range(11)] + [b"none"]
            calls = (asyncio.to_thread(ask_for, text) for text in texts)
            return await asyncio.gather(*calls, return_exceptions=True)

        *numbers, refused = asyncio.run(together())
    assert numbers == list(range(11))
    assert isinstance(refused, RequestError)
    assert "none" in refused.message


def test_strings_are_ordered_back(tmp_path):
    """Texts of one batch are computed in the order of their lengths, eight at a time."""
    module = Numbers()
    tf.saved_model.save(module, str(tmp_path), signatures={"serving_default": module.serve})
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path))
        signature = Signature(
            meta.signature_def["serving_default"],
            session,
            batching=Batching(max_batch_size=64),
            alone=ThreadPoolExecutor(1),
            again=ThreadPoolExecutor(1),
            by_length=True,
            key="order",
        )
        numbers = np.random.default_rng(0).integers(0, 10**6, 37)
        (answer,) = signature.run([np.array([b"%d" % number for number in numbers], object)])
    assert answer.tolist() == numbers.tolist()
