"""A name from a registry, with options: how a recipe says which method, which objective."""

from __future__ import annotations

import re
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_serializer, model_validator

from diffpref.config.problems import config_error
from diffpref.config.section import Section

__all__ = ["Named"]

M = TypeVar("M", bound=BaseModel)
_EXPECTED = "must be a name or {name: {option: value}}"


class Named(Section):
    """``dpo``, or ``{dpo: {beta: 100}}``. Who owns the registry checks the name, and the options with `validate_with`.

    >>> Named.model_validate({"dpo": {"beta": 100}}).name
    'dpo'
    """

    one_value: ClassVar[bool] = True

    name: str = Field(description="registry name or alias")
    options: dict[str, Any] = Field(default_factory=dict, description="options of the named thing")

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, Named):
            return value
        if isinstance(value, str):
            value = {value: {}}
        if not isinstance(value, dict):
            raise ValueError(f"{_EXPECTED}, got {value!r}")
        if "name" in value and value.keys() <= {"name", "options"} and isinstance(value["name"], str):
            name, options = value["name"], value.get("options")
        elif len(value) != 1:
            raise ValueError(f"{_EXPECTED}, got {len(value)} keys: {', '.join(map(str, value))}")
        else:
            name, options = next(iter(value.items()))
        options = {} if options is None else options
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z][\w-]*", name, re.ASCII)):
            raise ValueError(f"{_EXPECTED}, got {name!r}; names are letters, digits, '_' and '-'")
        if not (isinstance(options, dict) and all(isinstance(key, str) for key in options)):
            raise ValueError(f"options of '{name}' must be keys and values, got {options!r}")
        return {"name": name, "options": options}

    @model_serializer
    def _write(self) -> str | dict[str, dict[str, Any]]:
        return {self.name: dict(self.options)} if self.options else self.name

    def __str__(self) -> str:
        return self.name

    def validate_with(self, model: type[M], path: str) -> M:
        """Return the options as an instance of the class that declares them.

        Args:
            model: the pydantic class of the options.
            path: where this name stands in the config, for messages: ``"method"``.

        Raises:
            ConfigError: every problem, a line each.
        """
        try:
            return model.model_validate(dict(self.options))
        except ValidationError as error:
            raise config_error(error, model, path) from None
