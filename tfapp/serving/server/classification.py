"""What TensorFlow Serving's method Classify needs: signatures that can be asked, and examples."""

from __future__ import annotations

from typing import Any

from tfapp.serving.server.loaded import DEFAULT_SIGNATURE, LoadedModel
from tfapp.serving.server.signatures import Arrays, Signature
from tfapp.serving.server.status import RequestError, invalid
from tfapp.serving.server.tensors import as_strings

INPUTS, CLASSES, SCORES = "inputs", "classes", "scores"
"""What the tensors of a signature to classify with are called."""


def classifying(model: LoadedModel, name: str) -> Signature:
    """Finds a signature that can be asked to classify.

    As TensorFlow Serving does by default, it looks at inputs and outputs, and not at the name of the method.

    Args:
        model: The model.
        name: The name a client gave; empty for the default.

    Returns:
        The signature; releases have one of the name ``classify``.

    Raises:
        RequestError: When there is none, in TensorFlow Serving's words.
    """
    signature = _named(model, name)
    if len(signature.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    if len(signature.outputs) not in (1, 2):
        raise invalid(f"Expected one or two output Tensors, found {len(signature.outputs)}")
    if INPUTS not in signature.inputs:
        raise invalid(f"No classification inputs found in SignatureDef: {signature.definition}")
    if set(signature.outputs) != {CLASSES, SCORES}:
        raise invalid(
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or '
            f'"{SCORES}". Signature was: {signature.definition}'
        )
    return signature


def not_regressing(model: LoadedModel, name: str) -> RequestError:
    """Says why a signature cannot be asked to regress: those of releases have several outputs.

    Args:
        model: The model.
        name: The name a client gave; empty for the default.

    Returns:
        The error, in TensorFlow Serving's words.
    """
    inputs = len(_named(model, name).inputs)
    return invalid(f"Expected one {'output' if inputs == 1 else 'input'} Tensor.")


def count_of(given: Any) -> int:
    """Counts the examples of a message.

    Args:
        given: An ``Input``.

    Returns:
        How many there are.

    Raises:
        RequestError: When there are none.
    """
    count = len(_listed(given).examples)
    if not count:
        raise invalid("Input is empty.")
    return count


def examples_of(given: Any) -> Arrays:
    """Reads the examples of a message.

    Args:
        given: An ``Input``.

    Returns:
        The inputs of a signature to classify with: each example, after what all have in common.
    """
    listed = _listed(given)
    context = listed.context.SerializeToString() if "context" in listed.DESCRIPTOR.fields_by_name else b""
    return {INPUTS: as_strings([context + example.SerializeToString() for example in listed.examples])}


def _listed(given: Any) -> Any:
    return getattr(given, given.WhichOneof("kind") or "example_list")


def _named(model: LoadedModel, name: str) -> Signature:
    wanted = name or DEFAULT_SIGNATURE
    if wanted not in model.signatures:
        raise invalid(f"No signature was found with the name: {wanted}")
    return model.signatures[wanted]
