"""The OpenAPI description of the REST interface, for the model that is served."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfapp import __version__
from tfapp.release.serving_files import METRICS_PATH
from tfapp.serving.server.loaded import DEFAULT_SIGNATURE, LoadedModel

if TYPE_CHECKING:
    from tfapp.serving.server.core import Core

OPEN_PATHS = ("/healthz", "/readyz")
"""What is answered without the token."""

_BASE64 = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64", "format": "byte"}},
    "required": ["b64"],
    "additionalProperties": False,
}
_ERROR = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
_REFUSALS = {
    "400": "The request is wrong in itself.",
    "401": "A token is asked for, and was not sent.",
    "404": "No such model or version is served.",
    "405": "Another method is needed.",
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body's encoding is not taken.",
    "429": "The queue is full; try again.",
    "500": "The server failed.",
    "503": "No version is served, or the server is shutting down.",
    "504": "The request was not answered in time.",
}


def describe(core: Core) -> dict[str, Any]:
    """Describes what is served.

    Args:
        core: What answers requests.

    Returns:
        An OpenAPI 3.1 document.
    """
    model = core.versions.newest()
    name = core.versions.name
    paths: dict[str, Any] = {
        "/healthz": {"get": _look("Whether the process is alive.", {"type": "object"})},
        "/readyz": {"get": _look("Whether requests are welcome.", {"type": "object"})},
        METRICS_PATH: {
            "get": _look("Metrics in Prometheus' text format.", {"type": "string"}, kind="text/plain")
        },
        "/openapi.json": {"get": _look("This description.", {"type": "object"})},
    }
    for where, words in (
        ("", "the newest version"),
        ("/versions/{version}", "one version"),
        ("/labels/{label}", "a labelled version"),
    ):
        base = f"/v1/models/{name}{where}"
        given = [_parameter(place) for place in ("version", "label") if f"{{{place}}}" in where]
        paths[base] = {"get": _look(f"State of {words}.", _STATUS), "parameters": given}
        paths[f"{base}/metadata"] = {
            "get": _look(f"Signatures of {words}.", {"type": "object"}),
            "parameters": given,
        }
        paths[f"{base}:predict"] = {
            "post": _ask(f"Asks {words}.", _predict(model), _answer(model)),
            "parameters": given,
        }
        for verb, summary in (
            ("classify", f"Asks {words} for the scores of classes; releases have `classify` for it."),
            ("regress", "Answered with TensorFlow Serving's error: releases have no signature for it."),
        ):
            paths[f"{base}:{verb}"] = {
                "post": _ask(summary, _EXAMPLES, _RESULTS),
                "parameters": given,
            }
    description: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": f"{name}, served by tfapp", "version": __version__},
        "paths": paths,
    }
    if core.settings.token is not None:
        description["components"] = {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}
        description["security"] = [{"token": []}]
        for path in OPEN_PATHS:
            paths[path]["get"]["security"] = []
    return description


_STATUS = {
    "type": "object",
    "properties": {
        "model_version_status": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "version": {"type": "string"},
                    "state": {"type": "string"},
                    "status": {
                        "type": "object",
                        "properties": {
                            "error_code": {"type": "string"},
                            "error_message": {"type": "string"},
                        },
                    },
                },
                "required": ["version", "state", "status"],
            },
        }
    },
    "required": ["model_version_status"],
}
_EXAMPLES = {
    "type": "object",
    "properties": {
        "signature_name": {"type": "string"},
        "context": {"type": "object"},
        "examples": {"type": "array", "items": {"type": "object"}, "minItems": 1},
    },
    "required": ["examples"],
}
_RESULTS = {
    "type": "object",
    "properties": {
        "results": {
            "type": "array",
            "items": {
                "type": "array",
                "items": {
                    "type": "array",
                    "prefixItems": [{"type": "string"}, {"type": "number"}],
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
        }
    },
    "required": ["results"],
}


def _parameter(place: str) -> dict[str, Any]:
    schema = {"type": "integer", "minimum": 0} if place == "version" else {"type": "string", "minLength": 1}
    return {"name": place, "in": "path", "required": True, "schema": schema}


def _look(summary: str, schema: dict[str, Any], *, kind: str = "application/json") -> dict[str, Any]:
    codes = ("400", "401", "404", "503")
    return {
        "summary": summary,
        "responses": {"200": _content("The answer.", schema, kind), **_refusals(codes)},
    }


def _ask(summary: str, request: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
        "responses": {"200": _content("The answer.", answer), **_refusals(tuple(_REFUSALS))},
    }


def _refusals(codes: tuple[str, ...]) -> dict[str, Any]:
    return {code: _content(_REFUSALS[code], _ERROR) for code in codes}


def _content(text: str, schema: dict[str, Any], kind: str = "application/json") -> dict[str, Any]:
    return {"description": text, "content": {kind: {"schema": schema}}}


def _predict(model: LoadedModel | None) -> dict[str, Any]:
    """The schema of a request to ``:predict``."""
    if model is None:
        return {"type": "object"}
    values = _tensors(model)
    named = {
        "type": "object",
        "properties": values,
        "required": sorted(values),
        "additionalProperties": False,
    }
    rows: list[dict[str, Any]] = [named]
    columns: list[dict[str, Any]] = [
        {**named, "properties": {alias: {"type": "array", "items": value} for alias, value in values.items()}}
    ]
    if len(values) == 1:
        (value,) = values.values()
        rows.append(value)
        columns.append({"type": "array", "items": value, "minItems": 1})
    signature = {"type": "string", "enum": [DEFAULT_SIGNATURE]}
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {
                    "signature_name": signature,
                    "instances": {"type": "array", "minItems": 1, "items": {"anyOf": rows}},
                },
                "required": ["instances"],
                "additionalProperties": False,
            },
            {
                "type": "object",
                "properties": {"signature_name": signature, "inputs": {"anyOf": columns}},
                "required": ["inputs"],
                "additionalProperties": False,
            },
        ]
    }


def _tensors(model: LoadedModel) -> dict[str, Any]:
    """The schema of one row of each input of the default signature."""
    schemas: dict[str, Any] = {}
    for alias, info in model.signatures[DEFAULT_SIGNATURE].inputs.items():
        dtype = tf.dtypes.as_dtype(info.dtype)
        if dtype == tf.string:
            schema: dict[str, Any] = {
                "anyOf": [_BASE64] if alias == "image_bytes" else [{"type": "string"}, _BASE64]
            }
        else:
            schema = {"type": "integer" if dtype.is_integer else "number"}
        for _ in info.tensor_shape.dim[1:]:
            schema = {"type": "array", "items": schema}
        schemas[alias] = schema
    return schemas


def _answer(model: LoadedModel | None) -> dict[str, Any]:
    """The schema of an answer to ``:predict``."""
    outputs = model.signatures[DEFAULT_SIGNATURE].outputs if model is not None else []
    row = {"type": "object", "required": list(outputs)}
    return {
        "oneOf": [
            {
                "type": "object",
                "properties": {"predictions": {"type": "array", "items": row}},
                "required": ["predictions"],
            },
            {"type": "object", "properties": {"outputs": row}, "required": ["outputs"]},
        ]
    }
