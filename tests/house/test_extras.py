"""Optional packages: without them everything imports, and what needs one names the extra that brings it."""

from __future__ import annotations

import configparser
import logging
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import tracking
from torch import nn
from transformers import Mask2FormerConfig

from diffpref import rewards
from diffpref.config import Logging, Optim
from diffpref.core.contracts import Candidate
from diffpref.core.errors import ConfigError, ModelError
from diffpref.data.clips import read_clip
from diffpref.models import registry as families
from diffpref.models.attention import set_attention
from diffpref.training.optimizer import make_optimizer
from diffpref.training.trackers import check_trackers

ROOT = Path(__file__).parents[2]
FOR_DEVELOPERS = {"compare", "dev", "docs"}


def extras() -> dict[str, list[str]]:
    """Return extra -> names of its packages."""
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    found = {extra: re.split(r"\s*\n\s*", text.strip()) for extra, text in parser["options.extras_require"].items()}
    return {extra: [re.split(r"[<>=~!\[]", line)[0] for line in lines] for extra, lines in found.items()}


def use_eight_bits() -> str:
    with pytest.raises(ConfigError) as error:
        make_optimizer(Optim(kind="adamw8bit"), {"all": [nn.Parameter(torch.zeros(1))]}, torch.device("cpu"))
    return str(error.value)


def use_trackers() -> str:
    with pytest.raises(ConfigError) as error:
        check_trackers(Logging(trackers=["tensorboard", "wandb"]))
    return str(error.value)


def use_gguf() -> str:
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file, pytest.raises(ModelError) as error:
        families.get("causal_lm").load(file.name)
    return str(error.value)


def use_geneval() -> str:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(ModelError) as error:
        Mask2FormerConfig().save_pretrained(folder)
        rewards.load("geneval", folder)
    return str(error.value)


def use_ocr() -> str:
    with pytest.raises(ConfigError) as error:
        rewards.load("ocr")
    return str(error.value)


def use_video() -> str:
    with pytest.raises(ConfigError) as error:
        read_clip(Candidate(bytes=b"\0\0\0\x0cftypisom"), name="a.mp4")
    return str(error.value)


def use_xformers() -> str:
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    ear, logger = Ear(), logging.getLogger("diffpref.models.attention")
    logger.addHandler(ear)
    try:
        assert set_attention(families.get("sd").tiny().network, "xformers") == "native"
    finally:
        logger.removeHandler(ear)
    return "\n".join(heard)


USE: dict[str, Callable[[], str]] = {
    "bnb": use_eight_bits,
    "geneval": use_geneval,
    "gguf": use_gguf,
    "ocr": use_ocr,
    "trackers": use_trackers,
    "video": use_video,
    "xformers": use_xformers,
}
"""Extra -> uses what needs it and returns what is said."""


def hide(monkeypatch: pytest.MonkeyPatch, packages: list[str]) -> None:
    for package in packages:
        loaded = [name for name in sys.modules if name == package or name.startswith(f"{package}.")]
        for name in {package, *loaded}:
            monkeypatch.setitem(sys.modules, name, None)
    left = [kind for kind in tracking.get_available_trackers() if str(kind) not in packages]
    monkeypatch.setattr(tracking, "_available_trackers", left)


@pytest.mark.parametrize("extra", sorted(set(extras()) - FOR_DEVELOPERS))
def test_row_43_using_what_is_not_installed_names_the_extra(extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert extra in USE, f"say here how the extra '{extra}' is used"
    hide(monkeypatch, extras()[extra])
    lines = USE[extra]().splitlines()
    assert lines and all(f"pip install 'diffpref[{extra}]'" in line for line in lines)
    assert len(lines) == len(extras()[extra])


@pytest.mark.slow
def test_row_43_everything_imports_without_any_optional_package() -> None:
    absent = sorted(
        {package for extra, packages in extras().items() if extra not in FOR_DEVELOPERS for package in packages}
    )
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({absent!r}))\n"
        "import importlib, pkgutil, diffpref\n"
        "for folder in ('', '.pipelines', '.rewards'):\n"
        "    package = importlib.import_module('diffpref' + folder)\n"
        "    for module in pkgutil.walk_packages(package.__path__, package.__name__ + '.'):\n"
        "        if not module.name.endswith('__main__'): importlib.import_module(module.name)\n"
        "print(len(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 1000


def test_row_43_extras_hold_packages_and_no_other_extra_but_for_developers() -> None:
    held: dict[str, Any] = extras()
    assert set(USE) == set(held) - FOR_DEVELOPERS
    assert [extra for extra in USE if "diffpref" in held[extra]] == []
