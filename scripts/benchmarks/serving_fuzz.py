"""Sends `tfapp serve` what no client should, and sees that it refuses it, lives on and still answers right.

    python scripts/benchmarks/serving_fuzz.py RELEASE [--quick] [--seed N]

Three things: schemathesis over the server's own OpenAPI description (in an environment of its own), JSON
bodies and gRPC messages mutated from right ones, their texts and images too, and the golden vectors
afterwards. Exit status 1 when anything was answered with 500 or INTERNAL, was not answered in time, or was
answered wrong; 2 when schemathesis cannot be run, unless --without-schemathesis says that it need not.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from peers import PeerError, peer_python
from reporting import about_run, markdown_table, report, save, versions
from servers import RunningServer, tfapp_server
from tensorflow_serving.apis import predict_pb2

from tfapp.release.golden import Golden
from tfapp.release.versions import version_folder
from tfapp.serving.load import drive

_SECONDS = 20
_CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
_TOKENS = (
    b"null", b"true", b"-0", b"1e999", b"NaN", b"-Infinity", b"[]", b"{}", b'""', b'"\\ud800"', b'{"b64": 3}',
    b'{"b64": "%%"}', b"[[[[[[[[[[]]]]]]]]]]", b"9" * 400,
    b'"instances"', b'"inputs"', b'"signature_name": "serve_ids"',
    b"\xff\xfe", b"\x00", b",", b":", b"}", b"]", b'"',
)  # fmt: skip

_BYTES = (b"\xff" * 9, b"\x00", b"\x08\x01", b"\xff\xd8\xff", b"\xff\xc0\x00\x11\x08\xff\xff\xff\xff")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("release", type=Path, help="a version folder, or saved_models/<name>")
    parser.add_argument("--mutations", type=int, default=10_000, help="bodies, half of each protocol")
    parser.add_argument("--examples", type=int, default=100, help="of schemathesis for each operation")
    parser.add_argument("--without-schemathesis", action="store_true", help="only mutations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="600 mutations, 10 examples")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    if options.quick:
        options.mutations, options.examples = 600, 10
    python = None if options.without_schemathesis else schemathesis_python()
    folder = version_folder(options.release)
    golden = Golden.load(folder / "edge" / "golden.json")
    about = about_run(versions("grpcio", "uvicorn", "tensorflow-serving-api"))
    rows: dict[str, Counter[str]] = {}
    with tfapp_server(options.release) as server:
        name = options.release.resolve().name if options.release.resolve() != folder else folder.parent.name
        findings = schemathesis(python, server, options)
        draw = random.Random(options.seed)
        rows["REST"] = asyncio.run(by_rest(server, bodies(golden, draw, options.mutations // 2), name))
        rows["gRPC"] = asyncio.run(
            by_grpc(server, messages(golden, name, draw, options.mutations // 2), firsts(golden, name))
        )
        wrong = asyncio.run(golden_again(server, golden, name))
        alive = server.alive
        log = server.said()
    told = [
        [kind, answer, f"{count:,}"]
        for kind, counts in rows.items()
        for answer, count in counts.most_common()
    ]
    bad = sum(counts[answer] for counts in rows.values() for answer in counts if answer in _BAD)
    result = {"answers": rows, "bad": bad, "wrong_golden": wrong, "schemathesis": findings, "alive": alive}
    notes = [
        f"{bad} answers that should not be (500, INTERNAL, UNKNOWN, no answer within {_SECONDS} s)",
        f"schemathesis: {findings['summary']}",
        f"golden vectors right after: {wrong} wrong of {len(golden.inputs)}",
        f"the server {'lives' if alive else 'died'}",
    ]
    report("Malformed requests", about, markdown_table(("protocol", "answered", "times"), told), notes)
    save(options.output, "serving-fuzz", about, result)
    if bad or wrong or findings["failed"] or not alive or "Traceback" in log:
        print(log[-4000:], findings["output"][-6000:], file=sys.stderr)
        sys.exit(1)


_BAD = ("500", "INTERNAL", "UNKNOWN", "no answer", "disconnected")


def schemathesis_python() -> Path:
    """Makes its environment, or ends with status 2."""
    try:
        return peer_python("schemathesis")
    except PeerError as error:
        print(f"schemathesis: {error}\nWith --without-schemathesis only mutations are sent.", file=sys.stderr)
        sys.exit(2)


def schemathesis(python: Path | None, server: RunningServer, options: argparse.Namespace) -> dict[str, Any]:
    """Runs schemathesis over the server's description."""
    if python is None:
        return {"failed": False, "summary": "not run, as was asked for", "output": ""}
    command = [python.with_name("schemathesis"), "run", f"http://127.0.0.1:{server.port}/openapi.json"]
    command += ["--checks", ",".join(_CHECKS), "--max-examples", options.examples, "--seed", options.seed]
    command += ["--request-timeout", _SECONDS, "--no-color", "--suppress-health-check", "all"]
    ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
    summary = next(
        (line for line in reversed(lines) if "passed" in line or "failed" in line or "generated" in line), ""
    )
    return {
        "failed": ended.returncode != 0,
        "summary": summary.strip("= "),
        "output": ended.stdout + ended.stderr,
    }


def bodies(golden: Golden, draw: random.Random, count: int) -> list[bytes]:
    """Makes JSON bodies that were right before something happened to them."""
    features = golden.probe().features
    made = []
    for _ in range(count):
        chosen = [spoiled(draw.choice(features), draw) for _ in range(draw.randint(1, 3))]
        values: list[Any] = [{"b64": base64.b64encode(value).decode()} for value in chosen]
        if golden.feature == "text" and draw.random() < 0.7:
            values = [value.decode(errors="replace") for value in chosen]
        document: dict[str, Any] = {"instances": values} if draw.random() < 0.5 else {"inputs": values}
        if draw.random() < 0.3:
            document = {key: [{golden.feature: value} for value in values] for key in document}
        made.append(mutated(json.dumps(document).encode(), draw, _TOKENS))
    return made


def messages(golden: Golden, name: str, draw: random.Random, count: int) -> list[bytes]:
    """Makes PredictRequests that were right before something happened to them."""
    features = golden.probe().features
    made = []
    for _ in range(count):
        message = predict_pb2.PredictRequest()
        message.model_spec.name = name
        tensor = message.inputs[golden.feature]
        tensor.dtype = 7
        values = [spoiled(draw.choice(features), draw) for _ in range(draw.randint(1, 3))]
        tensor.string_val.extend(values)
        tensor.tensor_shape.dim.add(size=len(values))
        spoil(message, tensor, draw)
        data = message.SerializeToString()
        made.append(mutated(data, draw, _BYTES) if draw.random() < 0.6 else data)
    return made


def firsts(golden: Golden, name: str) -> list[bytes]:
    """Makes a request to each signature of strings."""
    made = []
    for signature, alias in (("serve", golden.feature), ("serve_examples", "examples")):
        message = predict_pb2.PredictRequest()
        message.model_spec.name, message.model_spec.signature_name = name, signature
        message.inputs[alias].CopyFrom(tf.make_tensor_proto([b""]))
        made.append(message.SerializeToString())
    return made


def spoil(message: Any, tensor: Any, draw: random.Random) -> None:
    """Makes one part of a message contradict the others, or nothing."""
    size = tensor.tensor_shape.dim[0]
    spec = message.model_spec
    changes: tuple[Callable[[], object], ...] = (
        lambda: None,
        lambda: setattr(tensor, "dtype", draw.randint(0, 30)),
        lambda: setattr(size, "size", draw.choice((-1, 0, 2**31, 2**62))),
        lambda: [tensor.tensor_shape.dim.add(size=2**40) for _ in range(draw.randint(1, 300))],
        lambda: tensor.tensor_shape.dim.add(size=draw.choice((0, 1))),
        lambda: setattr(tensor.tensor_shape, "unknown_rank", True),
        lambda: setattr(tensor, "tensor_content", draw.randbytes(draw.randint(1, 64))),
        lambda: (setattr(tensor, "dtype", 1), tensor.float_val.append(float("nan"))),
        lambda: message.output_filter.append(draw.choice(("label", "no", ""))),
        lambda: setattr(spec, "signature_name", draw.choice(("serve", "serve_examples", "no"))),
        lambda: setattr(spec.version, "value", draw.choice((1, -1, 2**62))),
        lambda: tensor.string_val.append(draw.randbytes(200)),
    )
    draw.choice(changes)()


def spoiled(feature: bytes, draw: random.Random) -> bytes:
    """Damages some texts and image files themselves, the beginning of a file more than the rest."""
    kind = draw.randrange(6)
    if kind == 0:
        return mutated(feature, draw, _BYTES)
    if kind == 1:
        return mutated(feature[:64], draw, _BYTES) + feature[64:]
    return feature[: draw.randrange(len(feature) + 1)] if kind == 2 else feature


def mutated(data: bytes, draw: random.Random, tokens: tuple[bytes, ...]) -> bytes:
    """Changes a few places: bytes turned over, cut, doubled, or replaced by something that hurts."""
    changed = bytearray(data)
    for _ in range(draw.randint(1, 4)):
        start = draw.randrange(len(changed) + 1)
        end = min(len(changed), start + draw.randint(0, 12))
        kind = draw.randrange(5)
        if kind == 0:
            changed[start:end] = draw.choice(tokens)
        elif kind == 1 and start < len(changed):
            changed[start] ^= 1 << draw.randrange(8)
        elif kind == 2:
            del changed[start:end]
        elif kind == 3:
            changed[start:start] = changed[start:end] * draw.randint(1, 50)
        else:
            changed[start:start] = draw.randbytes(draw.randint(1, 6))
    return bytes(changed)


async def by_rest(server: RunningServer, made: list[bytes], name: str) -> Counter[str]:
    """Sends bodies over a connection each, eight at a time."""
    counts: Counter[str] = Counter()
    turn = asyncio.Semaphore(8)

    async def send(body: bytes) -> None:
        async with turn:
            data = request_of(name, body, "Connection: close\r\n")
            counts[await _answered(_exchanged(server.port, data))] += 1

    await asyncio.gather(*map(send, made))
    return counts


def request_of(name: str, body: bytes, more: str = "") -> bytes:
    """Writes a request around a body."""
    head = f"POST /v1/models/{name}:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


async def _exchanged(port: int, data: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        answer = await reader.read()
    finally:
        writer.close()
    if not answer:
        return "disconnected"
    status, body = answer[9:12].decode(), answer.split(b"\r\n\r\n", 1)[1]
    if status != "200" and list(json.loads(body)) != ["error"]:
        return "no structured error"
    return status


async def by_grpc(server: RunningServer, made: list[bytes], firsts: list[bytes]) -> Counter[str]:
    """Sends messages over one channel, eight at a time."""
    counts: Counter[str] = Counter()
    turn = asyncio.Semaphore(8)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel:
        call = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        for first in firsts:  # a signature is compiled when it is first asked, as in TensorFlow Serving
            with contextlib.suppress(grpc.aio.AioRpcError):
                await call(first, timeout=300)

        async def ask(message: bytes) -> str:
            try:
                await call(message, timeout=_SECONDS)
            except grpc.aio.AioRpcError as error:
                late = error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                return "no answer" if late else str(error.code().name)
            return "OK"

        async def send(message: bytes) -> None:
            async with turn:
                counts[await _answered(ask(message))] += 1

        await asyncio.gather(*map(send, made))
    return counts


async def _answered(answer: Any) -> str:
    try:
        async with asyncio.timeout(_SECONDS + 5):
            return str(await answer)
    except TimeoutError:
        return "no answer"
    except OSError:
        return "disconnected"


async def golden_again(server: RunningServer, golden: Golden, name: str) -> int:
    """Counts the golden vectors that are answered wrong now."""
    wrong = 0
    for feature, expected in zip(golden.probe().features, golden.probabilities, strict=True):
        body = json.dumps({"instances": [{"b64": base64.b64encode(feature).decode()}]}).encode()

        def right(_place: int, answer: bytes, expected: Any = expected) -> bool:
            found = json.loads(answer)["predictions"][0]["probabilities"]
            return bool(np.allclose(found, expected, atol=golden.tolerance["saved_model"]))

        # One request: the next would be due after the end.
        load = await drive(
            "127.0.0.1",
            server.port,
            [request_of(name, body)],
            connections=1,
            seconds=0.5,
            rate=1.0,
            check=right,
        )
        wrong += not load.latencies or bool(load.failures)
    return wrong


if __name__ == "__main__":
    main()
