"""Words what pydantic finds wrong in a workflow file: where, what, and what would be right."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from tfapp.errors import nearest

_WORDS = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "string_type": "must be a text in quotes",
    "bool_type": "must be true or false",
    "list_type": "must be a list in [ ]",
    "dict_type": "must be a section of name = value",
    "model_type": "must be a section",
    "model_attributes_type": "must be a section",
    "missing": "missing; add it",
    "string_too_short": "must not be empty",
    "too_short": "must not be empty",
}


def describe(
    problems: Sequence[ErrorDetails], schema: type[BaseModel], path: Path, overrides: Sequence[str]
) -> str:
    """Words the findings of pydantic, a line for each key: file, key, value, what is wrong, and the cure.

    Args:
        problems: What pydantic found.
        schema: The model of the whole file.
        path: The file.
        overrides: The ``key=value`` settings that replaced some of its keys.

    Returns:
        The lines.
    """
    models = set(_model_names(schema))
    overridden = [override.partition("=")[0].strip() for override in overrides]
    findings: dict[str, list[str]] = {}
    for problem in problems:
        location = [part for part in problem["loc"] if isinstance(part, int) or _is_key(part, models)]
        key = ".".join(str(part) for part in location)
        from_override = any(f"{key}.".startswith(f"{name}.") for name in overridden if name)
        where = ": ".join(filter(None, ["--set" if from_override else str(path), key]))
        value = problem["input"]
        if problem["type"] not in ("extra_forbidden", "missing") and not isinstance(value, Mapping):
            where += f" = {value!r}"
        findings.setdefault(where, []).append(_explain(problem, schema, location))
    return "\n".join(f"{where}: {' or '.join(dict.fromkeys(texts))}" for where, texts in findings.items())


def _explain(problem: ErrorDetails, schema: type[BaseModel], location: Sequence[str | int]) -> str:
    """Says what is wrong with one value, and what would be right."""
    if problem["type"] == "extra_forbidden":
        section = _section_at(schema, location[:-1])
        return f"unknown key; {nearest(str(location[-1]), section.model_fields)}"
    if problem["type"] == "literal_error":
        choices = re.findall(r"'([^']*)'", str(problem["ctx"]["expected"]))
        return nearest(str(problem["input"]), choices)
    return _WORDS.get(problem["type"], problem["msg"].replace("Input should be", "must be"))


def _is_key(part: str, models: Collection[str]) -> bool:
    """Tells keys of the file from the names of union members, which pydantic puts in locations."""
    return part.isidentifier() and part not in models


def _section_at(schema: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel]:
    """Finds the model of the section at a location, for the names of its keys."""
    section = schema
    for part in location:
        if isinstance(part, str):
            section = next(_models_in(section.model_fields[part].annotation))
    return section


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_in(argument)


def _model_names(schema: type[BaseModel]) -> Iterator[str]:
    yield schema.__name__
    for field in schema.model_fields.values():
        for model in _models_in(field.annotation):
            yield from _model_names(model)
