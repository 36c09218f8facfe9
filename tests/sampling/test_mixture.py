"""The geometric mixture: exact token by token, with LoRAs as the two models, and mixed predictions of denoisers."""

from __future__ import annotations

import math
from collections import Counter
from functools import partial

import pytest
import torch

from diffpref.core.contracts import Conditioning, Rows
from diffpref.core.errors import ConfigError
from diffpref.models.decoders import tiny_decoder, tiny_tokenizer
from diffpref.sampling import GeometricMixture, MixedRole, TextSampler, TextSettings, mixture_of

TOKENIZER = tiny_tokenizer()


@pytest.fixture(scope="module")
def models():
    return tiny_decoder(TOKENIZER, 0), tiny_decoder(TOKENIZER, 1)


def _logits(network, ids, mask):
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return network(input_ids=ids, attention_mask=mask, position_ids=positions).logits[:, -1].float()


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_scores_are_those_of_the_normalised_geometric_mixture_at_every_token(models, share):
    policy, other = models
    ids = torch.tensor([[0, 0, 5, 6], [3, 4, 5, 7]])
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]])
    mixture = GeometricMixture(other, share, mask)
    for token in (8, 9, 10):
        scores = _logits(policy, ids, mask)
        found = mixture(ids, scores).log_softmax(-1)
        p, q = scores.log_softmax(-1), _logits(other, ids, mask).log_softmax(-1)
        expected = (1 - share) * p + share * q
        expected = expected - expected.logsumexp(-1, keepdim=True)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        ids = torch.cat([ids, torch.full((2, 1), token)], dim=1)
        mask = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], dim=1)


def test_answers_are_drawn_from_the_mixture(models):
    """A single token, often: its frequencies are those of p^(1-a) q^a and not those of either model."""
    policy, other = models
    sharp = 15.0  # random models are nearly uniform; sharpened, the three distributions are far apart
    ids = torch.tensor([TOKENIZER("a").input_ids])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        p, q = (sharp * _logits(network, ids, mask)[0].double() for network in (policy, other))
    expected = (0.5 * p + 0.5 * q).softmax(-1)
    settings = TextSettings(max_new_tokens=1, temperature=1 / sharp, batch_size=256)
    sampler = TextSampler(policy, TOKENIZER, settings, processors=[mixture_of(other, 0.5)])
    draws = Counter(tokens[0] for tokens in sampler.tokens(["a"] * 4096, range(4096)))
    frequencies = torch.tensor([draws[token] / 4096 for token in range(len(expected))])

    def distance(distribution):
        return float((frequencies - distribution).abs().sum() / 2)

    assert distance(expected) < 0.1 < 0.5 * min(distance(p.softmax(-1)), distance(q.softmax(-1)))


def test_share_one_draws_what_the_other_model_draws_and_share_zero_what_the_first_does(models):
    policy, other = models
    settings = TextSettings(max_new_tokens=5, temperature=0.3, batch_size=4)
    prompts, seeds = ["a b", "c"], [1, 2]
    for share, expected in ((0.0, policy), (1.0, other)):
        mixed = TextSampler(policy, TOKENIZER, settings, processors=[mixture_of(other, share)])
        assert mixed.tokens(prompts, seeds) == TextSampler(expected, TOKENIZER, settings).tokens(prompts, seeds)


def test_a_gate_chooses_the_other_model_and_is_left_again():
    network = tiny_decoder(TOKENIZER, 0)
    entered = []

    class Gate:
        def __enter__(self):
            entered.append("in")

        def __exit__(self, *_):
            entered.append("out")

    ids = torch.tensor([[5, 6]])
    GeometricMixture(network, 0.5, torch.ones_like(ids), Gate)(ids, torch.zeros(1, len(TOKENIZER)))
    assert entered == ["in", "out"]


def test_a_denoiser_is_mixed_by_its_predictions_and_not_for_gradients():
    rows = Rows("denoising", {}, Conditioning({}), {})
    one = partial(lambda value, rows, grad=False: {"prediction": torch.full((2, 3), value)}, 1.0)
    other = partial(lambda value, rows, grad=False: {"prediction": torch.full((2, 3), value)}, 5.0)
    assert MixedRole(one, other, 0.25)(rows)["prediction"].eq(2.0).all()
    with pytest.raises(ConfigError, match="sampling"):
        MixedRole(one, other, 0.25)(rows, grad=True)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_is_between_0_and_1(share, models):
    with pytest.raises(ConfigError, match="share: must be"):
        GeometricMixture(models[0], share, torch.ones(1, 1))
