"""YAML files: read strictly, written so that reading gives the same value back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from diffpref.core.errors import ConfigError

__all__ = ["MAX_BYTES", "MAX_DEPTH", "dump_yaml", "load_yaml", "parse_yaml"]

MAX_BYTES = 1 << 20
MAX_DEPTH = 32


class _StrictLoader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice; PyYAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.tag != "tag:yaml.org,2002:str":
                raise _Refused(line, f"keys must be text, got {getattr(key, 'value', key)!r}; put quotes around it")
            if key.value in lines:
                raise _Refused(line, f"key '{key.value}' is given twice, first on line {lines[key.value]}")
            lines[key.value] = line
        return super().construct_mapping(node, deep=deep)


class _Refused(Exception):
    def __init__(self, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")


def _check_structure(text: str) -> None:
    """Look at the events before anything is built: nesting, aliases and tags cannot do harm here."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            raise _Refused(line, "a second document starts; one is expected")
        if isinstance(event, yaml.AliasEvent):
            raise _Refused(line, f"alias '*{event.anchor}' is not supported; write the value out")
        if isinstance(event, yaml.NodeEvent) and (tag := getattr(event, "tag", None)) is not None:
            raise _Refused(line, f"tag '{tag}' is not supported; only plain values are")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _Refused(line, f"nested deeper than {MAX_DEPTH} levels")


def parse_yaml(text: str, *, where: str = "YAML") -> Any:
    """Read one YAML value.

    Args:
        text: the document.
        where: what the text is, for messages.

    Raises:
        ConfigError: not YAML, a key given twice or not text, a tag, an alias, a second document, or nested too deep.
    """
    try:
        _check_structure(text)
        return yaml.load(text, Loader=_StrictLoader)
    except _Refused as error:
        raise ConfigError(f"{where}, {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{where}{line}: not readable as YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:  # a character YAML forbids; a date such as 2024-13-45
        raise ConfigError(f"{where}: not readable as YAML: {' '.join(str(error).split())}") from None


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Read a file that holds one mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: missing, over 1 MiB, not UTF-8, not a mapping, or refused by `parse_yaml`.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path}: larger than 1 MiB; this is no config")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (byte {error.start})") from None
    value = parse_yaml(text, where=str(path))
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: must hold keys and values, got a {type(value).__name__}")
    return value


def dump_yaml(value: Any) -> str:
    """Return plain values (dicts, lists, text, numbers, booleans, None) as YAML, keys in their own order.

    Raises:
        ConfigError: something in it is not a plain value.
    """
    try:
        return yaml.dump(value, Dumper=_PlainDumper, sort_keys=False, allow_unicode=True, width=110)
    except yaml.representer.RepresenterError as error:
        raise ConfigError(f"cannot be written as YAML: {error}") from None


class _PlainDumper(yaml.SafeDumper):
    """Writes a list that occurs twice as two lists, since the reader takes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
