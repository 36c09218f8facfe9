"""Measures that are formulas: distances of sets, benchmark totals, probes of pictures. None of them runs a model."""

from __future__ import annotations

from diffpref.evaluation.measures.categories import by_category, macro_average
from diffpref.evaluation.measures.clip_probes import CLIP_PROBES, MOTION_PROBES
from diffpref.evaluation.measures.diversity import diversity, pairwise_distance
from diffpref.evaluation.measures.dpg import DpgAnswers, dpg_categories, dpg_overall, dpg_score, masked_answers
from diffpref.evaluation.measures.frechet import Moments, frechet_distance, moments
from diffpref.evaluation.measures.geneval import GenEvalScore, geneval_score
from diffpref.evaluation.measures.hps_benchmark import StyleScore, hpdv2_accuracy, hps_benchmark
from diffpref.evaluation.measures.kernel_distance import KernelDistance, kernel_distance
from diffpref.evaluation.measures.probes import (
    PROBES,
    clipped_share,
    colour_saturation,
    jpeg_kilobytes,
    probe_pictures,
    sharpness,
)
from diffpref.evaluation.measures.vbench import VBENCH_RANGES, VBENCH_WEIGHTS, VBenchScore, vbench_score

__all__ = [
    "CLIP_PROBES",
    "MOTION_PROBES",
    "PROBES",
    "VBENCH_RANGES",
    "VBENCH_WEIGHTS",
    "DpgAnswers",
    "GenEvalScore",
    "KernelDistance",
    "Moments",
    "StyleScore",
    "VBenchScore",
    "by_category",
    "clipped_share",
    "colour_saturation",
    "diversity",
    "dpg_categories",
    "dpg_overall",
    "dpg_score",
    "frechet_distance",
    "geneval_score",
    "hpdv2_accuracy",
    "hps_benchmark",
    "jpeg_kilobytes",
    "kernel_distance",
    "macro_average",
    "masked_answers",
    "moments",
    "pairwise_distance",
    "probe_pictures",
    "sharpness",
    "vbench_score",
]
