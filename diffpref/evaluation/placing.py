"""Putting a contender's weights in place of the base's, and which weights these are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from diffpref.core.assets import resolve
from diffpref.core.errors import CheckpointError, ConfigError, DiffprefError, ModelError
from diffpref.core.files import read_json, sha256, write_json
from diffpref.evaluation.contenders import DENOISERS, Contender, result_folder
from diffpref.models import DenoiserFamily, ModelFamily
from diffpref.models.adapters._peft import load_lora
from diffpref.models.base import Network
from diffpref.models.loading import freeze, load_component, load_settings
from diffpref.models.precision import DTYPES

__all__ = ["ContentDigests", "apply_result", "check_contenders", "place_contender"]

OF_LATENTS = ("in_channels", "out_channels")
MUST_AGREE = (*OF_LATENTS, "cross_attention_dim", "joint_attention_dim", "pooled_projection_dim", "addition_embed_type")
"""Settings of denoisers that read the same latents, and of those that read the same text too."""
INDEX = "model_index.json"


def apply_result(family: ModelFamily, folder: Path | str, *, ema: bool = False) -> None:
    """Put what a run has trained into a family that holds the run's base, as the libraries do.

    Args:
        family: with all its parts, fresh from its path.
        folder: of the run.
        ema: take the average of ``training.ema`` instead of the last weights.

    Raises:
        CheckpointError: the run has no such result, or one that does not fit the family.
    """
    folder = Path(folder)
    if family.network is None:
        raise ConfigError("the family's 'network' is not loaded; load it with parts=(..., 'network')")
    kind = result_folder(folder, ema=ema).name
    try:
        family.apply(str(folder / kind), kind.startswith("lora"))
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, ModelError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{folder / kind}: cannot be loaded into {family.path} ({reason})") from error
    freeze(family.network)


def place_contender(
    contender: Contender,
    open_base: Callable[[], DenoiserFamily],
    prepare: Callable[[Network], object] = lambda network: None,
) -> DenoiserFamily:
    """Load a contender, complete and ready to draw.

    Args:
        contender: which.
        open_base: loads the base, all its parts; called once.
        prepare: what is done with a denoiser that takes the place of the base's, such as choosing the attention
            kernel: equal weights must draw equal pictures, to the last bit.

    Raises:
        CheckpointError: a run's result that does not fit the base.
        ModelError: a LoRA or a model that cannot be loaded, or does not fit the base.
    """
    family, path = open_base(), resolve(contender.path)
    try:
        if contender.kind == "run":
            apply_result(family, path, ema=contender.ema)
        elif contender.kind == "lora":
            load_lora(family, family.network, path, "contender")
            freeze(family.network)
        elif contender.kind == "pipeline" or (contender.kind == "hub" and _has_index(path)):
            family = _whole(family, path)
        elif contender.kind in ("network", "hub"):
            _replace(family, path)
    except DiffprefError as error:
        if contender.kind == "run":
            raise
        raise ModelError(f"{contender.name}: {str(error).removeprefix('model.path: ')}") from error
    if contender.kind != "base":
        prepare(family.network)
    return family


def _has_index(path: str) -> bool:
    try:
        load_settings(path, "", INDEX)
    except ModelError:
        return False
    return True


def _whole(base: DenoiserFamily, path: str) -> DenoiserFamily:
    """Load a model with its own VAE and text encoders, if its latents are the base's."""
    own = next(base.network.parameters())
    dtype, device, factor = own.dtype, own.device, base.vae_factor()
    there = load_settings(path, base.network_part, "config.json")
    _check_agrees(OF_LATENTS, there, base.network.config, base.path)
    del own
    base.drop("network", "vae", "text")  # its memory is free before the other is loaded
    precision = next(name for name, one in DTYPES.items() if one == dtype)
    family: DenoiserFamily = type(base).load(path, precision=precision)
    if family.vae_factor() != factor:
        raise ModelError(f"does not fit {base.path}: a side of its latents is 1/{family.vae_factor()}, not 1/{factor}")
    return family.to(device)


def _replace(family: DenoiserFamily, path: str) -> None:
    """Put another denoiser into the base, if it reads the same latents and the same text."""
    subfolder = _network_folder(path, family.network_part)
    _check_agrees(MUST_AGREE, load_settings(path, subfolder, "config.json"), family.network.config, family.path)
    own = next(family.network.parameters())
    loaded = load_component(type(family.network), path, subfolder, dtype=own.dtype)
    family.network = freeze(loaded).to(own.device)


def _network_folder(path: str, part: str) -> str:
    return "" if (Path(path) / "config.json").is_file() else part


def _check_agrees(keys: Sequence[str], settings: Any, base: Any, path: str) -> None:
    for key in keys:
        here, there = base.get(key), settings.get(key)
        if here != there:
            raise ModelError(f"does not fit {path}: its denoiser's {key} is {there}, the base's is {here}")


def check_contenders(
    contenders: Sequence[Contender], path: str, revision: str | None = None, part: str = "unet"
) -> None:
    """Refuse, before anything is drawn, a model that cannot be had or is of another architecture.

    Args:
        contenders: without the base.
        path: of the base.
        revision: of the base.
        part: what the base's family calls its denoiser.

    Raises:
        ModelError: a line that names the contender and what does not fit.
    """
    base = load_settings(resolve(path), part, "config.json", revision=revision)
    for one in contenders:
        where = resolve(one.path)
        try:
            if one.kind == "lora":
                _check_readable(Path(where))
            if one.kind in ("network", "pipeline", "hub"):
                whole = one.kind == "pipeline" or (one.kind == "hub" and _has_index(where))
                folder = part if whole else _network_folder(where, part)
                settings = load_settings(where, folder, "config.json")
                _check_agrees(OF_LATENTS if whole else MUST_AGREE, settings, base, path)
        except ModelError as error:
            raise ModelError(f"{one.name}: {str(error).removeprefix('model.path: ')}") from error


def _check_readable(path: Path) -> None:
    for file in [path] if path.is_file() else sorted(path.glob("*.safetensors")):
        try:
            with safe_open(file, framework="pt"):
                pass
        except (OSError, SafetensorError) as error:
            raise ModelError(f"{file}: no LoRA, it cannot be read ({str(error).splitlines()[0][:120]})") from error


class ContentDigests:
    """Digests of models by their files' content; a file is read again only if its size or time has changed.

    Args:
        memory: file that remembers them between starts.
    """

    def __init__(self, memory: Path) -> None:
        self._memory = Path(memory)
        self._known: dict[str, Any] = {}
        if self._memory.is_file():
            try:
                found = read_json(self._memory)
            except ValueError:
                found = None  # a memory that cannot be read is none; all is computed anew
            self._known = found if isinstance(found, dict) else {}

    def of(self, contender: Contender, base: str) -> str:
        """Return which weights a contender draws with.

        Args:
            contender: which.
            base: digest of the base, which is part of what a LoRA or a denoiser alone draws with.

        Raises:
            CheckpointError: a run without the asked result.
        """
        if contender.kind == "base":
            return base
        if contender.kind == "run":
            return _digest([base, self.of_path(str(result_folder(Path(contender.path), ema=contender.ema)))])
        own = self.of_path(contender.path)
        return own if contender.kind == "pipeline" else _digest([base, own])

    def of_path(self, path: str, revision: str | None = None) -> str:
        """Return the digest of a file, a folder, a bundled model, or the snapshot of a hub id."""
        where = Path(resolve(path))
        if where.is_file():
            return self._file(where)
        if not where.is_dir():
            return _digest([path, _commit(path, revision)])
        files = sorted(p for p in where.rglob("*") if p.is_file() and p.suffix in (".safetensors", ".json", ".txt"))
        return _digest(part for file in files for part in (file.relative_to(where).as_posix(), self._file(file)))

    def _file(self, file: Path) -> str:
        stat = file.stat()
        key, mark = str(file.resolve()), [stat.st_size, stat.st_mtime_ns]
        found = self._known.get(key)
        if not (isinstance(found, list) and found[:2] == mark):
            self._known[key] = found = [*mark, sha256(file)]
            write_json(self._memory, self._known)
        return str(found[2])


def _commit(path: str, revision: str | None) -> str:
    """Return the commit of a hub id's snapshot on this machine, which its folder is named after."""
    for folder, name in (("", INDEX), *((part, "config.json") for part in DENOISERS)):
        try:
            load_settings(path, folder, name, revision=revision)  # fetched, if it is not here yet
        except ModelError:
            continue
        found = try_to_load_from_cache(path, f"{folder}/{name}" if folder else name, revision=revision)
        if isinstance(found, str):
            return Path(found).parents[1 if folder else 0].name
    return revision or "main"


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
