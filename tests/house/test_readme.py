"""Every code block of the README runs, from the first to the last, in one folder and one namespace.

What a reader would download is replaced by tiny models, and each command gets flags that make it small; the words of
the README stay as they are otherwise. A command or a kind of block that is not known here fails.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diffpref.cli import main
from diffpref.shapes.grammar import captions

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = [(found[1], found[2]) for found in BLOCK.finditer(README)]

ROUND = "rounds/shapes_sd3"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
PICKSCORE, CLIP = "pickscore=bundled:shapes-pickscore", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
PROMPTS = {"prompts.txt": captions("seen")[:4], "held_out.txt": captions("unseen")[:3]}
SMALL = {  # the beginning of a command -> flags that make it small enough for a test
    "diffpref generate data/words": "--prompts words:unseen:20",
    "diffpref generate data/shapes": "--prompts shapes:unseen:6 --num_inference_steps 2",
    "diffpref reward agreement": "",
    "diffpref reward train": "--training.steps 2 --training.batch_size 4",
    "diffpref reward evaluate": "",
    "diffpref train text/words": "--training.steps 2 --training.batch_size 8",
    "diffpref generate": f"--model.path {SDXL} --model.precision fp32 --resolution 64 --candidates 2"
    f" --num_inference_steps 1 --rewards {PICKSCORE}",
    "diffpref score": "",
    "diffpref evaluate": "--num_inference_steps 1 --batch_size 3",
    "diffpref list": "",
    "diffpref validate": "",
    "diffpref demo": "",
    "diffpref cite": "",
    "accelerate launch": f"--model.path {SDXL} --model.precision fp32 --data.resolution 64"
    " --training.steps 2 --training.batch_size 2 --training.accumulation 1",
}


def commands(block: str) -> list[str]:
    return [line for line in block.splitlines() if line.strip() and not line.startswith("#")]


def test_the_readme_has_blocks_of_known_kinds_only() -> None:
    assert {kind for kind, _ in BLOCKS} == {"bash", "python"}
    assert README.count("```") == 2 * len(BLOCKS)


def test_every_command_of_the_readme_is_known_here() -> None:
    lines = [line for kind, block in BLOCKS if kind == "bash" for line in commands(block)]
    assert [line for line in lines if not line.startswith(("make ", *SMALL))] == []
    assert [name for name in SMALL if not any(line.startswith(name) for line in lines)] == []


def test_what_the_readme_makes_exists_and_is_run_by_ci() -> None:
    targets = [
        line.split()[1] for kind, block in BLOCKS if kind == "bash" for line in commands(block) if "make " in line
    ]
    assert targets == ["demo", "test"]
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci/run").read_text()
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert re.search(rf"^run {target}$", ci, re.MULTILINE)


def test_the_readme_links_to_files_that_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link]
    assert [link for link in links if not (ROOT / link).is_file()] == []


@pytest.mark.parametrize("row", ["methods", "objectives", "families", "adapters", "rewards", "pipelines"])
def test_what_the_readme_says_works_is_registered(row: str) -> None:
    from diffpref import methods, models, objectives, pipelines, rewards
    from diffpref.models import adapters

    registries = {
        "methods": methods.registry,
        "objectives": objectives.registry,
        "families": models.registry,
        "adapters": adapters.registry,
        "rewards": rewards.registry,
        "pipelines": pipelines.registry,
    }
    works = re.search(rf"^\| {row} \| ([^|]*) \|", README, re.MULTILINE)
    assert works is not None
    names = re.findall(r"`(\w+)`", works[1])
    assert names and [name for name in names if name not in registries[row]] == []


def test_the_readme_has_a_place_for_the_results() -> None:
    assert README.count("<!-- results -->") == README.count("<!-- /results -->") == 1
    assert README.index("<!-- results -->") < README.index("<!-- /results -->")


@pytest.fixture(scope="module")
def replaced(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What stands for what a reader downloads. The recipes ask for the variant fp16 of files too."""
    from diffpref.core.assets import resolve
    from diffpref.models import registry

    folder = tmp_path_factory.mktemp("readme") / "sdxl"
    shutil.copytree(tiny_sdxl, folder)
    registry.get("sdxl").tiny().pipeline().save_pretrained(folder, variant="fp16")
    return {SDXL: str(folder), CLIP: resolve("bundled:shapes-clip"), ROUND: str(small_round(folder.parent))}


def small_round(folder: Path) -> Path:
    """Write the round of the README with fewer pictures and updates: ``diffpref demo`` has no flags for them."""
    from diffpref.config import dump_yaml, load_yaml
    from diffpref.config.recipe import find_recipe

    recipe = load_yaml(find_recipe(ROUND))
    recipe["generation"] |= {"prompts": "shapes:seen:12", "num_inference_steps": 2}
    recipe["training"]["training"] = {"steps": 2, "batch_size": 2}
    recipe["evaluation"] |= {"prompts": "shapes:unseen:3"}
    path = folder / "round.yaml"
    path.write_text(dump_yaml(recipe), encoding="utf-8")
    return path


def replace(text: str, replaced: dict[str, str]) -> str:
    for downloaded, ours in replaced.items():
        text = text.replace(downloaded, ours)
    return text


def run_command(line: str, replaced: dict[str, str]) -> None:
    """Run one line of a bash block as a reader would, only smaller: what is under a launcher in a process of its own.

    A launch of Python costs more than most of these commands; that the program starts is shown in ``tests/cli``.
    """
    name = next(name for name in SMALL if line.startswith(name))
    program, *words = [replace(word, replaced) for word in shlex.split(f"{line} {SMALL[name]}")]
    if program == "diffpref":
        assert main(words) == 0, line
        return
    assert program == "accelerate"
    command = [sys.executable, "-m", "accelerate.commands.accelerate_cli", *words]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def run_python(block: str, names: dict[str, Any], replaced: dict[str, str]) -> None:
    exec(compile(replace(block, replaced), "README.md", "exec"), names)


def test_the_first_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    block = next(block for kind, block in BLOCKS if kind == "python")
    assert len(commands(block)) <= 10
    run_python(block, {"__name__": "readme"}, {})


@pytest.mark.slow
def test_row_45_the_readme_runs_from_its_first_block_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, texts in PROMPTS.items():
        (tmp_path / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    names: dict[str, Any] = {"__name__": "readme"}
    for kind, block in BLOCKS:
        if kind == "python":
            run_python(block, names, replaced)
            continue
        for line in commands(block):
            if not line.startswith("make "):  # .ci/run runs these; see above
                run_command(line, replaced)
    assert (tmp_path / "runs/sdxl/lora").is_dir()
