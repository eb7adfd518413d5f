"""TensorFlow Serving's gRPC services, on the stubs of ``tensorflow-serving-api``."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_service_pb2,
    predict_pb2,
    prediction_service_pb2,
    regression_pb2,
)

from tfapp.serving.server import messages
from tfapp.serving.server.classification import (
    CLASSES,
    INPUTS,
    SCORES,
    classifying,
    count_of,
    examples_of,
    not_regressing,
)
from tfapp.serving.server.core import Core, Request
from tfapp.serving.server.loaded import DEFAULT_SIGNATURE
from tfapp.serving.server.request_checks import check_tensors
from tfapp.serving.server.signatures import Arrays
from tfapp.serving.server.status import FAILED, Code, RequestError, invalid
from tfapp.serving.server.tensors import array_of, claimed, message_of

_logger = logging.getLogger(__name__)
_STATUSES = {code: status for status in grpc.StatusCode for code in Code if status.value[0] == code.number}
_PREDICTION = prediction_service_pb2.DESCRIPTOR.services_by_name["PredictionService"].full_name
_MODEL = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name

Answer = Callable[[Any, Request], Awaitable[Any]]


class GrpcServices:
    """Answers the methods of PredictionService and ModelService.

    Args:
        core: Answers requests.
    """

    def __init__(self, core: Core) -> None:
        self.core = core

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns what a gRPC server registers."""
        prediction = {
            "Predict": self._method("predict", self.predict, predict_pb2.PredictRequest),
            "Classify": self._method("classify", self.classify, classification_pb2.ClassificationRequest),
            "Regress": self._method("regress", self.regress, regression_pb2.RegressionRequest),
            "MultiInference": self._method("", self.multi_inference, inference_pb2.MultiInferenceRequest),
            "GetModelMetadata": self._method(
                "", self.metadata, get_model_metadata_pb2.GetModelMetadataRequest
            ),
        }
        model = {
            "GetModelStatus": self._method("", self.status, get_model_status_pb2.GetModelStatusRequest),
        }
        return [
            grpc.method_handlers_generic_handler(_PREDICTION, prediction),
            grpc.method_handlers_generic_handler(_MODEL, model),
        ]

    async def predict(self, request: Any, call: Request) -> Any:
        """Answers Predict.

        Args:
            request: A ``PredictRequest``.
            call: The call as it was let in.

        Returns:
            A ``PredictResponse``.

        Raises:
            RequestError: When the request is refused.
        """
        spec = request.model_spec
        with self._lease(spec) as model:
            wanted = spec.signature_name or DEFAULT_SIGNATURE
            if wanted not in model.signatures:
                raise RequestError(Code.FAILED_PRECONDITION, f'Serving signature key "{wanted}" not found.')
            signature = model.signatures[wanted]
            chosen = _chosen(list(request.output_filter), signature.outputs)
            shapes = {alias: claimed(tensor, alias) for alias, tensor in request.inputs.items()}
            check_tensors(model, signature, shapes, self.core.settings.limits)
            inputs = await call.aside(request.ByteSize(), _arrays, request)
            outputs = await self.core.predict(model, signature, inputs)
            response = predict_pb2.PredictResponse()
            response.model_spec.name = spec.name
            response.model_spec.version.value = model.version
            response.model_spec.signature_name = wanted
            size = sum(outputs[alias].nbytes for alias in chosen)
            await call.aside(size, _add_outputs, response, chosen, outputs)
            return response

    async def classify(self, request: Any, call: Request) -> Any:
        """Answers Classify, which the signature ``classify`` of a release can be asked.

        Args:
            request: A ``ClassificationRequest``.
            call: The call as it was let in.

        Returns:
            A ``ClassificationResponse``.

        Raises:
            RequestError: When the request is refused.
        """
        spec = request.model_spec
        with self._lease(spec) as model:
            signature = classifying(model, spec.signature_name)
            shapes = {INPUTS: (tf.string, (count_of(request.input),))}
            check_tensors(model, signature, shapes, self.core.settings.limits)
            inputs = await call.aside(request.ByteSize(), examples_of, request.input)
            outputs = await self.core.predict(model, signature, inputs)
            response = classification_pb2.ClassificationResponse()
            response.model_spec.name = spec.name
            response.model_spec.version.value = model.version
            response.model_spec.signature_name = spec.signature_name or DEFAULT_SIGNATURE
            size = sum(array.nbytes for array in outputs.values())
            await call.aside(size, _add_classifications, response.result, outputs)
            return response

    async def regress(self, request: Any, _call: Request) -> Any:
        """Answers Regress: releases have no signature for it.

        Args:
            request: A ``RegressionRequest``.

        Raises:
            RequestError: Always, in TensorFlow Serving's words.
        """
        with self._lease(request.model_spec) as model:
            raise not_regressing(model, request.model_spec.signature_name)

    async def multi_inference(self, request: Any, _call: Request) -> Any:
        """Answers MultiInference: it is left out, as it would answer no more than Classify.

        Args:
            request: A ``MultiInferenceRequest``.

        Raises:
            RequestError: Always.
        """
        if not request.tasks:
            raise invalid("Inference request must have at least one task.")
        raise RequestError(Code.UNIMPLEMENTED, "MultiInference is not answered here; ask Classify")

    async def metadata(self, request: Any, _call: Request) -> Any:
        """Answers GetModelMetadata.

        Args:
            request: A ``GetModelMetadataRequest``.

        Returns:
            A ``GetModelMetadataResponse``.

        Raises:
            RequestError: When the request is refused.
        """
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        if not request.metadata_field:
            raise invalid("GetModelMetadataRequest must specify at least one metadata_field")
        for field in request.metadata_field:
            if field != "signature_def":
                raise invalid(f"Metadata field {field} is not supported")
        with self._lease(request.model_spec) as model:
            return messages.model_metadata(self.core.versions, model)

    async def status(self, request: Any, _call: Request) -> Any:
        """Answers GetModelStatus.

        Args:
            request: A ``GetModelStatusRequest``.

        Returns:
            A ``GetModelStatusResponse``.

        Raises:
            RequestError: When the request is refused.
        """
        if not request.HasField("model_spec"):
            raise invalid("Missing ModelSpec")
        return messages.model_status(self.core.versions, *_asked(request.model_spec))

    def _lease(self, spec: Any) -> Any:
        return self.core.versions.lease(*_asked(spec))

    def _method(self, api: str, answer: Answer, request: Any) -> grpc.RpcMethodHandler:
        async def handle(message: bytes, context: Any) -> Any:
            started = time.perf_counter()
            try:
                self._check_token(context)
                with self.core.request() as call:
                    call.take(len(message))
                    async with self.core.in_time(context.time_remaining()):
                        parsed = await call.aside(len(message), _parsed, request, message)
                        response, failure = await answer(parsed, call), None
            except RequestError as error:
                response, failure = None, error
            except Exception:
                # Nothing that a client sends may end the server or show its insides.
                _logger.exception("gRPC %s", request.DESCRIPTOR.name)
                response = None
                failure = RequestError(Code.INTERNAL, FAILED)
            if api:
                status = failure.code.name if failure else "OK"
                seconds = time.perf_counter() - started
                self.core.metrics.answered(api=api, entrypoint="GRPC", status=status, seconds=seconds)
            if failure:
                await context.abort(_STATUSES[failure.code], failure.message)
            return response

        return grpc.unary_unary_rpc_method_handler(
            handle,
            response_serializer=lambda response: response.SerializeToString(),
        )

    def _check_token(self, context: Any) -> None:
        given = next((value for name, value in context.invocation_metadata() if name == "authorization"), "")
        if not self.core.knows(given.encode() if isinstance(given, str) else given):
            raise RequestError(Code.UNAUTHENTICATED, "send the metadata authorization: Bearer <token>")


def _parsed(kind: Any, message: bytes) -> Any:
    """Reads a message here, as gRPC would tell of one that cannot be read as of its own failure."""
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise invalid(f"the message is no {kind.DESCRIPTOR.full_name}") from error


def _arrays(request: Any) -> Arrays:
    return {alias: array_of(tensor, alias) for alias, tensor in request.inputs.items()}


def _add_outputs(response: Any, chosen: list[str], outputs: Arrays) -> None:
    for alias in chosen:
        response.outputs[alias].CopyFrom(message_of(outputs[alias]))


def _add_classifications(result: Any, outputs: Arrays) -> None:
    for names, scores in zip(outputs[CLASSES], outputs[SCORES].tolist(), strict=True):
        classes = result.classifications.add().classes
        for name, score in zip(names, scores, strict=True):
            classes.add(label=name.decode("utf-8", "replace"), score=score)


def _asked(spec: Any) -> tuple[str, int | None, str | None]:
    choice = spec.WhichOneof("version_choice")
    return (
        spec.name,
        spec.version.value if choice == "version" else None,
        spec.version_label if choice == "version_label" else None,
    )


def _chosen(wanted: list[str], outputs: list[str]) -> list[str]:
    for place, alias in enumerate(wanted):
        if alias not in outputs:
            raise invalid(
                f"output tensor alias not found in signature: {alias} Outputs expected to be in the set "
                f"{{{','.join(outputs)}}}."
            )
        if alias in wanted[:place]:
            raise invalid(f"duplicate output tensor alias: {alias}")
    return wanted or outputs
