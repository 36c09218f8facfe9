"""Write the pages that the code itself knows: every public name, what a recipe may say, what a command line may say.

``docs/conf.py`` writes them before each build, so they cannot be stale; `tests/house/test_docs_pages.py` reads them
without sphinx and compares them with every ``__all__``.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from diffpref.cli import COMMANDS
from diffpref.cli.registries import REGISTRIES, description, registry, short_forms
from diffpref.config import Recipe
from diffpref.config.problems import dotted_names
from diffpref.core.annotations import Scale

__all__ = ["home", "pages", "public_modules", "write_pages"]

ROOMS = {
    "core": "Types and protocols, the vocabulary of tensor names, registries, errors, keyed randomness.",
    "config": "Recipes: sections, files, command line.",
    "objectives": "Pure functions from log-likelihoods to losses.",
    "likelihood": "How the answers of a model become log-likelihoods.",
    "schedules": "Noise schedules, and sampling steps as functions.",
    "ranking": "From scores to pairs, ranks, win rates, accepted samples and stages of a curriculum.",
    "shapes": "The little world: captions, renderer, oracle.",
    "models": "Families, adapters and roles.",
    "data": "Records, stores, plain tables, images.",
    "plotting": "Curves, bars and pictures.",
    "sampling": "Drawing with a role.",
    "rewards": "Scorers, and the losses that train them.",
    "cache": "Latents and embeddings, encoded once.",
    "methods": "What is put before the models.",
    "pipelines": "Pipelines of diffusers over our rewards.",
    "training": "The loop, its data, its checkpoints.",
    "generation": "Prompts to candidates to scores to preference data.",
    "evaluation": "Judging base and aligned model, and the report.",
    "loops": "Rounds: generate, score, train, judge; once over, or as a loop's method says.",
    "pretraining": "The scripts that trained the bundled models.",
    "cli": "The command line.",
}
"""Room -> what is there. A room that is not named here is found all the same."""


def public_modules() -> dict[str, ModuleType]:
    """Return every module of an installation whose name has no part with an underscore."""
    names = []
    for folder in ("", ".pipelines", ".rewards"):
        package = importlib.import_module(f"diffpref{folder}")
        names += [package.__name__, *(m.name for m in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))]
    public = sorted({name for name in names if not any(part.startswith("_") for part in name.split("."))})
    return {name: importlib.import_module(name) for name in public if name != "diffpref.train"}  # which runs


def home(module: str, name: str, modules: Mapping[str, ModuleType]) -> str:
    """Return the module under which a public name is described: the shortest of those of its room that export it."""
    thing = getattr(modules[module], name)
    origin = getattr(thing, "__module__", None)
    own_name = getattr(thing, "__qualname__", None) == name
    if not (own_name and isinstance(origin, str) and origin.startswith("diffpref")):
        return _home_of_value(module, name, thing, modules)
    same = [m for m in modules if name in _all(modules[m]) and getattr(modules[m], name) is thing]
    free = [m for m in same if f"{m}.{name}" not in modules]  # a function may be named like its module
    near = [m for m in free if _room(m) == _room(origin)]
    return min(near or free, key=lambda m: (m.count("."), m))


def _home_of_value(module: str, name: str, thing: Any, modules: Mapping[str, ModuleType]) -> str:
    """A constant or an alias says nothing of its origin: the module that assigns the same object to the same name."""
    same = [m for m in modules if name in _all(modules[m]) and getattr(modules[m], name) is thing]
    return min((m for m in same if name in _assigned(modules[m])), default=module)


def _assigned(module: ModuleType) -> set[str]:
    """Return the names that a module's own lines assign; their comments stand there."""
    tree = ast.parse(inspect.getsource(module))
    targets = [t for node in tree.body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def pages() -> dict[str, str]:
    """Return the text of each page by its path below ``docs/generated``."""
    modules = public_modules()
    rooms = dict.fromkeys([*ROOMS, *sorted({_room(name) for name in modules} - {""})])
    written = {f"api/{room}.rst": _room_page(room, modules) for room in rooms}
    written["api/index.rst"] = _index(modules, list(rooms))
    written["names.rst"] = _names_page()
    written["recipe.rst"] = _recipe_page()
    written["commands.rst"] = _commands_page()
    return written


def write_pages(folder: Path) -> None:
    """Write all pages below a folder; a file that says the same already is not touched, so a build can skip it."""
    for path, text in pages().items():
        file = folder / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")


# ---------------------------------------------------------------- every public name


def _all(module: ModuleType) -> list[str]:
    return list(getattr(module, "__all__", ()))


def _room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def _title(text: str, line: str = "=") -> str:
    return f"{text}\n{line * len(text)}\n"


def _index(modules: Mapping[str, ModuleType], rooms: list[str]) -> str:
    names = [name for name in _all(modules["diffpref"]) if name != "__version__"]
    links = "\n".join(f"* {_link('diffpref', name, modules)}" for name in names)
    toc = "\n".join(f"   {room}" for room in rooms)
    return (
        f"{_title('Python')}\nEvery public name, by room; a room imports only from those above it in the list.\n\n"
        f".. toctree::\n   :maxdepth: 1\n\n{toc}\n\n"
        f"{_title('diffpref', '-')}\n.. automodule:: diffpref\n\n"
        f".. autodata:: diffpref::__version__\n\nLoaded on use:\n\n{links}\n"
    )


def _room_page(room: str, modules: Mapping[str, ModuleType]) -> str:
    parts = [_title(room), f"{ROOMS.get(room, '')}\n"]
    for name, module in modules.items():
        if _room(name) != room:
            continue
        parts += [_title(name, "-"), f".. automodule:: {name}\n"]
        elsewhere = []
        for public in _all(module):
            if home(name, public, modules) == name:
                parts.append(_directive(name, public, getattr(module, public)))
            else:
                elsewhere.append(_link(name, public, modules))
        if elsewhere:
            parts.append(f"Also here: {', '.join(elsewhere)}.\n")
    return "\n".join(parts)


def _link(module: str, name: str, modules: Mapping[str, ModuleType]) -> str:
    if inspect.ismodule(getattr(modules[module], name)):
        return f":py:mod:`{module}.{name}`"
    where = home(module, name, modules)
    return f":py:obj:`{name} <{where}.{name}>`" if where != module else f":py:obj:`{module}.{name}`"


def _directive(module: str, name: str, thing: Any) -> str:
    kind = "data"
    if inspect.isclass(thing) and thing.__module__.startswith("diffpref"):
        kind = "exception" if issubclass(thing, BaseException) else "class"
    elif inspect.isfunction(thing):
        kind = "function"
    lines = [f".. auto{kind}:: {module}::{name}"]
    if kind == "class":
        lines += ["   :members:", "   :show-inheritance:"]
    if kind == "data":
        lines.append("   :no-value:")
    text = "\n".join(lines) + "\n"
    if kind == "class" and issubclass(thing, BaseModel):
        text += f"\n{_fields(thing)}"
    return text


# ---------------------------------------------------------------- what a recipe may say


def _names_page() -> str:
    parts = [
        _title("Names"),
        "What a recipe may name, with the source of each and how far its own code was read: *official* (the paper's"
        " code), *paper*, *secondary* (another's summary), *ours*.\n",
    ]
    for kind in REGISTRIES:
        things = registry(kind)
        parts += [f".. _{kind}:\n", _title(kind, "-")]
        for name in things:
            also = [*things.aliases(name), *short_forms(kind, name)]
            parts += [_title(name, "~"), _about(kind, name, things.get(name))]
            if also:
                parts.append(f"Also: {', '.join(f'``{word}``' for word in also)}.\n")
    return "\n".join(parts)


def _about(kind: str, name: str, thing: Any) -> str:
    told = description(thing)
    text = f":py:obj:`{_where(thing, name)}`"
    if told["source"]:
        text += f" -- {told['source']}"
    if told["evidence"]:
        text += f" (*{told['evidence']}*)"
    return f"{text}\n\n{_options(thing)}"


def _where(thing: Any, name: str) -> str:
    function = getattr(thing, "function", thing)
    return f"{function.__module__}.{getattr(function, '__qualname__', name)}"


def _options(thing: Any) -> str:
    if (spec := getattr(thing, "spec", None)) is not None:  # an objective; its docstring says what each means
        return _rows_table(("option", "default"), [(f"``{n}``", _value(d)) for n, (_, d) in spec.defaults.items()])
    return _fields(thing) if inspect.isclass(thing) and issubclass(thing, BaseModel) else ""


def _recipe_page() -> str:
    head = (
        f"{_title('Recipe')}\nEvery value of a recipe, under the dotted path that errors and flags use:"
        " ``--training.steps 100``.\n\n"
    )
    return head + _table((path, _field(Recipe, path)) for path in dotted_names(Recipe))


def _field(model: type[BaseModel], path: str) -> Any:
    *sections, name = path.split(".")
    for section in sections:
        model = model.model_fields[section].annotation  # type: ignore[assignment]
    return model.model_fields[name]


def _commands_page() -> str:
    rows = "\n".join(f"``diffpref {name}``\n    {text[0].upper()}{text[1:]}.\n" for name, text in COMMANDS.items())
    return f"{_title('Commands')}\n``diffpref COMMAND --help`` tells more of each.\n\n{rows}"


def _fields(model: type[BaseModel]) -> str:
    return _table(model.model_fields.items())


def _table(fields: Iterable[tuple[str, Any]]) -> str:
    rows = [(f"``{name}``", _default(field), field.description or "") for name, field in fields]
    return _rows_table(("value", "default", "meaning"), rows)


def _rows_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for first, *rest in (head, *rows):
        lines += [f"   * - {_cell(first)}", *(f"     - {_cell(cell)}" for cell in rest)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()) if "``" in text else " ".join(text.split()).replace("*", r"\*")


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "see its values" if isinstance(value, BaseModel) else _value(value)


def _value(value: Any) -> str:
    if value is inspect.Parameter.empty:
        return "required"
    if isinstance(value, Scale):
        return f"``{value.denoising}`` for denoisers, ``{value.tokens}`` for tokens"
    shown = repr(value) if isinstance(value, str) and value != value.strip() else value  # a literal ends with no space
    return "" if value is None else f"``{shown}``"
