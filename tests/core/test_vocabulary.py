"""The grammar of tensor names."""

from __future__ import annotations

from itertools import product

import pytest

from diffpref.core.errors import ConfigError
from diffpref.core.vocabulary import (
    DATA,
    FREE,
    GROUPS,
    MODEL,
    ROLES,
    UNITS,
    Name,
    parse,
    required_groups,
    required_roles,
)


def test_the_words_are_those_of_the_design() -> None:
    assert ROLES == ("policy", "reference", "previous", "behaviour", "peer", "guide")
    pointwise = ("rationale", "calibration", "online", "mismatched", "corrupted")
    assert GROUPS == ("chosen", "rejected", "list", "gold", *pointwise)
    assert UNITS == ("token", "segment")
    assert MODEL == (
        "logps",
        "log_ratio",
        "kl",
        "errors",
        "prediction",
        "mean",
        "std",
        "value",
        "score",
        "hidden",
        "collision",
        "weight",
        "kl_weight",
        "embedding",
        "logits",
        "scores",
        "log_std",
    )
    assert DATA == (
        "target",
        "noisy",
        "clean",
        "length",
        "score",
        "scores",
        "win_rate",
        "label",
        "mask",
        "similarity",
        "visits",
        "start",
        "preference_matrix",
        "draw",
        "redraw",
        "preferences",
    )
    assert FREE == ("preference", "ranks", "weight", "beta_scale", "advantage", "timesteps")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chosen_log_ratio", Name("", "chosen", "", "log_ratio", "model")),
        ("reference_rejected_logps", Name("reference", "rejected", "", "logps", "model")),
        ("policy_token_value", Name("policy", "", "token", "value", "model")),
        ("list_log_ratio", Name("", "list", "", "log_ratio", "model")),
        ("chosen_segment_mask", Name("", "chosen", "segment", "mask", "data")),
        ("chosen_token_kl", Name("", "chosen", "token", "kl", "model")),
        ("behaviour_logps", Name("behaviour", "", "", "logps", "model")),
        ("list_scores", Name("", "list", "", "scores", "data")),
        ("chosen_score", Name("", "chosen", "", "score", "data")),
        ("policy_chosen_score", Name("policy", "chosen", "", "score", "model")),
        ("chosen_logps", Name("", "chosen", "", "logps", "data")),
        ("chosen_win_rate", Name("", "chosen", "", "win_rate", "data")),
        ("beta_scale", Name("", "", "", "beta_scale", "free")),
        ("preference", Name("", "", "", "preference", "free")),
    ],
)
def test_names_are_read(name: str, expected: Name) -> None:
    assert parse(name) == expected


def test_every_name_of_the_grammar_is_read_back_as_written() -> None:
    for role, group, unit, quantity in product(("", *ROLES), ("", *GROUPS), ("", *UNITS), MODEL):
        if role == "reference" and quantity in ("log_ratio", "kl"):
            continue
        name = "_".join(part for part in (role, group, unit, quantity) if part)
        assert str(parse(name)) == name
        assert (parse(name).role, parse(name).group, parse(name).unit) == (role, group, unit)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("choosen_log_ratio", "unknown group 'choosen'; did you mean 'chosen'"),
        ("polciy_chosen_logps", "unknown role 'polciy'; did you mean 'policy'"),
        ("chosen_tokn_logps", "unknown unit 'tokn'; did you mean 'token'"),
        ("chosen_logp", "unknown quantity 'logp'; did you mean 'logps'"),
        ("chosen_policy_logps", "role 'policy' is out of place; the order is role, group, unit, quantity"),
        ("token_chosen_logps", "group 'chosen' is out of place"),
        ("policy_chosen", "no quantity after group 'chosen'"),
        ("policy", "no quantity after role 'policy'"),
        ("policy_chosen_length", "'length' is a data column and takes no role, got 'policy'"),
        ("chosen_preference", "'preference' stands alone"),
        ("reference_chosen_log_ratio", "compares with the reference; name another role"),
        ("banana", "unknown quantity 'banana'; known: logps"),
        ("", "unknown quantity ''"),
    ],
)
def test_a_name_that_does_not_parse_says_which_part(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        parse(name)
    assert f"tensor name '{name}'" in str(caught.value)


def test_a_log_ratio_needs_the_reference_and_a_log_likelihood_does_not() -> None:
    assert required_roles(["chosen_log_ratio", "preference"]) == {"policy", "reference"}
    assert required_roles(["policy_chosen_logps", "chosen_length"]) == {"policy"}
    assert required_roles(["peer_log_ratio"]) == {"peer", "reference"}
    assert required_roles(["behaviour_prediction", "policy_prediction"]) == {"behaviour", "policy"}
    assert required_roles(["preference", "chosen_logps"]) == frozenset() == required_roles([])


def test_only_what_models_are_asked_about_needs_its_group() -> None:
    names = ["chosen_log_ratio", "policy_list_logps", "policy_logps", "gold_length", "preference"]
    assert required_groups(names) == {"chosen", "list", ""}


@pytest.mark.parametrize(
    ("name", "ndim"),
    [
        ("chosen_log_ratio", 1),
        ("list_log_ratio", 2),
        ("chosen_token_kl", 2),
        ("list_token_mask", 3),
        ("policy_chosen_embedding", 2),
        ("policy_list_segment_embedding", 4),
        ("list_preference_matrix", 3),
        ("policy_prediction", None),
        ("preference", None),
    ],
)
def test_the_name_fixes_the_number_of_dimensions(name: str, ndim: int | None) -> None:
    assert parse(name).ndim == ndim
