"""Which operators a .tflite file needs, read from the file itself."""

from __future__ import annotations

from ai_edge_litert import schema_py_generated as schema

from tfapp.errors import WeightsError

TEXT_OPERATORS = frozenset(
    {
        "FastBertNormalize",
        "FastWordpieceTokenizeWithOffsets",
        "RaggedTensorToTensor",
        "TFText>FastSentencepieceTokenize",
    }
)
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}


def operators(content: bytes) -> tuple[set[str], set[str]]:
    """Lists the operators of a model.

    Args:
        content: A ``.tflite`` file.

    Returns:
        The names of its builtin operators, and the codes of its custom ones.
    """
    model = schema.Model.GetRootAs(content, 0)
    builtin: set[str] = set()
    custom: set[str] = set()
    for index in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(index)
        # Codes above 126 do not fit into the older, deprecated field; older files have only that one.
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number == schema.BuiltinOperator.CUSTOM:
            custom.add((code.CustomCode() or b"").decode("utf-8", "replace"))
        else:
            builtin.add(_NAMES.get(number, str(number)))
    return builtin, custom


def check_operators(content: bytes, *, allowed_custom: frozenset[str] = frozenset()) -> None:
    """Refuses a model that the LiteRT runtime of the Python package could not run.

    Args:
        content: A ``.tflite`` file.
        allowed_custom: Codes of the custom operators that the file may need.

    Raises:
        WeightsError: When the file needs TensorFlow's Flex delegate or another custom operator, or keeps
            its weights in variables, which are empty in a new interpreter.
    """
    builtin, custom = operators(content)
    foreign = sorted(custom - allowed_custom)
    if foreign:
        raise WeightsError(
            f"the model needs {', '.join(foreign)}, which are no TFLite builtins: phones and the LiteRT "
            "package cannot run it. Replace those layers of the model, or leave the variant out."
        )
    if "VAR_HANDLE" in builtin:
        raise WeightsError("the weights were not frozen into the file: it would answer with empty variables.")
