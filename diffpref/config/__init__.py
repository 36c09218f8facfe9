"""Configs: strict sections, YAML that refuses what it cannot mean, recipes, and the command line over them."""

from __future__ import annotations

from diffpref.config.commandline import ALIASES, parse_recipe_cli
from diffpref.config.documents import dump_yaml, load_yaml, parse_yaml
from diffpref.config.named import Named
from diffpref.config.problems import config_error
from diffpref.config.recipe import Recipe, build_recipe, load_recipe, recipe_names, save_recipe
from diffpref.config.roles import RoleSettings, resolve_roles
from diffpref.config.section import Section
from diffpref.config.sections import (
    Adapter,
    Bank,
    Data,
    Ema,
    Guards,
    Likelihood,
    Logging,
    Model,
    Optim,
    Scorer,
    Training,
    Validation,
)

__all__ = [
    "ALIASES",
    "Adapter",
    "Bank",
    "Data",
    "Ema",
    "Guards",
    "Likelihood",
    "Logging",
    "Model",
    "Named",
    "Optim",
    "Recipe",
    "RoleSettings",
    "Scorer",
    "Section",
    "Training",
    "Validation",
    "build_recipe",
    "config_error",
    "dump_yaml",
    "load_recipe",
    "load_yaml",
    "parse_recipe_cli",
    "parse_yaml",
    "recipe_names",
    "resolve_roles",
    "save_recipe",
]
