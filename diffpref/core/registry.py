"""Names to things: what a recipe may say, found without importing what is heavy.

A registry of light things (objectives, methods) imports every module of a package once, and the modules register their
functions with a decorator. A registry of heavy things (families, rewards, pipelines) takes a module's name for the
thing's name and imports it on use. Other distributions take part through an entry-point group.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from diffpref.core.errors import ConfigError, suggest

__all__ = ["Registry"]

T = TypeVar("T")

LISTED = 30
"""Names that an error lists; more would hide what it says."""


class Registry(Generic[T]):
    """A namespace of things of one kind.

    Args:
        kind: what the things are, for messages: ``"objective"``.
        package: the package whose modules hold them.
        lazy: import a module only when a thing of its name is asked for.
        group: entry-point group through which other distributions add things.
    """

    def __init__(self, kind: str, package: str, *, lazy: bool = False, group: str | None = None) -> None:
        self.kind, self.package, self.lazy = kind, package, lazy
        self.group = group or package
        self._things: dict[str, T] = {}
        self._aliases: dict[str, str] = {}
        self._origins: dict[str, str] = {}
        self._discovered = False

    def register(self, name: str, *, aliases: tuple[str, ...] = ()) -> Callable[[T], T]:
        """Return a decorator that adds a thing under a name; an alias finds it, but is not listed.

        Raises:
            ConfigError: the name, or an alias, is taken by something else.
        """

        def add(thing: T) -> T:
            origin = f"{getattr(thing, '__module__', '')}.{getattr(thing, '__qualname__', name)}"
            for word in (name, *aliases):
                owner = self._aliases.get(word, word)
                taken = self._origins.get(owner)
                if taken is not None and (taken != origin or owner != name):
                    raise ConfigError(f"{self.kind} '{word}' is registered twice: by {taken} and by {origin}")
            self._things[name], self._origins[name] = thing, origin
            self._aliases.update(dict.fromkeys(aliases, name))
            return thing

        return add

    def _modules(self) -> list[str]:
        package = importlib.import_module(self.package)
        return [m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_")]

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        if not self.lazy:
            for module in self._modules():
                importlib.import_module(f"{self.package}.{module}")
        for point in entry_points(group=self.group):
            if point.name not in self._things:
                self.register(point.name)(point.load())

    def names(self) -> list[str]:
        """Return all canonical names, sorted."""
        self._discover()
        return sorted({*self._things, *(self._modules() if self.lazy else ())})

    def aliases(self, name: str) -> list[str]:
        """Return the other names of a thing."""
        self._discover()
        return sorted(alias for alias, target in self._aliases.items() if target == name)

    def canonical(self, name: str) -> str:
        """Return the canonical form of a name or alias.

        Raises:
            ConfigError: unknown, with the closest known name.
        """
        self._discover()
        known = self.names()
        if name in known:
            return name
        if name in self._aliases:
            return self._aliases[name]
        hint = suggest(name, [*known, *self._aliases]) or ";"
        listed = ", ".join(known) if len(known) <= LISTED else f"{len(known)} names, see 'diffpref list'"
        raise ConfigError(f"unknown {self.kind} '{name}'{hint} known: {listed}")

    def get(self, name: str) -> T:
        """Return the thing of a name or alias, importing it if need be."""
        name = self.canonical(name)
        if name not in self._things:
            importlib.import_module(f"{self.package}.{name}")
        if name not in self._things:
            raise ConfigError(f"module {self.package}.{name} registers no {self.kind} '{name}'")
        return self._things[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self.names() or name in self._aliases)
