"""Values of a workflow file: their types, ranges, and what is said of wrong ones."""

from __future__ import annotations

import os
import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from tfapp.data.datasets import DATASETS
from tfapp.errors import nearest

SERVICE = re.compile(r"grpc://[^/:\s]+:\d{1,5}")
VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
ImageSide = Annotated[int, Field(ge=32, le=4096)]
NotNegative = Annotated[float, Field(ge=0.0)]

# Written out, since the modules that have them are slow to import; a test compares.
ImageCorruptionName = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "gaussian_blur",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "brightness",
    "fog",
    "frost",
    "snow",
    "contrast",
    "saturate",
    "pixelate",
    "jpeg_compression",
    "elastic_transform",
]
TextCorruptionName = Literal["typos", "case", "punctuation", "emoji", "whitespace", "asr"]
CorruptionName = Literal[ImageCorruptionName, TextCorruptionName]
EditName = Literal[
    "drop",
    "homoglyph",
    "insert",
    "keyboard",
    "swap",
    "synonym",
    "zh_homophone",
    "zh_lookalike",
    "zh_script",
    "zh_swap",
    "zh_symbol",
    "zh_width",
]


def _check_name(value: Any) -> Any:
    if isinstance(value, str) and not _NAME.fullmatch(value):
        raise PydanticCustomError(
            "name",
            "it becomes a folder and a model name: 1 to 64 of a-z, 0-9, '_', '-', first a letter or digit",
        )
    return value


def _check_variables(value: Any) -> Any:
    for variable in VARIABLE.findall(value) if isinstance(value, str) else ():
        if not os.environ.get(variable):
            raise PydanticCustomError(
                "variable",
                "the environment variable {variable} is not set; set it to the folder that is meant, such as "
                "`export {variable}=/path/to/data`",
                {"variable": variable},
            )
    return value


def check_trained_part(value: Any) -> Any:
    """Refuses what is no part of a model to train.

    Args:
        value: What the file has.

    Returns:
        The same value.

    Raises:
        PydanticCustomError: If it cannot be used; the message says what would be right.
    """
    if value in ("head", "all"):
        return value
    top = value.get("top") if isinstance(value, dict) and set(value) == {"top"} else None
    if isinstance(top, int) and not isinstance(top, bool) and top >= 1:
        return value
    raise PydanticCustomError(
        "trained_part", "choices: 'head', 'all', or { top = k } for the top k blocks, k a whole number from 1"
    )


def check_ascending(value: list[int]) -> list[int]:
    """Refuses a stretch that ends before it begins.

    Args:
        value: Its first and its last step.

    Returns:
        The same value.

    Raises:
        PydanticCustomError: If it cannot be used.
    """
    if value[0] > value[1]:
        raise PydanticCustomError("ascending", "the first step comes first, and then the last")
    return value


def _check_dataset(value: Any) -> Any:
    if isinstance(value, str) and value not in DATASETS:
        raise PydanticCustomError(
            "dataset",
            "no packaged data set (a path goes with `train`); {choices}",
            {"choices": nearest(value, DATASETS)},
        )
    return value


def _check_service(value: Any) -> Any:
    if isinstance(value, str) and not SERVICE.fullmatch(value):
        raise PydanticCustomError(
            "service", "give the address that `tfapp data serve` prints, such as 'grpc://127.0.0.1:5050'"
        )
    return value


PathText = Annotated[str, BeforeValidator(_check_variables), Field(min_length=1)]
Name = Annotated[str, BeforeValidator(_check_name)]
DatasetName = Annotated[str, BeforeValidator(_check_dataset)]
ServiceAddress = Annotated[str, BeforeValidator(_check_service)]
