"""The sections of a recipe. A field's description is its documentation, its command-line help and its error hint."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from diffpref.config.named import Named
from diffpref.config.section import Section
from diffpref.core.annotations import NonNegative, NonNegativeInt, Number, Positive, PositiveInt, Probability

__all__ = [
    "Adapter",
    "Bank",
    "Data",
    "Ema",
    "Guards",
    "Likelihood",
    "Logging",
    "Model",
    "Optim",
    "Scorer",
    "Training",
    "Validation",
]

Text = Annotated[str, Field(min_length=1)]
BelowOne = Annotated[Number, Field(ge=0, lt=1)]


class Model(Section):
    """What is aligned."""

    family: Text = Field(description="model family, a registry name: sd, sdxl, sd3, causal_lm")
    path: Text = Field(description="hub id, folder, .gguf file, or bundled:NAME for a model inside the package")
    revision: str | None = Field(default=None, description="commit, tag or branch on the hub")
    variant: str | None = Field(default=None, description="file variant on the hub, such as fp16")
    attention: Literal["auto", "native", "xformers"] = Field(default="auto", description="attention kernel")
    precision: Literal["fp32", "bf16", "fp16"] = Field(default="fp32", description="number format of the network")
    gradient_checkpointing: Literal[False, True, "every_second"] = Field(
        default=False,
        description="recompute activations of every block (true) or every second: less memory, up to a third slower",
    )
    compile: Literal[False, "regional", "full"] = Field(
        default=False,
        description="torch.compile of each block (regional: soon ready, goes with FSDP2) or of the whole (full)",
    )
    compile_backend: Text = Field(default="inductor", description="backend of torch.compile")
    allow_pickle: bool = Field(default=False, description="load weights that exist only as pickle, which can run code")
    max_sequence_length: PositiveInt | None = Field(
        default=None,
        description="tokens of a T5 text encoder, as diffusers' argument of that name; null: the pipeline's",
    )

    @field_validator("compile", mode="before")
    @classmethod
    def _no_true(cls, value: Any) -> Any:
        if value is False or value in ("regional", "full"):
            return value
        raise ValueError(f"must be false, regional or full, got {value!r}")

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _no_number(cls, value: Any) -> Any:
        if value is True or value is False or value == "every_second":
            return value
        raise ValueError(f"must be true, false or every_second, got {value!r}")


class Adapter(Section):
    """Which weights are trained."""

    kind: Text = Field(
        default="lora", description="lora (low-rank adapters), full (every weight), or part (those of targets)"
    )
    rank: PositiveInt = Field(default=8, description="LoRA rank")
    alpha: Positive | None = Field(default=None, description="LoRA scale is alpha / rank; not given: alpha = rank")
    targets: list[Text] | None = Field(
        default=None,
        description="lora: names of modules, not given: the family's attention; part: beginnings or patterns of"
        " names of weights, not given: the second half of the blocks",
    )
    start: Text | None = Field(
        default=None, description="folder or file of a LoRA that the policy starts from; it is the reference too"
    )
    heads: Text | None = Field(
        default=None, description="folder of value and mask heads to begin with; objectives that read one train one"
    )
    head_size: PositiveInt = Field(
        default=4, description="degrees that a head of SPO tells apart, or numbers of GPM's embedding"
    )
    head_learning_rate_scale: Positive = Field(
        default=1.0, description="learning rate of heads, as a multiple of optim.learning_rate; OREO's LoRA takes 20"
    )
    dora: bool = Field(
        default=False, description="DoRA: the LoRA turns the weights, a vector of its own scales them; slower"
    )


Feature = Literal["image", "text", "product"]


class Scorer(Section):
    """What a reward model of pictures makes of the features of its towers."""

    head: Literal["cosine", "linear", "mlp"] | None = Field(
        default=None,
        description="cosine: of picture and prompt, times the model's logit scale, as in PickScore and HPS; linear or"
        " mlp: a head of its own; not given: cosine where the towers are trained and nothing but a score is asked, else"
        " mlp",
    )
    hidden: list[PositiveInt] = Field(default_factory=lambda: [128], description="widths of the mlp's hidden layers")
    activation: Literal["relu", "none"] = Field(
        default="relu", description="between the mlp's layers; none: an affine map, as ImageReward's"
    )
    reads: tuple[Feature, ...] = Field(
        default=("image", "text", "product"),
        min_length=1,
        description="what a head reads: features of the picture, of the prompt, and the product of the two",
    )
    frames: PositiveInt | None = Field(
        default=None,
        description="the items are clips: so many frames, evenly spaced, whose features are averaged; not given: they"
        " are pictures",
    )
    max_logit_scale: Positive = Field(
        default=100.0, description="the logit scale of the cosine is kept between 1 and this after every update"
    )


class Data(Section):
    """What is learnt from."""

    source: Text = Field(
        description="a store's folder; .tar, .parquet or .jsonl files; a saved dataset; or pictures with captions"
    )
    columns: dict[str, Text] = Field(
        default_factory=dict,
        description="of a source that is no store: what its columns mean, {prompt: text_en, first: jpg_0}; not given:"
        " their usual names",
    )
    on_bad_shard: Literal["raise", "skip"] = Field(
        default="raise", description="a tar shard that is damaged: stop, or leave it out with a warning"
    )
    pairing: Literal["best_vs_worst", "all_pairs", "adjacent"] = Field(
        default="best_vs_worst", description="which pairs a record with several candidates gives; lists take all"
    )
    score: str | list[Text] | None = Field(
        default=None,
        description="score that orders candidates, or several that do together; not given: the record's judgements",
    )
    combine: Literal["weighted_sum", "zscore", "win_fraction", "strict_win_fraction", "consensus"] = Field(
        default="zscore",
        description="several scores: their sum (weighted_sum); the sum of their z-scores among the candidates (zscore);"
        " the share of comparisons that a candidate wins, a tie being half a win (win_fraction) or none, as RankDPO"
        " has it (strict_win_fraction); zscore, and only pairs on which all agree (consensus)",
    )
    score_weights: list[NonNegative] | None = Field(
        default=None, description="several scores: what each counts; not given: the same"
    )
    score_scale: Positive = Field(
        default=1.0,
        description="s in P(a is better than b) = sigmoid(s * (score of a - score of b)), from which win rates follow",
    )
    calibration: Text | None = Field(
        default=None,
        description="file of diffpref reward calibrate, which gives score_scale and the version of the score",
    )
    score_labels: Literal["hard", "soft"] = Field(
        default="hard",
        description="pairs by score: the higher score surely wins, or with that probability (soft), for objectives"
        " that read soft labels",
    )
    list_scores: Literal["auto", "raw", "win_rate"] = Field(
        default="auto",
        description="scores of lists: raw; win_rate: the mean probability to beat the others of the list; auto: raw,"
        " and win rates for an objective that reads only 0 to 1, such as lipo_lambda, where raw ones lie beyond",
    )
    aspects: list[Text] = Field(
        default_factory=list,
        description="pairs judged by several aspects: the names of judgements' aspects, or of scores; each is a column"
        " of what an objective of several scores reads",
    )
    positive_share: Probability | None = Field(
        default=None,
        description="single samples are drawn with replacement, so many of them good ones, as in Diffusion-KTO; not"
        " given: each once before any comes again",
    )
    mixed_labels: Literal["each", "good", "bad", "drop"] = Field(
        default="each",
        description="single samples that won in one pair and lost in another: one for each pair; or each sample once,"
        " these being good, bad or left out",
    )
    equal_prompts: bool = Field(
        default=False,
        description="every prompt weighs alike, however many pairs, lists or samples it has, as in PickScore: weights"
        " are divided by their number",
    )
    min_gap: NonNegative = Field(
        default=0.0, description="smallest score difference that makes a pair, in units of the score"
    )
    rarity_bins: PositiveInt | None = Field(
        default=None,
        description="pairs by score: each weighs 0.72 over the share of pairs whose gap falls into its bin of a"
        " histogram of so many bins, as in VideoDPO; not given: pairs by score weigh 1",
    )
    resolution: PositiveInt | None = Field(default=None, description="image side in pixels; not given: the model's own")
    random_flip: bool = Field(
        default=False, description="show images mirrored half of the time; not where captions tell left from right"
    )
    random_crop: bool = Field(default=False, description="cut the square anywhere, not in the centre")
    views: PositiveInt = Field(
        default=4, description="with random_crop or random_start: different cuts of each image or clip, encoded once"
    )
    num_frames: PositiveInt | None = Field(
        default=None, description="of clips: frames that are shown; not given: as many as the family usually makes"
    )
    frame_stride: PositiveInt = Field(default=1, description="of clips: every so-many-th frame is shown")
    fps: Positive | None = Field(
        default=None,
        description="of clips: frames a second of what is shown, instead of frame_stride; clips must tell their own",
    )
    random_start: bool = Field(
        default=False, description="of clips: begin anywhere in time, not so that the middle is shown"
    )
    size_conditioning: Literal["constant", "original"] = Field(
        default="constant",
        description="what SDXL is told of sizes: constant: every image as large as the resolution and uncropped;"
        " original: true size and crop of a record's first image, for all its images",
    )
    max_length: PositiveInt | None = Field(
        default=None, description="tokens of a prompt with its completion; not given: as many as the model reads"
    )
    truncation: Literal["completion", "prompt", "drop", "refuse"] = Field(
        default="completion",
        description="what gives way to max_length: the end of completions (a prompt without room stops the run), the"
        " beginning of the prompt first, the record (drop), or nothing (refuse)",
    )
    padding: Literal["auto", "batch", "data"] = Field(
        default="auto",
        description="texts are padded to the longest of their batch, or of the data, so that every forward has one"
        " shape; auto: batch, except for objectives of single tokens and with a bank",
    )
    cache: str | None = Field(
        default=None, description="folder for latents and text embeddings; not given: beside the run"
    )
    drop_ties: bool = Field(default=True, description="leave out pairs judged equal")
    drop_identical: bool = Field(default=True, description="leave out pairs of one and the same picture")
    judgements: Literal["each", "merged"] = Field(
        default="each",
        description="several judgements of the same two pictures: a pair each, or one with their mean by weight",
    )
    max_unusable: Probability = Field(
        default=0.01, description="share of records, scores or shards that may be unusable before the run stops"
    )

    @model_validator(mode="after")
    def _fit_scores(self) -> Data:
        several = isinstance(self.score, list)
        if several and len(set(self.score or ())) < max(1, len(self.score or ())):
            raise ValueError(f"score: several scores must be different ones, got {self.score}")
        for name in ("combine", "score_weights"):
            if not several and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: is for several scores, score: [NAME, NAME]; got {self.score!r}")
        if self.score_weights is not None and len(self.score_weights) != len(self.score or ()):
            raise ValueError(f"score_weights: one a score, {len(self.score or ())}; got {len(self.score_weights)}")
        if self.score_weights is not None and not any(self.score_weights):
            raise ValueError("score_weights: must not all be 0")
        if self.rarity_bins is not None and self.score is None:
            raise ValueError("rarity_bins: is of pairs by score; name one in score")
        if self.calibration is not None and (several or self.score is None):
            raise ValueError(f"calibration: is of one score; name it in score, got {self.score!r}")
        if self.calibration is not None and self.score_scale != 1.0:
            raise ValueError("calibration: gives score_scale; leave that out")
        return self

    @model_validator(mode="after")
    def _fit_frames(self) -> Data:
        if self.fps is not None and self.frame_stride != 1:
            raise ValueError(f"frame_stride: goes without fps, which says the same; got {self.frame_stride}")
        return self


class Bank(Section):
    """Roles that stand still, such as the reference, asked once about each draw and read from then on."""

    slots: NonNegativeInt = Field(
        default=0, description="draws of timestep, noise, crop and dropout that a record sees in all; 0 = no bank"
    )
    folder: str | None = Field(default=None, description="folder of all banks; not given: inside the cache")
    roles: list[Text] = Field(default_factory=lambda: ["reference"], min_length=1, description="roles that are banked")


class Likelihood(Section):
    """How denoising errors become log-likelihoods: the weight of a timestep, and how often it is drawn."""

    weighting: Literal["simple", "eps_equiv", "min_snr", "x0", "elbo"] = Field(
        default="simple", description="weight over t"
    )
    snr_gamma: Positive = Field(default=5.0, description="upper bound of the signal-to-noise ratio under min_snr")
    timesteps: Literal["auto", "uniform", "logit_normal", "mode"] = Field(
        default="auto",
        description="density of timesteps in training; auto: logit_normal for flows, as SD3 was trained, else uniform",
    )
    logit_mean: Number = Field(default=0.0, description="of logit_normal; above 0 draws less noise, as in SD3's codes")
    logit_std: Positive = Field(default=1.0, description="of logit_normal")
    mode_scale: Number = Field(default=1.29, ge=-1, le=1.75, description="of mode: how far its tails are fed")


class Optim(Section):
    """AdamW and its learning-rate schedule."""

    kind: Literal["adamw", "adamw8bit"] = Field(
        default="adamw", description="adamw8bit keeps the moments in 8 bits; needs the extra 'bnb'"
    )
    fused: bool = Field(default=True, description="adamw: one kernel for all weights where torch has one; faster")
    learning_rate: Positive = Field(default=1e-5, description="highest learning rate")
    weight_decay: NonNegative = Field(default=1e-2, description="decoupled weight decay")
    betas: tuple[BelowOne, BelowOne] = Field(default=(0.9, 0.999), description="decay of the two moment averages")
    eps: Positive = Field(default=1e-8, description="added to the denominator")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        default="constant", description="learning rate after warm-up"
    )
    warmup_steps: NonNegativeInt = Field(default=0, description="updates of linear warm-up from zero")
    max_grad_norm: Positive = Field(default=1.0, description="gradients are clipped to this norm")


class Ema(Section):
    """An average of the policy over its updates, beside it: smoother pictures, and a second result."""

    decay: BelowOne | None = Field(default=None, description="share that stays at each step; not given: no average")
    every: PositiveInt = Field(default=1, description="updates between steps of the average")
    warmup: bool = Field(default=True, description="begin with decay (1 + n) / (10 + n) after n steps")


class Training(Section):
    """How long, and how much at a time."""

    steps: PositiveInt = Field(default=1000, description="updates")
    batch_size: PositiveInt = Field(default=1, description="records per process and micro-batch")
    accumulation: PositiveInt = Field(default=1, description="micro-batches per update")
    records_per_update: PositiveInt | None = Field(
        default=None,
        description="batch_size x accumulation x processes, which must give this number; not given: whatever they give",
    )
    replay: Literal["auto", "always"] = Field(
        default="auto",
        description="forwards without gradient first, objectives once on all records of an update, then forwards again"
        " with gradient; auto: where an objective couples its records",
    )
    max_rows: PositiveInt | None = Field(
        default=None,
        description="denoisers: samples of one forward at most; a micro-batch of more, such as one of long lists, is"
        " asked piece by piece and replayed, so that a list of 8 needs no more memory than one of 2; not given: all"
        " samples of a micro-batch at once",
    )
    checkpoint_every: NonNegativeInt = Field(default=0, description="updates between checkpoints; 0 = only at the end")
    keep: PositiveInt = Field(default=2, description="good checkpoints kept")
    on_full_disk: Literal["raise", "warn"] = Field(
        default="raise", description="when a checkpoint finds no room: stop, or warn and train on"
    )
    log_every: PositiveInt = Field(default=1, description="updates between lines of metrics.jsonl")
    resume: bool = Field(default=True, description="continue from the newest checkpoint in the output folder")
    ema: Ema = Ema()


class Guards(Section):
    """What stops a run, or says that it goes wrong."""

    nonfinite: Literal["raise", "skip"] = Field(
        default="raise", description="when a loss or gradient is NaN or infinite: stop, or leave the update out"
    )
    max_skips: PositiveInt = Field(default=3, description="updates in a row that may be left out; one more stops")
    winner_error: Literal["off", "warn", "stop", "roll_back"] = Field(
        default="warn",
        description="when chosen samples are unlearnt: say so, end the run, or end it with the last checkpoint before",
    )
    winner_epsilon: NonNegative = Field(
        default=0.05, description="how much worse than the reference is too much, as a share of the reference's error"
    )
    winner_window: PositiveInt = Field(
        default=50, description="updates over which the chosen error is averaged, and between two looks at it"
    )
    winner_patience: PositiveInt = Field(default=3, description="looks in a row that must find too much")


class Validation(Section):
    """Pictures drawn during training, always from the same prompts and seeds."""

    prompts: list[Text] = Field(default_factory=list, description="captions to draw")
    every: NonNegativeInt = Field(default=0, description="updates between drawings; 0 = never")
    seeds: list[NonNegativeInt] = Field(
        default_factory=lambda: [0], min_length=1, description="one picture a prompt and seed"
    )
    num_inference_steps: PositiveInt = Field(default=30, description="denoising steps")
    guidance_scale: NonNegative = Field(default=5.0, description="classifier-free guidance; 1 = none")
    ema: bool = Field(default=False, description="draw with the average of training.ema instead of the policy")
    rewards: list[Named] = Field(
        default_factory=list,
        description="what scores the pictures, logged as eval/NAME: NAME, NAME=PATH or {NAME: {path: PATH, ...}}",
    )

    @field_validator("rewards", mode="before")
    @classmethod
    def _read_paths(cls, value: Any) -> Any:
        return [_reward(item) for item in value] if isinstance(value, list) else value


def _reward(word: Any) -> Any:
    """Read ``NAME=PATH`` as ``{NAME: {path: PATH}}``."""
    name, equals, path = word.partition("=") if isinstance(word, str) else (word, "", "")
    return {name: {"path": path}} if equals else word


class Logging(Section):
    """Where the lines of metrics.jsonl go besides."""

    trackers: list[Text] = Field(
        default_factory=list, description="trackers of accelerate: tensorboard, wandb (extra 'trackers'), mlflow, ..."
    )
    project: Text = Field(default="diffpref", description="how trackers call the run's project")
