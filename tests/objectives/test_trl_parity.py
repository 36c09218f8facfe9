"""The losses of TRL's trainers, executed on numbers in place of models, against ours: values and gradients.

Runs where TRL is installed (extra ``compare``). Its trainers are made without their constructors, which would load
models and data; the method that computes the loss is TRL's own.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffpref.objectives import compose, reduce_sums, registry

pytest.importorskip("trl", reason="extra compare")
pytestmark = pytest.mark.filterwarnings("ignore:.*TRL_EXPERIMENTAL_SILENCE")

B, PROMPT, LONGEST = 5, 2, 7
Terms = Sequence[tuple[str, Mapping[str, Any]]]


class Numbers:
    """Log-probabilities of the tokens of pairs, as TRL's models answer: chosen rows, then rejected ones."""

    def __init__(self, dtype: torch.dtype = torch.float64, groups: int = 2) -> None:
        draw = torch.Generator().manual_seed(0)
        rows = groups * B
        lengths = torch.randint(2, LONGEST + 1, (rows,), generator=draw)
        places = torch.arange(PROMPT + LONGEST)
        self.mask = ((places >= PROMPT) & (places < PROMPT + lengths.unsqueeze(1))).long()  # of completions
        self.ids = torch.randint(0, 11, self.mask.shape, generator=draw)
        self.predicted = self.mask[:, 1:]
        shape = self.predicted.shape

        def logps() -> Tensor:
            values = -torch.randn(shape, generator=draw, dtype=torch.float64).abs()
            return (values * self.predicted).to(dtype)

        self.policy, self.reference = logps().requires_grad_(), logps()
        self.collision = logps()

    def inputs(self) -> dict[str, Tensor]:
        return {
            "input_ids": self.ids,
            "attention_mask": torch.ones_like(self.ids),
            "completion_mask": self.mask,
        }

    def tensors(self) -> dict[str, Tensor]:
        """The same numbers under our names."""
        found: dict[str, Tensor] = {}
        for number, group in enumerate(("chosen", "rejected", "gold")[: len(self.mask) // B]):
            rows = slice(number * B, (number + 1) * B)
            policy, reference, mask = self.policy[rows], self.reference[rows], self.predicted[rows]
            found |= {
                f"policy_{group}_logps": policy.sum(1),
                f"reference_{group}_logps": reference.sum(1),
                f"{group}_log_ratio": (policy - reference).sum(1),
                f"{group}_length": mask.sum(1).to(policy.dtype),
                f"policy_{group}_collision": self.collision[rows].sum(1),
                f"{group}_token_log_ratio": policy - reference,
                f"{group}_token_mask": mask,
            }
        return found

    def ours(self, terms: Terms) -> Tensor:
        return step_loss(terms, self.tensors())


def step_loss(terms: Terms, tensors: Mapping[str, Tensor]) -> Tensor:
    results = compose(terms, "tokens")(tensors)
    sums = reduce_sums(results)
    return torch.stack([c * s / w for (c, _, _), (s, w) in zip(results, sums, strict=True)]).sum()


class Model(torch.nn.Module):
    """Answers with the numbers given."""

    is_gradient_checkpointing = False

    def __init__(self, logps: Tensor, collision: Tensor) -> None:
        super().__init__()
        self.logps, self.collision = logps, collision

    def forward(self, **asked: Any) -> Any:
        zeros = torch.zeros_like(self.logps)
        return SimpleNamespace(
            log_probs=self.logps,
            log_sum_sq_probs=self.collision,
            entropy=zeros,
            mean_logits=zeros,
            is_top1=zeros.bool(),
        )


def trainer_of(module: str, name: str, **settings: Any) -> Any:
    """Return a TRL trainer without its models and data."""
    kind = getattr(importlib.import_module(module), name)
    made = object.__new__(kind)
    same = lambda value: value  # noqa: E731
    made.accelerator = SimpleNamespace(device="cpu", gather=same, gather_for_metrics=same, unwrap_model=same)
    made._metrics = {"train": defaultdict(list)}
    made._total_train_tokens, made._tp_size = 0, 1
    made.aux_loss_enabled, made.precompute_ref_logps = False, False
    for key, value in settings.items():
        setattr(made, key, value)
    return made


def of_trl(numbers: Numbers, loss_type: str | list[str], **settings: Any) -> Tensor:
    """The loss of TRL's DPOTrainer."""
    types = [loss_type] if isinstance(loss_type, str) else loss_type
    model = Model(numbers.policy, numbers.collision)
    plain = {
        "model": model,
        "ref_model": Model(numbers.reference, numbers.collision),
        "args": SimpleNamespace(gradient_checkpointing_kwargs=None, discopop_tau=settings.pop("discopop_tau", 0.05)),
        "loss_types": types,
        "loss_weights": [1.0] * len(types),
        "beta": 0.1,
        "label_smoothing": 0.0,
        "ld_alpha": None,
        "f_divergence_type": "reverse_kl",
        "f_alpha_divergence_coef": 0.5,
        "use_weighting": False,
    }
    trainer = trainer_of("trl.trainer.dpo_trainer", "DPOTrainer", **{**plain, **settings})
    loss: Tensor = trainer._compute_loss(model, numbers.inputs(), return_outputs=False)
    return loss


PAIRS: list[tuple[str | list[str], dict[str, Any], Terms]] = [
    ("sigmoid", {}, [("dpo", {"beta": 0.1})]),
    ("hinge", {}, [("rso", {"beta": 0.1})]),
    ("ipo", {"beta": 0.3}, [("ipo", {"tau": 0.3})]),
    ("exo_pair", {"label_smoothing": 0.01}, [("exo_pair", {"beta": 0.1, "label_smoothing": 0.01})]),
    ("nca_pair", {}, [("nca_pair", {"beta": 0.1})]),
    ("robust", {"label_smoothing": 0.2}, [("rdpo", {"beta": 0.1, "label_smoothing": 0.2})]),
    ("bco_pair", {}, [("bco_pair", {"beta": 0.1})]),
    ("sppo_hard", {}, [("sppo_hard", {"beta": 0.1})]),
    ("aot", {"label_smoothing": 0.1}, [("aot", {"beta": 0.1, "label_smoothing": 0.1})]),
    ("aot_unpaired", {"label_smoothing": 0.1}, [("aot_unpaired", {"beta": 0.1, "label_smoothing": 0.1})]),
    ("apo_zero", {}, [("apo_zero", {"beta": 0.1})]),
    ("apo_down", {}, [("apo_down", {"beta": 0.1})]),
    ("discopop", {"discopop_tau": 0.2}, [("discopop", {"beta": 0.1, "temperature": 0.2})]),
    ("sft", {}, [("nll", {})]),
    ("sigmoid_norm", {}, [("ln_dpo", {"beta": 0.1})]),
    ("sigmoid", {"ld_alpha": 0.4}, [("ld_dpo", {"beta": 0.1, "tail_weight": 0.4})]),
    ("sigmoid", {"use_weighting": True}, [("wpo", {"beta": 0.1, "clamp": False})]),
    ("sigmoid", {"f_divergence_type": "forward_kl"}, [("f_dpo", {"beta": 0.1, "divergence": "forward_kl"})]),
    ("sigmoid", {"f_divergence_type": "js_divergence"}, [("f_dpo", {"beta": 0.1, "divergence": "js"})]),
    (["sigmoid", "sft"], {"loss_weights": [1.0, 0.3]}, [("rpo", {"beta": 0.1, "nll_weight": 0.3})]),
    (["sigmoid", "sft"], {"loss_weights": [1.0, 0.3]}, [("dpo", {"beta": 0.1}), ("sft", {"coefficient": 0.3})]),
    (  # Mixed Preference Optimization
        ["sigmoid", "bco_pair", "sft"],
        {"loss_weights": [0.8, 0.2, 1.0]},
        [("sigmoid", {"beta": 0.1, "coefficient": 0.8}), ("bco_pair", {"beta": 0.1, "coefficient": 0.2}), ("sft", {})],
    ),
]


def compare(theirs: Tensor, ours: Tensor, numbers: Numbers, tolerance: float = 1e-9) -> None:
    """Compare a loss and its gradient with respect to the log-probability of each token of a completion."""
    (gradient,) = torch.autograd.grad(theirs, numbers.policy)
    (own,) = torch.autograd.grad(ours, numbers.policy)
    gradient, own = gradient * numbers.predicted, own * numbers.predicted
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(own, gradient, rtol=tolerance, atol=tolerance)
    assert own.abs().max() > 0


@pytest.mark.parametrize(("loss_type", "settings", "terms"), PAIRS, ids=lambda value: str(value)[:60])
def test_dpo_trainer(loss_type: str | list[str], settings: dict[str, Any], terms: Terms) -> None:
    numbers = Numbers()
    tolerance = 1e-7 if loss_type == "exo_pair" else 1e-9  # TRL's epsilon is a float32
    compare(of_trl(numbers, loss_type, **settings), numbers.ours(terms), numbers, tolerance)


def test_dpo_trainer_with_the_alpha_divergence_which_is_for_float32() -> None:
    numbers = Numbers(torch.float32)
    theirs = of_trl(numbers, "sigmoid", f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.7)
    compare(theirs, numbers.ours([("f_dpo", {"beta": 0.1, "divergence": "alpha", "alpha": 0.3})]), numbers, 1e-6)


def test_every_loss_of_the_dpo_trainer_is_compared() -> None:
    """The names are those of TRL's own message about a name that it does not know."""
    with pytest.raises(ValueError, match="Unknown loss type") as error:
        of_trl(Numbers(), "nonsense")
    known = set(str(error.value).partition("[")[2].rstrip("].").replace("'", "").split(", "))
    compared = {loss_type for loss_type, _, _ in PAIRS if isinstance(loss_type, str)}
    assert known == compared and all(name in registry for name in known)


@pytest.mark.parametrize(
    ("loss_type", "name", "extra"), [("kto", "kto", True), ("apo_zero_unpaired", "apo_zero_unpaired", False)]
)
def test_kto_trainer(loss_type: str, name: str, extra: bool) -> None:
    numbers, other = Numbers(), Numbers()
    other.policy, other.reference = other.reference.clone(), other.policy.detach() - 0.05 * other.predicted
    labels = torch.tensor([True, False, False, True, True] * 2)
    batch = {**numbers.inputs(), "label": labels, "ref_logps": numbers.reference.sum(1)}
    model = Model(numbers.policy, numbers.collision)
    settings = {
        "model": model,
        "loss_type": loss_type,
        "beta": 0.1,
        "desirable_weight": 0.9,
        "undesirable_weight": 1.33,
        "calculate_KL": extra,
        "precompute_ref_logps": True,
        "_compute_kl_logps": lambda *_: other.policy.sum(1) if extra else None,
    }
    trainer = trainer_of("trl.trainer.kto_trainer", "KTOTrainer", **settings)
    batch["ref_KL_logps"] = other.reference.sum(1)
    theirs = trainer._compute_loss(model, batch, return_outputs=False)
    tensors = {
        "log_ratio": (numbers.policy - numbers.reference).sum(1),
        "label": labels.double(),
        "mismatched_log_ratio": (other.policy - other.reference).sum(1),
    }
    assert tensors["mismatched_log_ratio"].mean() > 0
    ours = step_loss([(name, {"beta": 0.1, "desirable_weight": 0.9, "undesirable_weight": 1.33})], tensors)
    compare(theirs, ours, numbers)


def answers(numbers: Numbers, average: bool) -> tuple[Tensor, ...]:
    """What the forward of TRL's CPO and ORPO trainers gives: log-probabilities, logits and the imitation."""
    tensors = numbers.tensors()
    chosen, rejected = tensors["policy_chosen_logps"], tensors["policy_rejected_logps"]
    imitation = -chosen.sum() / tensors["chosen_length"].sum()
    if average:
        chosen, rejected = chosen / tensors["chosen_length"], rejected / tensors["rejected_length"]
    return chosen, rejected, torch.zeros(1), torch.zeros(1), imitation


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({}, [("cpo", {"beta": 0.1, "nll_weight": 0.7})]),
        ({"label_smoothing": 0.1}, [("cpo", {"beta": 0.1, "nll_weight": 0.7, "label_smoothing": 0.1})]),
        ({"loss_type": "hinge"}, [("cpo", {"beta": 0.1, "nll_weight": 0.7, "link": "hinge"})]),
        (
            {"loss_type": "ipo"},
            [("cpo", {"beta": 0.1, "nll_weight": 0.7, "link": "ipo", "length_normalize": True})],
        ),
        (
            {"loss_type": "simpo", "label_smoothing": 0.1},
            [("simpo", {"beta": 0.1, "gamma_beta_ratio": 3.0, "label_smoothing": 0.1}), ("nll", {"coefficient": 0.7})],
        ),
        (
            {"loss_type": "simpo", "alpha": 0.25, "cpo_alpha": 0.0},
            [("alphapo", {"beta": 0.1, "gamma": 0.3, "alpha": 0.25})],
        ),
    ],
    ids=str,
)
def test_cpo_trainer(settings: dict[str, Any], terms: Terms) -> None:
    numbers = Numbers()
    plain = {"loss_type": "sigmoid", "beta": 0.1, "label_smoothing": 0.0, "cpo_alpha": 0.7, "alpha": 0.0}
    trainer = trainer_of("trl.experimental.cpo", "CPOTrainer", **{**plain, "simpo_gamma": 0.3, **settings})
    trainer.concatenated_forward = lambda *_: answers(numbers, trainer.loss_type in ("ipo", "simpo"))
    theirs, _ = trainer.get_batch_loss_metrics(None, {})
    compare(theirs, numbers.ours(terms), numbers)


def test_orpo_trainer() -> None:
    numbers = Numbers()
    trainer = trainer_of("trl.experimental.orpo", "ORPOTrainer", beta=0.2)
    trainer.concatenated_forward = lambda *_: answers(numbers, True)
    theirs, _ = trainer.get_batch_loss_metrics(None, {})
    compare(theirs, numbers.ours([("orpo", {"odds_weight": 0.2})]), numbers, 1e-6)  # TRL's odds are float32


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({}, [("tpo_triple", {"beta": 0.1, "nll_weight": 0.7})]),
        ({"loss_type": "hinge"}, [("tpo_triple", {"beta": 0.1, "nll_weight": 0.7, "link": "hinge"})]),
        ({"loss_type": "tpo-l", "tpo_l_gamma": 0.3}, [("tpo_l", {"beta": 0.1, "gamma": 0.3, "nll_weight": 0.7})]),
    ],
    ids=str,
)
def test_tpo_trainer(settings: dict[str, Any], terms: Terms) -> None:
    """This trainer reads logits: the log-probabilities are its own too."""
    numbers = Numbers(groups=3)
    draw = torch.Generator().manual_seed(1)
    logits = torch.randn(*numbers.ids.shape, 11, generator=draw, dtype=torch.float64).requires_grad_()
    plain = {"loss_type": "sigmoid", "beta": 0.1, "label_smoothing": 0.0, "tpo_alpha": 0.7}
    model = SimpleNamespace(training=True)
    trainer = trainer_of("trl.experimental.tpo", "TPOTrainer", **{**plain, "model": model, **settings})
    theirs = trainer._compute_loss(lambda **_: SimpleNamespace(logits=logits), numbers.inputs(), return_outputs=False)
    logps = logits.log_softmax(-1)[:, :-1].gather(-1, numbers.ids[:, 1:, None]).squeeze(-1)
    numbers.policy = logps * numbers.predicted
    ours = numbers.ours(terms)
    (own,), (gradient,) = torch.autograd.grad(ours, [logits]), torch.autograd.grad(theirs, [logits])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(own, gradient, rtol=1e-9, atol=1e-9)
