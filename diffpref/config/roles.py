"""The ``roles`` section of a recipe: what differs from the roles that a method declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields, replace
from typing import Any, Literal, get_type_hints

from pydantic import BaseModel, Field, create_model

from diffpref.config.named import Named
from diffpref.config.section import Section
from diffpref.core.annotations import Positive
from diffpref.core.errors import ConfigError, suggest
from diffpref.core.roles import Ema, Every, RoleSpec, Snapshots, Source, Update
from diffpref.core.vocabulary import TRAINED

__all__ = ["RoleSettings", "resolve_roles"]

RULES: Mapping[str, type[Every] | type[Ema] | type[Snapshots]] = {"every": Every, "ema": Ema, "snapshots": Snapshots}
STILL: tuple[Literal["never", "round"], ...] = ("never", "round")


class RoleSettings(Section):
    """What replaces a role's declaration; what is not given stays the method's."""

    source: Source | None = Field(default=None, description="where the weights come from")
    update: Named | None = Field(
        default=None,
        description="never, round, {every: {updates, tau}}, {ema: {decay, every, ramp, flat}} or"
        " {snapshots: {every, draw, keep, draw_every}}",
    )
    path: str | None = Field(default=None, min_length=1, description="model or LoRA, for source path")
    trained: bool | None = Field(default=None, description="train it beside the policy")
    learning_rate_scale: Positive | None = Field(default=None, description="of a trained role, times the policy's")


def resolve_roles(declared: Mapping[str, RoleSpec], given: Mapping[str, RoleSettings]) -> dict[str, RoleSpec]:
    """Return the roles of a run: those of the method with what the recipe replaces.

    A recipe that gives a ``path`` means source path; one that gives a source means to leave the method's path.

    Raises:
        ConfigError: every role that the method does not have and every setting that cannot be, a line each.
    """
    specs, found = dict(declared), []
    for name, settings in given.items():
        path = f"roles.{name}"
        if name == "policy":
            found.append(f"{path}: the policy is what is trained; adapter and model say where it starts")
        elif name not in declared:
            hint = suggest(name, declared) or ";"
            found.append(f"{path}: the method has no such role{hint} it has {', '.join(sorted(declared)) or 'none'}")
        else:
            try:
                specs[name] = replace(declared[name], **dict(_changes(settings, path)))
            except ConfigError as error:
                lines = str(error).splitlines()
                found += [line if line.startswith(path) else f"{path}.{line}" for line in lines]
    for name, spec in specs.items():
        if spec.trained and name not in TRAINED:
            found.append(f"roles.{name}.trained: gradients flow into {' and '.join(TRAINED)} only; use the role 'peer'")
    if found:
        raise ConfigError("\n".join(found))
    return specs


def _changes(settings: RoleSettings, path: str) -> Iterator[tuple[str, Any]]:
    given = {name: getattr(settings, name) for name in settings.model_fields_set}
    given = {name: value for name, value in given.items() if value is not None}
    if "path" in given:
        given.setdefault("source", "path")
    elif "source" in given:
        given["path"] = None
    if "update" in given:
        given["update"] = _rule(given["update"], f"{path}.update")
    yield from given.items()


def _rule(named: Named, path: str) -> Update:
    """Read an update rule."""
    for still in STILL:
        if named.name == still:
            if named.options:
                raise ConfigError(f"{path}: '{still}' takes no options, got {', '.join(named.options)}")
            return still
    known = (*STILL, *RULES)
    if named.name not in RULES:
        raise ConfigError(
            f"{path}: unknown '{named.name}'{suggest(named.name, known) or ';'} known: {', '.join(known)}"
        )
    kind = RULES[named.name]
    options = named.validate_with(_options(kind), f"{path}.{named.name}")
    try:
        return kind(**options.model_dump())
    except ConfigError as error:
        raise ConfigError(f"{path}.{named.name}.{error}") from error


def _options(kind: type[Any]) -> type[BaseModel]:
    """Return a section with the fields of a rule, whose types and names are then checked as everywhere in a recipe."""
    hints = get_type_hints(kind)
    keys: dict[str, Any] = {
        field.name: (hints[field.name], ... if field.default is MISSING else field.default) for field in fields(kind)
    }
    return create_model(kind.__name__, __base__=Section, **keys)
