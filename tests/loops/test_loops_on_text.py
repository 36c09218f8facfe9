"""Loops over the bundled decoder of the words world, with the program as the judge."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from diffpref.config import load_recipe, load_yaml
from diffpref.core.errors import ConfigError
from diffpref.loops import run_loop
from diffpref.loops.extrapolating import lora_shape
from diffpref.loops.players import Players, identity
from diffpref.loops.stage import Drawer, Iterate
from diffpref.sampling import TextSettings

from .text_loops import folder, lora, losses, preferences, recipe, store

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def iterative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds of iterative DPO."""
    output = tmp_path_factory.mktemp("iterative") / "loop"
    run_loop(recipe(output, "iterative_dpo"))
    return output


def test_each_round_is_an_ordinary_store_and_an_ordinary_run(iterative: Path) -> None:
    config = load_recipe(folder(iterative, 1) / "run" / "config.yaml")
    assert config.adapter.start == str(folder(iterative, 0) / "run" / "lora")
    assert config.method.name == "language" and [term.name for term in config.objective or ()] == ["dpo"]
    first, second = store(iterative, 0), store(iterative, 1)
    assert len(first) == len(second) == 20 and not {r.prompt for r in first} & {r.prompt for r in second}
    assert all(len(record.candidates) == 4 for record in first)
    told = json.loads((iterative / "loop.json").read_text())
    assert told["at"] is None and [entry["round"] for entry in told["done"]] == [0, 1]
    assert told["done"][0]["next"] == {"lora": "rounds/000/run/lora"}  # relative: the folder can be moved
    assert 0 < told["done"][0]["judge"]["mean"] < 1 and told["done"][0]["taught"] <= 20


def test_the_policy_of_a_round_draws_its_candidates_and_is_what_it_is_held_to(iterative: Path) -> None:
    model = recipe(iterative, "iterative_dpo").model
    drew = {candidate.generator for record in store(iterative, 1) for candidate in record.candidates}
    assert drew == {identity(Iterate(lora=str(folder(iterative, 0) / "run" / "lora")), model)}
    assert drew != {candidate.generator for record in store(iterative, 0) for candidate in record.candidates}
    assert losses(iterative, 1)[0] == pytest.approx(math.log(2), abs=1e-6)  # log-ratios to the anchor begin at 0


def test_what_is_done_is_not_done_again_and_a_loop_can_get_more_rounds(iterative: Path, tmp_path: Path) -> None:
    files = sorted(
        path for path in iterative.rglob("*") if path.is_file() and path.name not in ("loop.json", "config.yaml")
    )
    before = {path: path.stat().st_mtime_ns for path in files}
    run_loop(recipe(iterative, "iterative_dpo"))
    assert before == {path: path.stat().st_mtime_ns for path in files}
    with pytest.raises(ConfigError, match="another recipe; it differs in pair_scale, seed"):
        run_loop(recipe(iterative, "iterative_dpo", seed=1, pair_scale=2.0))
    split = recipe(tmp_path / "split", "iterative_dpo", prompts="words:unseen:40")
    with pytest.raises(Interruption):
        run_loop(split, tell=_stop_in("round 1"))  # in the middle of round 1's data
    assert json.loads((tmp_path / "split" / "loop.json").read_text())["at"] == {"round": 1, "stage": "draw"}
    run_loop(split)
    for name, tensor in lora(iterative, 1).items():
        assert torch.equal(tensor, lora(tmp_path / "split", 1)[name]), name


class Interruption(Exception):
    pass


def _stop_in(wanted: str) -> Any:
    def tell(stage: str, there: int, total: int) -> None:
        if stage == wanted and 0 < there < total:
            raise Interruption

    return tell


def test_an_anchor_that_stays_is_not_where_the_second_round_begins(tmp_path: Path) -> None:
    run_loop(recipe(tmp_path, "iterative_dpo", loop={"anchor": "initial", "candidates": 3}))
    assert losses(tmp_path, 0)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert abs(losses(tmp_path, 1)[0] - math.log(2)) > 1e-5


def test_egpo_undoes_its_extra_step_and_meets_a_new_opponent_with_the_same_answers(tmp_path: Path) -> None:
    run_loop(recipe(tmp_path, "egpo"))
    ahead, back = store(tmp_path, 0), store(tmp_path, 1)
    assert [r.prompt for r in ahead] == [r.prompt for r in back]
    for one, other in zip(ahead, back, strict=True):
        assert [c.text for c in one.candidates[:2]] == [c.text for c in other.candidates[:2]]
    assert "lora" not in ahead[0].candidates[2].generator and "lora" in back[0].candidates[2].generator
    for number in (0, 1):  # both runs begin as the initial model
        assert load_recipe(folder(tmp_path, number) / "run" / "config.yaml").adapter.start is None
    assert not all(torch.equal(tensor, lora(tmp_path, 1)[name]) for name, tensor in lora(tmp_path, 0).items())


def test_accelerated_optimisation_goes_on_from_weights_beyond_the_last(tmp_path: Path) -> None:
    run_loop(recipe(tmp_path, "apo_accelerated", loop={"momentum": 0.5, "candidates": 3}, rounds=3))
    first, second, beyond = lora(tmp_path, 0), lora(tmp_path, 1), lora(tmp_path, 1, "next/lora")
    assert not (folder(tmp_path, 0) / "next").exists()  # the first round has nothing to go away from
    layers = {name.rsplit(".lora_", 1)[0] for name in first}

    def product(state: dict[str, torch.Tensor], layer: str) -> torch.Tensor:
        return state[f"{layer}.lora_B.weight"].double() @ state[f"{layer}.lora_A.weight"].double()

    for layer in layers:
        expected = 1.5 * product(second, layer) - 0.5 * product(first, layer)
        torch.testing.assert_close(product(beyond, layer), expected, rtol=1e-4, atol=1e-7)
    last = load_recipe(folder(tmp_path, 2) / "run" / "config.yaml")
    assert last.adapter.start == str(folder(tmp_path, 1) / "next" / "lora") and last.adapter.rank == 8
    assert lora_shape(Path(last.adapter.start)) == (8, 8.0)
    assert losses(tmp_path, 2)[0] == pytest.approx(math.log(2), abs=1e-6)  # it is the anchor, too


def test_oaif_is_one_run_whose_answers_are_new_in_every_round(tmp_path: Path) -> None:
    given = recipe(tmp_path, "oaif", rounds=3, training={"adapter": {"rank": 4}, "training": {"batch_size": 4}})
    run_loop(given)
    for number in range(3):
        config = load_recipe(folder(tmp_path, number) / "run" / "config.yaml")
        assert config.adapter.start is None and config.training.steps == number + 1  # the reference stays
        (line,) = (folder(tmp_path, number) / "run" / "metrics.jsonl").read_text().splitlines()
        assert json.loads(line)["step"] == number + 1
        moments = load_file(folder(tmp_path, number) / f"run/checkpoints/step-{number + 1:06d}/optimizer.safetensors")
        assert moments["0.step"].item() == number + 1  # Adam's own count goes on
    assert losses(tmp_path, 0)[0] == pytest.approx(math.log(2), abs=1e-6)
    assert losses(tmp_path, 2)[0] != pytest.approx(math.log(2), abs=1e-6)  # the policy went on from where it was


# ---------------------------------------------------------------- players


@pytest.fixture(scope="module")
def players(iterative: Path) -> tuple[Players, Iterate, Iterate]:
    trained = Iterate(lora=str(folder(iterative, 1) / "run" / "lora"))
    model = recipe(iterative, "iterative_dpo").model
    return Players(model, "cpu", [trained, Iterate()]), trained, Iterate()


def test_a_mixture_of_share_one_is_the_other_state_and_no_gate_stays_open(players: Any) -> None:
    known, trained, initial = players
    settings = TextSettings(max_new_tokens=12, temperature=1.3, batch_size=8)
    prompts, seeds = [str(one) for one in _prompts(16)], list(range(16))
    drawn = {
        name: known.drawing(drawer, settings)(prompts, seeds)
        for name, drawer in {
            "trained": Drawer(trained, 1),
            "initial": Drawer(initial, 1),
            "all of it": Drawer(trained, 1, mixed_with=initial, share=1.0),
            "none of it": Drawer(trained, 1, mixed_with=initial, share=0.0),
            "trained again": Drawer(trained, 1),
        }.items()
    }
    assert drawn["trained"] != drawn["initial"]
    assert drawn["all of it"] == drawn["initial"]
    assert drawn["none of it"] == drawn["trained again"] == drawn["trained"]


def test_the_implicit_reward_is_the_log_ratio_to_the_initial_model(players: Any, iterative: Path) -> None:
    known, trained, initial = players
    record = store(iterative, 1)[0]
    found = known.implicit_rewards(record, trained, initial)
    family = known.players[trained].family
    for number, candidate in enumerate(record.candidates):
        head, (tail,) = family.encode(record.prompt, [candidate.text])
        ids = torch.tensor([[*head, *tail]])
        sums = []
        for iterate in (trained, initial):
            with torch.no_grad(), known.players[iterate].gate():
                logps = family.network(input_ids=ids).logits[0].double().log_softmax(-1)
            sums.append(sum(logps[len(head) + k - 1, token].item() for k, token in enumerate(tail)))
        assert found[number] == pytest.approx(sums[0] - sums[1], abs=1e-4)
    assert known.implicit_rewards(record, trained, trained) == [0.0] * 4


def _prompts(count: int) -> Any:
    from diffpref.words import instructions

    return instructions("unseen", count)


# ---------------------------------------------------------------- every loop


DATA = {"spin": {}, "hypo": {"updates": 1}, "spa": {}, "dno": {"candidates": 2}, "selm": {"candidates": 1}}
PROMPTS = {
    "sppo": {},
    "dno": {},
    "inpo_nash": {"candidates": 3},
    "nash_md": {},
    "ipo_md": {},
    "rso": {"candidates": 8, "accepted": 3, "temperature": 0.1},
    "selm": {},
    "xpo": {},
    "vpo": {},
    "curry_dpo": {"candidates": 3},
    "ofs_dpo": {"updates": 2, "swap_every": 1},
    "reward_augmented": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PROMPTS)
def test_a_loop_over_prompts_runs(name: str, tmp_path: Path) -> None:
    training = {"adapter": {"rank": 4}, "training": {"batch_size": 2} | ({"steps": 1} if name != "ofs_dpo" else {})}
    run_loop(recipe(tmp_path, name, loop=PROMPTS[name], training=training))
    assert all(math.isfinite(loss) for number in (0, 1) for loss in losses(tmp_path, number))
    assert load_yaml(tmp_path / "config.yaml")["loop"]


@pytest.mark.slow
@pytest.mark.parametrize("name", DATA)
def test_a_loop_over_data_runs(name: str, tmp_path: Path) -> None:
    source = preferences(tmp_path / "pairs.jsonl")
    changes: dict[str, Any] = {"data": {"source": str(source)}, "training": {"training": {"batch_size": 2, "steps": 1}}}
    if name == "hypo":
        changes["training"] = {"training": {"batch_size": 2}}
    if name != "spa":
        changes["prompts"] = None
    run_loop(recipe(tmp_path / "loop", name, loop=DATA[name], **changes))
    assert all(math.isfinite(loss) for number in (0, 1) for loss in losses(tmp_path / "loop", number))


@pytest.mark.slow
def test_a_loop_over_pictures_mixes_predictions_and_is_held_to_the_initial_model(tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "model": {"family": "sdxl", "path": "bundled:shapes-sdxl"},
        "prompts": "shapes:seen:8",
        "judge": "oracle",
        "sampling": {"num_inference_steps": 2, "guidance_scale": 1.5, "batch_size": 4},
        "training": {"adapter": {"rank": 2}, "training": {"batch_size": 2, "steps": 1}},
    }
    run_loop(recipe(tmp_path, "nash_md", loop={"mixture": 0.5}, **values))
    for record in store(tmp_path, 1):
        own, mixed = record.candidates[0], record.candidates[2]
        assert own.bytes and mixed.bytes and "mixed 0.5 with sdxl bundled:shapes-sdxl" in mixed.generator
        assert "lora" in own.generator and "mixed" not in own.generator
    roles = load_recipe(folder(tmp_path, 1) / "run" / "config.yaml").roles
    assert roles["reference"].source == "initial"


@pytest.mark.slow
def test_whole_networks_are_looped_over_and_extrapolated(tmp_path: Path) -> None:
    training = {
        "adapter": {"kind": "full"},
        "optim": {"learning_rate": 1e-3},
        "training": {"batch_size": 4, "steps": 1},
    }
    run_loop(recipe(tmp_path, "apo_accelerated", loop={"momentum": 0.5, "candidates": 3}, rounds=3, training=training))
    first, second, beyond = (
        load_file(folder(tmp_path, number) / where / "model.safetensors")
        for number, where in ((0, "run/model"), (1, "run/model"), (1, "next/model"))
    )
    for name, tensor in beyond.items():
        torch.testing.assert_close(tensor, 1.5 * second[name] - 0.5 * first[name], rtol=1e-4, atol=1e-6)
    last = load_recipe(folder(tmp_path, 2) / "run" / "config.yaml")
    assert last.model.path == str(folder(tmp_path, 1) / "next" / "model")
    assert losses(tmp_path, 2)[0] == pytest.approx(math.log(2), abs=1e-6)


def test_an_ensemble_may_be_the_judge(tmp_path: Path) -> None:
    judge = {"ensemble": {"members": [{"words": {"weight": 2.0, "mean": 0.5}}]}}
    output = tmp_path / "loop"
    run_loop(recipe(output, "iterative_dpo", judge=judge, rounds=1, prompts="words:unseen:24"))
    scores = [candidate.scores for record in store(output, 0) for candidate in record.candidates]
    assert {score.name for told in scores for score in told} == {"ensemble"}
    assert all(-1 <= score.value <= 1 for told in scores for score in told)
    assert json.loads((output / "loop.json").read_text())["done"][0]["judge"]["mean"] < 1
