"""RankDPO: what it puts before the models, phi from the comparisons of several rewards, and what it is for pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from diffpref.config import build_recipe
from diffpref.core.contracts import Batch, Candidate, Context, Record, Rows, Score
from diffpref.core.errors import ConfigError, DataError
from diffpref.core.randomness import Random
from diffpref.data import Combined, list_view, read_store, write_store
from diffpref.likelihood import DenoisingLikelihood
from diffpref.methods.diffusion_dpo import DiffusionDPO
from diffpref.methods.rank_dpo import RankDPO
from diffpref.models import registry as families
from diffpref.models.family import DenoiserFamily
from diffpref.objectives import dpo, rank_dpo
from diffpref.training import Trainer

Keys = Callable[..., dict[str, Any]]
SWAP = abs(1 / math.log(2) - 1 / math.log(3))
"""What exchanging the first two of a list costs, for a gain of one."""


def batch(family: DenoiserFamily, size: int = 3, length: int = 4) -> Batch:
    generator = torch.Generator().manual_seed(0)
    media = torch.randn((size, length, 4, 8, 8), generator=generator)
    prompts = [f"caption {number}" for number in range(size)]
    keys = tuple((f"record-{number}", 0) for number in range(size))
    return Batch(keys, {"list": media}, {"": family.encode_prompt(prompts, 64)}, {}, family.encode_prompt([""], 64))


def noise(family: DenoiserFamily, rows: Rows, given: Batch) -> torch.Tensor:
    """The noise of each candidate, computed back: (B, K, elements)."""
    clean = given.media["list"].flatten(0, 1)
    alpha, sigma = family.schedule.coefficients(clean, rows.inputs["timesteps"])
    return ((rows.inputs["noisy"] - alpha * clean) / sigma).unflatten(0, given.media["list"].shape[:2]).flatten(2)


@pytest.mark.parametrize("name", ["sd", "sd3"])
def test_candidates_share_the_timestep_and_draw_a_noise_each(name: str) -> None:
    family = families.get(name).tiny()
    given = batch(family)
    rows = RankDPO().prepare(given, Context(family, {}, Random(0)))
    assert torch.equal(rows.groups["list"], torch.arange(12).view(3, 4))
    times = rows.inputs["timesteps"].view(3, 4)
    assert torch.equal(times, times[:, :1].expand(3, 4)) and len(times[:, 0].unique()) == 3
    drawn = noise(family, rows, given)
    for one in drawn:
        assert abs(torch.corrcoef(one) - torch.eye(4)).max() < 0.3
    shared = noise(family, RankDPO(share_noise=True).prepare(given, Context(family, {}, Random(0))), given)
    torch.testing.assert_close(shared, shared[:, :1].expand_as(shared), rtol=0, atol=1e-3)
    part = Batch(
        given.keys[1:2], {"list": given.media["list"][1:2]}, {"": given.conditioning[""].take([1])}, {}, given.empty
    )
    alone = RankDPO().prepare(part, Context(family, {}, Random(0)))
    assert torch.equal(alone.inputs["noisy"], rows.inputs["noisy"][4:8])  # a draw belongs to its record


def log_ratios(family: DenoiserFamily, policy: Any, rows: Rows, names: list[str]) -> dict[str, torch.Tensor]:
    likelihood = DenoisingLikelihood(family.schedule)
    exact = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in rows.inputs.items()}
    rows = replace(rows, inputs=exact)
    networks = {"policy": policy, "reference": family.network}
    outputs = {role: family.answer(network, rows) for role, network in networks.items()}
    return likelihood(names, outputs, rows)


def test_a_list_of_two_is_a_constant_times_diffusion_dpo_with_its_gradients() -> None:
    family = families.get("sd").tiny()
    family.network.double()
    policy = copy.deepcopy(family.network).requires_grad_(True)
    with torch.no_grad():
        for number, parameter in enumerate(policy.parameters()):
            parameter += 0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
    two = batch(family, length=2)
    sides = {"chosen": two.media["list"][:, 0], "rejected": two.media["list"][:, 1]}
    pair, context = replace(two, media=sides), Context(family, {}, Random(0))
    rows = RankDPO(share_noise=True).prepare(two, context)
    ranked = log_ratios(family, policy, rows, ["list_log_ratio"])
    phi = torch.tensor([[1.0, 0.0]] * 3, dtype=torch.float64)
    listwise = rank_dpo(**ranked, list_scores=phi, beta=300.0)
    given = DiffusionDPO(empty_prompt_prob=0).prepare(pair, context)
    compared = log_ratios(family, policy, given, ["chosen_log_ratio", "rejected_log_ratio"])
    pairwise = dpo(**compared, beta=300.0)
    assert SWAP == pytest.approx(0.5324558, abs=1e-7)
    torch.testing.assert_close(listwise, SWAP * pairwise, rtol=1e-6, atol=0)
    assert (pairwise - math.log(2)).abs().min() > 1e-3  # policy and reference do differ
    found = [torch.autograd.grad(loss.sum(), list(policy.parameters())) for loss in (listwise, SWAP * pairwise)]
    one, other = (torch.cat([g.flatten() for g in gradients]) for gradients in found)
    assert (one - other).norm() <= 1e-6 * one.norm()


@pytest.mark.parametrize(
    ("rule", "rows", "phi"),
    [  # the specification's, and one of five rewards whose third and fourth have ties
        ("strict_win_fraction", [[0.28, 0.31, 0.25, 0.29], [10.2, 11.5, 9.1, 11.5], [21.3, 22.0, 20.5, 21.9],
            [0.71, 0.66, 0.80, 0.74], [0.5, 1.2, -0.3, 0.9]], [1 / 3, 11 / 15, 1 / 5, 2 / 3]),
        ("strict_win_fraction", [[22.1, 21.0, 23.0, 20.0], [0.9, 1.2, -0.1, 0.3], [0.71, 0.8, 0.65, 0.8],
            [0.28, 0.25, 0.3, 0.21], [11.0, 12.5, 9.0, 10.0]], [0.6, 2 / 3, 0.4, 4 / 15]),
        ("win_fraction", [[22.1, 21.0, 23.0, 20.0], [0.9, 1.2, -0.1, 0.3], [0.71, 0.8, 0.65, 0.8],
            [0.28, 0.25, 0.3, 0.21], [11.0, 12.5, 9.0, 10.0]], [0.6, 0.7, 0.4, 0.3]),
    ],
)  # fmt: skip
def test_phi_is_the_share_of_comparisons_won_by_any_reward(rule: Any, rows: Any, phi: list[float]) -> None:
    names = tuple(f"reward-{number}" for number in range(len(rows)))
    candidates = tuple(
        Candidate(
            bytes=bytes([k]), scores=tuple(Score(name, "1", row[k]) for name, row in zip(names, rows, strict=True))
        )
        for k in range(4)
    )
    (ranking,) = list_view([Record("r", "a sea", candidates)], Combined(names, rule))
    assert ranking.scores == pytest.approx(phi, abs=1e-9)
    best_first = sorted(range(4), key=lambda k: -ranking.scores[k])
    assert [ranking.columns["ranks"][k] for k in best_first] == [0, 1, 2, 3]


# ---------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def ranked(scored_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of three pictures a prompt, scored by a second reward, too."""
    folder = tmp_path_factory.mktemp("ranked") / "store"

    def other(one: Candidate) -> Candidate:
        return replace(one, scores=(*one.scores, Score("other", "1", float(int(one.sha256[:4], 16)))))

    write_store(folder, [replace(r, candidates=tuple(map(other, r.candidates))) for r in read_store(scored_store)])
    return folder


def test_it_trains_and_starts_where_policy_and_reference_agree(recipe_keys: Keys, ranked: Path) -> None:
    score = {"data__source": str(ranked), "data__score": ["oracle", "other"]}
    keys = recipe_keys(method="rank_dpo", **score, data__combine="strict_win_fraction")
    trainer = Trainer(build_recipe(keys))
    rows = list(trainer.steps())
    assert len(rows) == 3 and all(0 < row["grad_norm"] < math.inf for row in rows)
    phi = trainer.batches.batch(trainer.batches.sampler.batch(0, 2)).columns["list_scores"]
    weights = rank_dpo(list_log_ratio=torch.zeros_like(phi), list_scores=phi) / math.log(2)
    assert rows[0]["loss"] == pytest.approx(math.log(2) * weights.mean().item(), rel=1e-5)


@pytest.mark.parametrize(
    ("data", "method", "said"),
    [
        ({"score": "oracle"}, "rank_dpo", "data.score: rank_dpo counts wins over at least 2 rewards"),
        (
            {"score": ["oracle"], "combine": "win_fraction"},
            "rank_dpo",
            "got oracle; name them, [pickscore, hps_v21]; 'diffpref score",
        ),
        ({"score": None}, "rank_dpo", "got none; name them"),
        ({"score": "oracle"}, {"rank_dpo": {"min_rewards": 1}}, "set score: [oracle] and combine: strict_win_fraction"),
        ({"score": ["oracle", "other"]}, "rank_dpo", "or win_fraction with half a win for a tie; got zscore"),
        (
            {"score": ["oracle", "absent"], "combine": "win_fraction"},
            "rank_dpo",
            "of oracle, absent'; scores there are: oracle (48), other (48); 'diffpref score STORE --rewards absent",
        ),
    ],
)
def test_too_few_rewards_are_named_with_the_command(
    recipe_keys: Keys, ranked: Path, data: dict[str, Any], method: Any, said: str
) -> None:
    keys = recipe_keys(method=method)
    keys["data"] |= {"source": str(ranked), **data}
    with pytest.raises((ConfigError, DataError)) as error:
        next(iter(Trainer(build_recipe(keys)).steps()))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_single_candidate_is_named_with_the_command(recipe_keys: Keys, ranked: Path, tmp_path: Path) -> None:
    write_store(tmp_path / "one", [replace(r, candidates=r.candidates[:1]) for r in read_store(ranked)])
    keys = recipe_keys(method="rank_dpo", data__source=str(tmp_path / "one"), data__score=["oracle", "other"])
    keys["data"]["combine"] = "win_fraction"
    with pytest.raises(DataError, match=r"\(K = 1\).*'diffpref generate RECIPE --candidates 4 --output FOLDER'"):
        next(iter(Trainer(build_recipe(keys)).steps()))
