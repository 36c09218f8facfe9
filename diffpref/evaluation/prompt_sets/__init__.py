"""Prompt sets by name: readers of the files that benchmarks publish, and what is bundled.

``load_prompt_set("partiprompts=PartiPrompts.tsv")`` reads a published file, ``load_prompt_set("shapes:unseen:300")`` or
``load_prompt_set("mine.jsonl")`` whatever generation takes, ``load_prompt_set("shapes_geneval")`` the bundled set of
GenEval type. No published prompts are part of this package: each has a licence of its own.

A new set is one file here with one function that `published` registers.
"""

from __future__ import annotations

from diffpref.evaluation.prompt_sets._prompt_set import PromptSet
from diffpref.evaluation.prompt_sets._published import Content, PublishedSet, published, registry
from diffpref.evaluation.prompt_sets._word import load_prompt_set

__all__ = ["Content", "PromptSet", "PublishedSet", "load_prompt_set", "published", "registry"]
