"""Checksums of arrays and descriptions of functions: how caches and checkpoints know what they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
import numpy.typing as npt

from tfapp.errors import ConfigError

_NUMBERS_AND_TEXTS = (bool, int, float, str, type(None))


def digest(*arrays: npt.NDArray[Any]) -> str:
    """Computes the checksum of arrays of numbers, of any type.

    Args:
        arrays: The arrays.

    Returns:
        SHA-256 of their values and shapes, hexadecimal.
    """
    checksum = hashlib.sha256()
    for array in arrays:
        checksum.update(f"{array.dtype} {array.shape} ".encode())
        checksum.update(array.tobytes())
    return checksum.hexdigest()


def describe_callable(value: Any) -> Any:
    """Describes a function, or what one holds, by plain values that are the same in every process.

    A partial is told by its function and arguments. A function is told by its name and code, its defaults,
    the values that it closes over, and the numbers and texts among the globals that it reads; other functions
    that it calls by name are told by that name only.

    Args:
        value: A function, a method, a partial, a class, or an object that can be called; or numbers, texts,
            arrays and collections of them.

    Returns:
        Texts, numbers, lists and dictionaries of them.

    Raises:
        ConfigError: When it holds a value that has no such description.
    """
    return _described(value, getattr(value, "__qualname__", type(value).__qualname__), ())


def _described(value: Any, name: str, within: tuple[Any, ...]) -> Any:
    """Describes a value that messages call ``name``; ``within`` are the functions that hold it."""
    if isinstance(value, _NUMBERS_AND_TEXTS):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return digest(value)
    if isinstance(value, bytes | Path):
        return repr(value)
    if isinstance(value, list | tuple):
        return [_described(each, name, within) for each in value]
    if isinstance(value, set | frozenset):
        return sorted(map(repr, value))
    if isinstance(value, Mapping):
        return {str(key): _described(each, str(key), within) for key, each in value.items()}
    if any(value is around for around in within):
        return name
    if isinstance(value, partial):
        given = {"of": value.func, "arguments": value.args, "settings": value.keywords}
        return _described(given, name, (*within, value))
    if isinstance(value, FunctionType):
        return _function(value, (*within, value))
    if isinstance(value, MethodType):
        return _described({"method": value.__func__, "of": value.__self__}, name, (*within, value))
    if hasattr(value, "__wrapped__"):
        return _described(value.__wrapped__, name, (*within, value))
    if callable(value) and hasattr(value, "__qualname__"):
        return _full_name(value)
    if callable(value) and hasattr(value, "__dict__"):
        inner = (*within, value)
        settings = {key: _described(each, name, inner) for key, each in vars(value).items()}
        call = _described(type(value).__call__, name, inner)
        return {"object": _full_name(type(value)), "call": call, "settings": settings}
    raise ConfigError(
        f"{name} is or holds a {type(value).__qualname__}, by which a run cannot be told from others: give "
        "functions numbers, texts, arrays and other functions only."
    )


def _function(function: FunctionType, within: tuple[Any, ...]) -> dict[str, Any]:
    closed_over = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        closed_over[name] = _described(cell.cell_contents, name, within)
    codes = list(_codes(function.__code__))
    names = {name for code in codes for name in code.co_names if name in function.__globals__}
    read = {name: function.__globals__[name] for name in sorted(names)}
    return {
        "function": _full_name(function),
        "code": hashlib.sha256(repr([_instructions(code) for code in codes]).encode()).hexdigest(),
        "defaults": _described([function.__defaults__, function.__kwdefaults__], "a default", within),
        "closes_over": closed_over,
        "reads": {name: value for name, value in read.items() if isinstance(value, _NUMBERS_AND_TEXTS)},
    }


def _codes(code: CodeType) -> Iterator[CodeType]:
    """The code of a function and of those inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _instructions(code: CodeType) -> list[Any]:
    # The order of a set of constants differs between processes.
    constants = [
        sorted(map(repr, constant)) if isinstance(constant, frozenset) else repr(constant)
        for constant in code.co_consts
        if not isinstance(constant, CodeType)
    ]
    return [code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants]


def _full_name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
