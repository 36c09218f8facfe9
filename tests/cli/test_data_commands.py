"""generate, score, cache and evaluate, as a user types them, on a tiny SDXL saved as a pipeline folder."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from diffpref.cli import main
from diffpref.config import build_recipe, save_recipe
from diffpref.core.contracts import Candidate, Record
from diffpref.core.errors import CheckpointError, ConfigError, DataError
from diffpref.core.randomness import Random
from diffpref.data import decode_image, encode_png, read_store, write_store
from diffpref.evaluation import Standings
from diffpref.evaluation.run import apply_result, evaluation_pairs, open_run
from diffpref.generation import GenerationPlan, GenerationRecipe, load_prompts
from diffpref.loops.judging import parse_reward
from diffpref.models import load_family, registry
from diffpref.models.adapters import registry as adapters
from diffpref.models.roles import NetworkRole
from diffpref.rewards.oracle import Oracle
from diffpref.sampling import Sampler, SamplerSettings
from diffpref.shapes.grammar import captions
from diffpref.shapes.render import render
from diffpref.words import instructions

RECIPE = {
    "model": {"family": "sdxl", "path": ""},
    "prompts": "shapes:unseen:3",
    "candidates": 2,
    "num_inference_steps": 2,
    "guidance_scales": [1.0, 3.0],
    "batch_size": 4,
    "unit_size": 2,
    "rewards": ["oracle"],
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "base"
    registry.get("sdxl").tiny().pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def recipe(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "model": {"family": "sdxl", "path": str(base)}}))
    return path


@pytest.fixture(scope="module")
def store(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store"
    assert main(["generate", str(recipe), "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def training_recipe(base: Path, store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "train.yaml"
    save_recipe(make_recipe(base, store, path.parent / "run"), path)
    return path


def make_recipe(base: Path, store: Path, output: Path, kind: str = "lora"):
    return build_recipe(
        {
            "output": str(output),
            "model": {"family": "sdxl", "path": str(base)},
            "adapter": {"kind": kind, "rank": 2, "alpha": 4.0},
            "data": {"source": str(store), "score": "oracle"},
            "method": "diffusion_dpo",
            "validation": {"num_inference_steps": 2, "guidance_scale": 2.0},
        }
    )


@pytest.fixture(scope="module", params=["lora", "full"])
def run(request, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: an adapter moved away from its start and saved as the trainer saves it."""
    folder = tmp_path_factory.mktemp("runs") / request.param
    settings = make_recipe(base, folder / "nowhere", folder, request.param)
    save_recipe(settings, folder / "config.yaml")
    family = load_family("sdxl", str(base))
    adapter = adapters.get(request.param)(2, 4.0)
    parameters = [p for group in adapter.install(family, Random(0)).values() for p in group]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    adapter.save(family, family.network, folder / adapter.folder)
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 0.7}\n{"step": 2, "loss": 0.6}\n{"step": 3, "lo')
    return folder


def fails(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run a command that is a mistake; return what it says."""
    capsys.readouterr()  # what the test's own preparations said
    assert main([str(word) for word in argv]) == 2
    said = capsys.readouterr()
    assert (
        not said.out
        and "Traceback" not in said.err
        and all(line.startswith("diffpref: ") for line in said.err.splitlines())
    )
    return said.err


# ---------------------------------------------------------------- generate


def test_generate_draws_scores_and_says_so(recipe, tmp_path, capsys):
    folder = tmp_path / "store"
    assert main(["generate", str(recipe), "--output", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["candidates"], found["repeated_prompts"]) == (3, 6, 0)
    assert [(s["name"], s["count"], s["not_finite"]) for s in found["scores"]] == [("oracle", 6, 0)]
    store = read_store(folder)
    assert [record.prompt for record in store] == load_prompts("shapes:unseen:3")
    assert [c.generator.rsplit(" ", 1)[1] for c in store[0].candidates] == ["1", "3"]
    assert decode_image(store[0].candidates[0].bytes).size == (64, 64)


def test_one_picture_can_be_made_again_from_the_plan_alone(base, store):
    saved = json.loads((store / "plan.json").read_text())
    plan = GenerationPlan.from_json({key: saved[key] for key in saved if key not in ("kind", "scores")})
    family = load_family("sdxl", str(base))
    sampler = Sampler(family, NetworkRole(family, family.network), plan.settings_of(1))
    (again,) = sampler([plan.prompts[2]], [plan.seed_of(plan.prompts[2], 1)])
    candidate = read_store(store)[2].candidates[1]
    assert (np.asarray(decode_image(candidate.bytes)) == again).all()


def test_flags_replace_the_recipe_and_repeated_prompts_are_told(recipe, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a red circle above a blue square\n" * 2)
    words = ["--prompts", tmp_path / "p.txt", "--guidance_scales", "2", "--candidates", "1", "--seed", "3"]
    assert main(["generate", *map(str, [recipe, "--output", tmp_path / "store", *words])]) == 0
    said = capsys.readouterr().out
    assert "1 prompts are repetitions" in said and "1 prompts, 1 candidates" in said
    manifest = read_store(tmp_path / "store").manifest["generator"]
    assert manifest["seed"] == 3 and [one["guidance_scale"] for one in manifest["settings"]] == [2.0]


def test_generate_draws_answers_that_a_language_model_trains_on(tmp_path, capsys):
    words = ["--prompts", "words:unseen:12", "--batch_size", "12", "--output", str(tmp_path / "words")]
    assert main(["generate", "data/words", *words, "--temperatures", "1.0", "0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["records"], told["candidates"]) == (12, 48) and told["scores"][0]["name"] == "words"
    store = read_store(tmp_path / "words")
    assert store[0].candidates[0].text.endswith(".") and store[0].prompt == str(instructions("unseen", 1)[0])
    assert [c.generator.split(", ")[1] for c in store[0].candidates[:2]] == ["temperature 1", "temperature 0.5"]
    said = fails(capsys, "generate", "data/words", *words[:-1], tmp_path / "chat", "--chat", "true")
    assert "has no chat template" in said


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_generate_draws_in_the_precision_of_the_recipe(recipe, tmp_path, precision):
    words = ["--model.precision", precision, "--prompts", "a red circle above a blue square"]
    (tmp_path / "p.txt").write_text(words.pop())
    assert main(["generate", str(recipe), "--output", str(tmp_path / "s"), *words, str(tmp_path / "p.txt")]) == 0
    assert np.asarray(decode_image(read_store(tmp_path / "s")[0].candidates[1].bytes)).std() > 0


def test_another_model_in_the_same_folder_is_another_plan(recipe, base, store, tmp_path, capsys):
    other = registry.get("sdxl").tiny(seed=1)
    other.pipeline().save_pretrained(tmp_path / "other")
    assert "generator" in fails(capsys, "generate", recipe, "--output", store, "--model.path", tmp_path / "other")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.yaml", "--output", "x"], "no such recipe file"),
        (["{recipe}"], "output: must be given"),
        (["{recipe}", "--output", "x", "--candidate", "3"], "did you mean '--candidates'"),
        (["{recipe}", "--output", "x", "--candidates", "many"], "candidates: must be a whole number"),
        (["{recipe}", "--output", "x", "--candidates", "0", "--model.path", "", "--seed", "a"], "seed: must be"),
        (["{recipe}", "--output", "x", "--prompts", "shapes:unsen"], "did you mean 'unseen'"),
        (["{recipe}", "--output", "x", "--prompts", "nowhere.txt"], "no such file"),
        (["{recipe}", "--output", "x", "--rewards", "oracl"], "did you mean 'oracle'"),
        (["{recipe}", "--output", "x", "--rewards", "oracle", "oracle"], "named twice"),
        (["{recipe}", "--output", "x", "--model.path", "{folder}"], "model.path"),
        (["{recipe}", "--output", "{folder}"], "exists already"),
        (["{recipe}", "--output", "x", "--device", "abacus"], "--device"),
        (["{recipe}", "--output"], "expected one argument"),
    ],
)
def test_mistakes_of_generate_are_lines(recipe, tmp_path, capsys, words, said):
    (tmp_path / "letter.txt").write_text("dear")
    words = [word.format(recipe=recipe, folder=tmp_path) for word in words]
    assert said in fails(capsys, "generate", *words)


def test_the_bundled_recipes_are_valid():
    from diffpref.config.recipe import find_recipe

    folder = find_recipe("data/shapes").parent
    for path in folder.glob("*.yaml"):
        assert GenerationRecipe.model_validate({"output": "x", **yaml.safe_load(path.read_text())})


# ---------------------------------------------------------------- score


def test_score_adds_to_a_copy_and_keeps_what_is_there(store, tmp_path, capsys):
    folder = tmp_path / "scored"
    words = ["--rewards", "oracle", "--output", str(folder), "--json"]
    assert main(["score", str(store), *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["records"] == 3 and found["scores"][0]["count"] == 6
    assert list(read_store(folder)) == list(read_store(store))
    options = ["--rewards", "{oracle: {output: all}}", "--output", str(tmp_path / "all")]
    assert main(["score", str(store), *options]) == 0
    assert "oracle  mean" in capsys.readouterr().out
    assert [s.version for s in read_store(tmp_path / "all")[0].candidates[0].scores] == ["2+facts", "2+all"]


def test_score_shows_a_reward_nothing_twice_with_a_score_cache(tmp_path, monkeypatch):
    caption = captions("seen")[0]
    picture, asked, score = encode_png(render(caption, np.random.default_rng(0))), [], Oracle.score
    monkeypatch.setattr(
        Oracle, "score", lambda self, media, *rest: asked.append(len(media)) or score(self, media, *rest)
    )
    for name in ("one", "other"):
        write_store(tmp_path / name, [Record(name, str(caption), (Candidate(bytes=picture),))])
        words = ["--rewards", "oracle", "--score_cache", str(tmp_path / "kept"), "--output", str(tmp_path / f"{name}2")]
        assert main(["score", str(tmp_path / name), *words]) == 0
        assert [score.value for score in read_store(tmp_path / f"{name}2")[0].candidates[0].scores] == [6.0]
    assert asked == [1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere", "--rewards", "oracle", "--output", "x"], "not a store"),
        (["{store}", "--rewards", "oracle", "--output", "{store}"], "is the store that is scored"),
        (["{store}", "--rewards", "oracle=somewhere", "--output", "x"], "takes no path"),
        (["{store}", "--rewards", "oracle=", "--output", "x"], "no path after"),
        (["{store}", "--rewards", "clip", "--output", "x"], "needs a path"),
        (["{store}", "--rewards", "pickscore=bundled:nothing", "--output", "x"], "unknown bundled model"),
        (["{store}", "--rewards", "[1]", "--output", "x"], "must be a name"),
        (["{store}", "--output", "x"], "--rewards"),
    ],
)
def test_mistakes_of_score_are_lines(store, capsys, words, said):
    assert said in fails(capsys, "score", *(word.format(store=store) for word in words))


def test_rewards_are_written_in_three_ways():
    assert parse_reward("oracle").options == {}
    assert parse_reward("hps=bundled:shapes-hps").options == {"path": "bundled:shapes-hps"}
    assert parse_reward("hps=a=b").options == {"path": "a=b"}
    assert parse_reward("{hps: {path: p, version: v2}}").options == {"path": "p", "version": "v2"}


# ---------------------------------------------------------------- cache


def test_cache_encodes_once_and_where_training_looks(training_recipe, store, capsys):
    words = ["cache", str(store), "--recipe", str(training_recipe), "--json"]
    assert main(words) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["images"], first["new_images"], first["captions"], first["new_captions"]) == (6, 6, 4, 4)
    assert Path(first["cache"]) == training_recipe.parent / "run" / "cache" and first["resolution"] == 64
    assert main(words[:-1]) == 0
    assert "images: 0 encoded, 6 already there" in capsys.readouterr().out


def test_cache_needs_no_output_in_the_recipe_when_told_where(training_recipe, store, tmp_path, capsys):
    values = yaml.safe_load(training_recipe.read_text())
    del values["output"]
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    words = ["cache", store, "--recipe", tmp_path / "r.yaml"]
    assert "output: must be given" in fails(capsys, *words)
    assert main([*map(str, words), "--output", str(tmp_path / "cache")]) == 0
    assert list((tmp_path / "cache").glob("shard-*"))


# ---------------------------------------------------------------- evaluate


def test_evaluate_compares_a_run_with_its_base(run, capsys):
    words = ["evaluate", str(run), "--prompts", "shapes:unseen:4", "--rewards", "oracle", "--seeds", "2"]
    assert main([*words, "--batch_size", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["num_pairs"], found["num_prompts"]) == (8, 4) and "prompts" not in found
    assert [entry["contender"] for entry in found["table"]["entries"]] == ["base", run.name]
    folder = run / "evaluation"
    written = {"report.html", "report.md", "grid.png", "results.json", "plan.json", "digests.json"}
    assert {path.name for path in folder.iterdir()} == {*written, "drift.safetensors", "pictures", "columns"}
    standings = Standings.load(folder / "results.json")
    assert len(standings.prompts) == 8 and list(standings.columns) == ["base", run.name]
    first = (folder / "results.json").read_bytes()
    assert main([*words, "--batch_size", "4"]) == 0
    assert "facts right" in capsys.readouterr().out and (folder / "results.json").read_bytes() == first


def test_evaluate_compares_several_contenders_and_tells_again_without_a_model(run, base, tmp_path, capsys):
    out, words = tmp_path / "out", ["--prompts", "shapes:unseen:3", "--seeds", "2", "--images", "sample"]
    kind = "lora" if (run / "lora").is_dir() else "model"
    contenders = [str(run), f"mine={run}/{kind}", f"same={base}"]
    rewards = ["--rewards", "oracle", "pickscore=bundled:shapes-pickscore"]
    assert main(["evaluate", *contenders, *words, *rewards, "--output", str(out), "--batch_size", "3"]) == 0
    told = capsys.readouterr()
    assert f"{run.name}: 6 of 6 pictures" in told.err and "same's pictures" in told.out
    assert f"note: {run.name}: trained on labels by oracle" in told.out  # one judge is left
    first = (out / "results.json").read_bytes()
    value = json.loads(first)
    assert list(value["contenders"]) == ["base", run.name, "mine", "same"]
    assert value["contenders"]["mine"]["scores"] == value["contenders"][run.name]["scores"]
    wins = {(entry["contender"], entry["measure"]): entry["win"] for entry in value["table"]["entries"]}
    for measure in ("facts right", "pickscore"):
        assert [wins["same", measure][key] for key in ("rate", "low", "high")] == [0.5, 0.5, 0.5]
    assert value["contenders"]["same"]["whole"]["prediction drift"] == 0.0
    assert value["setting"]["prompts"]["name"] == "shapes:unseen:3" and len(value["setting"]["prompts"]["sha256"]) == 64
    assert value["contenders"][run.name]["config"] and value["setting"]["versions"]["diffpref"]
    for text in ("By relation", "Probes", "Distance from the base"):
        assert text in (out / "report.html").read_text() and text in (out / "report.md").read_text()
    assert "Published numbers" not in (out / "report.md").read_text()  # the base is no SDXL of full size

    assert main(["evaluate", "--again", str(out)]) == 0
    assert (out / "results.json").read_bytes() == first
    assert main(["evaluate", "--again", str(out), "--against", "same", "--ties", "loss"]) == 0
    again = json.loads((out / "results.json").read_bytes())
    assert (again["against"], again["ties"]) == ("same", "loss")
    rates = {entry["contender"]: entry["win"]["rate"] for entry in again["table"]["entries"] if entry["win"]}
    assert rates["base"] == 0.0  # all are ties


def test_the_result_of_a_run_draws_what_plain_diffusers_draws(run, base):
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    family = load_family("sdxl", str(base))
    settings = SamplerSettings(num_inference_steps=2, guidance_scale=2.0, batch_size=1)
    before = Sampler(family, NetworkRole(family, family.network), settings)(["a"], [5])[0]
    apply_result(family, run)
    ours = Sampler(family, NetworkRole(family, family.network), settings)(["a"], [5])[0]
    assert (ours != before).mean() > 0.5
    if (run / "lora").is_dir():
        pipe = StableDiffusionXLPipeline.from_pretrained(base)
        pipe.load_lora_weights(run / "lora")
    else:
        unet = UNet2DConditionModel.from_pretrained(run / "model")
        pipe = StableDiffusionXLPipeline.from_pretrained(base, unet=unet)
    other = NetworkRole(family, pipe.unet.eval())
    assert (Sampler(family, other, settings)(["a"], [5])[0] == ours).all()


def test_seeds_of_the_evaluation_are_its_own_and_differ_by_prompt():
    prompts, seeds = evaluation_pairs(["a", "b"], 2, seed=1)
    assert prompts == ["a", "a", "b", "b"] and len(set(seeds)) == 4 and max(seeds) < 2**32
    assert evaluation_pairs(["b"], 2, seed=1)[1] == seeds[2:]
    for arguments, error in ((([], 1), DataError), ((["a", "a"], 1), DataError), ((["a"], 0), ConfigError)):
        with pytest.raises(error):
            evaluation_pairs(*arguments)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "not a run: no such folder"),
        (["{store}"], "not a run: has no config.yaml"),
        (["{unfinished}"], "has no result yet"),
        (["bundled:shapes-sdxl"], "--base: must be given, with --family"),
        (["bundled:shapes-sdxl", "--base", "bundled:shapes-sdxl"], "--family: must be given with --base; known: "),
        (["a=bundled:shapes-sdxl", "--against", "b"], "--against: nobody is called 'b'; known: base, a"),
        (["--again", "{store}"], "--again: takes an evaluation as it is"),
        ([], "RUN: must be given"),
    ],
)
def test_mistakes_of_evaluate_are_lines(base, store, tmp_path, capsys, words, said):
    save_recipe(make_recipe(base, store, tmp_path), tmp_path / "config.yaml")
    words = [word.format(store=store, unfinished=tmp_path) for word in words]
    assert said in fails(capsys, "evaluate", *words, "--prompts", "shapes:unseen:2", "--rewards", "oracle")


def test_a_result_that_does_not_fit_is_one_line(run, base, tmp_path):
    folder = tmp_path / "run"
    kind = "lora" if (run / "lora").is_dir() else "model"
    (folder / kind).mkdir(parents=True)
    save_recipe(open_run(run), folder / "config.yaml")
    for file in (run / kind).iterdir():
        content = file.read_bytes()
        (folder / kind / file.name).write_bytes(content[:100] if file.suffix == ".safetensors" else content)
    with pytest.raises(CheckpointError, match="cannot be loaded") as error:
        apply_result(load_family("sdxl", str(base)), folder)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- the real command


@pytest.mark.slow
def test_row_37_a_killed_generate_is_finished_by_two_processes_with_the_same_bytes(recipe, store, tmp_path):
    words = ["diffpref", "generate", str(recipe), "--output", "store"]
    killed = subprocess.Popen([sys.executable, "-m", *words, "--batch_size", "4"], cwd=tmp_path)
    while not list((tmp_path / "store").glob("part-*")) and killed.poll() is None:
        time.sleep(0.02)
    killed.kill()
    killed.wait()
    assert not (tmp_path / "store" / "manifest.json").exists()
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes", "2", "--cpu", "--module"]
    done = subprocess.run([*launcher, *words, "--json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and json.loads(done.stdout)["records"] == 3, done.stderr  # one process speaks
    names = {path.name for path in store.iterdir()}
    assert names == {path.name for path in (tmp_path / "store").iterdir()}
    assert all((store / name).read_bytes() == (tmp_path / "store" / name).read_bytes() for name in names)


@pytest.mark.slow
def test_the_commands_run_in_a_process_of_their_own(recipe, tmp_path):
    def diffpref(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "diffpref", *map(str, words)], capture_output=True, text=True, cwd=tmp_path
        )

    done = diffpref("generate", recipe, "--output", "store")
    assert done.returncode == 0 and "3 prompts, 6 candidates" in done.stdout, done.stderr
    done = diffpref("generate", recipe, "--output", "store", "--seed", 9)
    assert done.returncode == 2 and "seed: 0 there, 9 here" in done.stderr and len(done.stderr.splitlines()) == 1
