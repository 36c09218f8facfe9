"""The base of every part of a config: unknown keys refused, values frozen, numbers finite, no silent conversions."""

from __future__ import annotations

import types
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

__all__ = ["Section", "alternatives", "read_value"]


class Section(BaseModel):
    """A part of a config.

    Values are taken as YAML means them and not converted, so that a mistake is seen: ``true`` is no number, ``"3"`` and
    ``3.0`` are no whole number, ``no`` is no text. Two exceptions: where a number is expected the text ``1e-5`` is one
    (PyYAML reads it as text), and where a tuple is expected a list is one (YAML has no tuples).
    """

    one_value: ClassVar[bool] = False
    """Whether a config writes this class as a single value, not as keys below a heading."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _read_yaml_value(cls, value: Any, info: ValidationInfo) -> Any:
        return read_value(value, cls.model_fields[str(info.field_name)].annotation)


def alternatives(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone, without ``Annotated``."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in alternatives(part)]
    return [annotation]


def read_value(value: Any, annotation: Any) -> Any:
    """Turn what YAML holds into what a field of this annotation takes: text to float, list to tuple, else as it is."""
    members = alternatives(annotation)
    if isinstance(value, str) and float in members and str not in members:
        try:
            return float(value)
        except ValueError:
            return value  # pydantic reports it, with its path
    if isinstance(value, list):
        for member in members:
            origin, arguments = get_origin(member), get_args(member)
            if origin is list and arguments:
                return [read_value(item, arguments[0]) for item in value]
            if origin is tuple and arguments:
                each = [arguments[0]] * len(value) if arguments[-1] is ... else [*arguments, *[Any] * len(value)]
                return tuple(read_value(item, kind) for item, kind in zip(value, each, strict=False))
    return value
