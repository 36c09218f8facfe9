"""GenEval: are the objects there, so many, of these colours, in these places (Ghosh et al., NeurIPS 2023).

The benchmark's rule and the graded one on which Flow-GRPO trains. A detector finds objects and CLIP names their
colours; both can be replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from diffpref.core.annotations import PositiveInt, Probability
from diffpref.core.contracts import Media, Reward, RewardInfo
from diffpref.core.errors import ConfigError, DataError, ModelError
from diffpref.rewards import registry
from diffpref.rewards._colour_clip import load_clip_colours
from diffpref.rewards._detectors import load_detector
from diffpref.rewards._geneval_rules import Scene, Specification, exact, soft, specification, strict
from diffpref.rewards._media import as_pictures, check_lengths
from diffpref.rewards._objects import ColourNamer, Detector, Found, kept
from diffpref.rewards._published import Published
from diffpref.rewards._shapes_detector import ShapesColours, ShapesDetector

__all__ = ["DETECTOR", "RULES", "ColourNamer", "Detector", "Found", "GenEval", "Rule", "load_geneval"]

DETECTOR = Published(
    "geneval",
    "facebook/mask2former-swin-small-coco-instance",
    ("config.json", "preprocessor_config.json", "*.safetensors"),
    "other, see its card",
)
"""The benchmark's detector as transformers has it; the official one runs in mmdet, with another resizing."""
Rule: TypeAlias = Literal["strict", "exact", "soft"]
RULES: tuple[Rule, ...] = ("strict", "exact", "soft")


class GenEval:
    """Scores how far a picture shows what its metadata say. The prompt is not read.

    Args:
        detector: finds objects.
        colours: names their colours; None: metadata with colours are an error.
        rule: ``"strict"``: the benchmark's, 1 or 0; ``"exact"``: 1 or 0, with exact counts and without ``exclude``;
            ``"soft"``: the mean of grades, see `diffpref.rewards._geneval_rules.soft`.
        legacy: in ``soft``, count a relation that fails as 0 and 1, as the official code does.
        threshold: of the detector's scores.
        counting_threshold: the same for the task ``counting``.
        max_objects: of one class.
        max_overlap: leave out an object that overlaps a surer one of its class by this or more; 1: never.
        position_threshold: share of the objects' sizes within which they lie neither left nor right.
    """

    def __init__(
        self,
        detector: Detector,
        colours: ColourNamer | None = None,
        *,
        rule: Rule = "strict",
        legacy: bool = False,
        threshold: float = 0.3,
        counting_threshold: float = 0.9,
        max_objects: int = 16,
        max_overlap: float = 1.0,
        position_threshold: float = 0.1,
    ) -> None:
        self.detector, self.colours, self.rule, self.legacy = detector, colours, rule, legacy
        self.threshold, self.counting_threshold = threshold, counting_threshold
        self.max_objects, self.max_overlap, self.position_threshold = max_objects, max_overlap, position_threshold

    @property
    def info(self) -> RewardInfo:
        """Name, versions of detector and colours with all that changes numbers, licences, range."""
        parts = [part for part in (self.detector, self.colours) if part is not None]
        numbers = (self.threshold, self.counting_threshold, self.max_objects, self.max_overlap, self.position_threshold)
        settings = "/".join(f"{number:g}" for number in numbers)
        return RewardInfo(
            name="geneval",
            version="+".join(
                [*(_told(part, "version") for part in parts), self.rule, settings, *(["legacy"] if self.legacy else [])]
            ),
            licence="; ".join(dict.fromkeys(_told(part, "licence") for part in parts)),
            range=(-1.0, 1.0) if self.rule == "soft" else (0.0, 1.0),
            needs_prompt=False,
            needs_metadata=True,
            preprocessing="rgb",
            aspects=RULES,
        )

    def score(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> Tensor:
        """Return (N,) float32 by the rule.

        Args:
            media: N pictures.
            prompts: N texts, which are not read.
            metadata: N entries ``{tag, include, exclude?}``, as GenEval's file has them.

        Raises:
            ShapeError: not as many prompts or metadata as pictures.
            DataError: no metadata, or what is wanted is unreadable or nothing that could be found.
        """
        return torch.tensor([self._grade(self.rule, *pair) for pair in self._seen(media, prompts, metadata)]).float()

    def score_aspects(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None = None
    ) -> dict[str, Tensor]:
        """Return (N,) float32 by each rule; every picture is looked at once."""
        seen = list(self._seen(media, prompts, metadata))
        return {rule: torch.tensor([self._grade(rule, *pair) for pair in seen]).float() for rule in RULES}

    def _grade(self, rule: Rule, scene: Scene, wanted: Specification) -> float:
        if rule == "soft":
            return soft(scene, wanted, legacy=self.legacy)
        return strict(scene, wanted) if rule == "strict" else exact(scene, wanted)

    def _seen(
        self, media: Sequence[Media], prompts: Sequence[str], metadata: Sequence[Mapping[str, Any]] | None
    ) -> list[tuple[Scene, Specification]]:
        check_lengths("geneval", media, prompts, metadata)
        if metadata is None:
            raise DataError(
                "reward 'geneval' reads what a picture must show from metadata, {tag, include, exclude?} for each item;"
                " the prompt sets 'geneval' and 'shapes_geneval' have them"
            )
        palette = None if self.colours is None else tuple(getattr(self.colours, "palette", ()))
        classes = getattr(self.detector, "classes", None)
        wanted = [
            specification(told, f"reward 'geneval', metadata of item {number}", classes, palette)
            for number, told in enumerate(metadata)
        ]
        return [(self._scene(*pair), pair[1]) for pair in zip(as_pictures("geneval", media), wanted, strict=True)]

    def _scene(self, picture: Image.Image, wanted: Specification) -> Scene:
        threshold = self.counting_threshold if wanted.tag == "counting" else self.threshold
        objects: dict[str, list[Found]] = {name: [] for name in wanted.classes}
        for one in self.detector(picture, wanted.classes, threshold):
            if one.name in objects:
                objects[one.name].append(one)

        def name_colours(found: Sequence[Found]) -> list[str | None]:
            assert self.colours is not None  # a specification with colours is refused without
            return self.colours(picture, found)

        counted = {
            name: kept(found, threshold=threshold, max_objects=self.max_objects, max_overlap=self.max_overlap)
            for name, found in objects.items()
        }
        return Scene(counted, name_colours, self.position_threshold)


def _told(part: object, what: str) -> str:
    """Return what a detector or a colour namer says of itself; a plain function says only its name."""
    return str(getattr(part, what, getattr(part, "__name__", type(part).__name__)))


@registry.register("geneval")
def load_geneval(
    path: str | None = None,
    *,
    detector: Literal["transformers", "shapes"] | Callable[..., Any] = "transformers",
    colours: str | Callable[..., Any] | None = None,
    rule: Rule = "strict",
    legacy: bool = False,
    threshold: Probability = 0.3,
    counting_threshold: Probability = 0.9,
    max_objects: PositiveInt = 16,
    max_overlap: Annotated[float, Field(gt=0, le=1)] = 1.0,
    position_threshold: Probability = 0.1,
    device: str = "cpu",
) -> Reward:
    """Return the reward.

    Args:
        path: hub id or folder of a transformers detector: Mask2Former or MaskFormer (the benchmark's is `DETECTOR`),
            DETR or its kin, OWL-ViT or OWLv2. They run in float32.
        detector: ``"transformers"``; ``"shapes"``: the oracle of the shapes world, without a path, which names colours
            too; in Python, any `Detector`.
        colours: hub id or folder of a CLIP model that names colours, the benchmark's is
            ``openai/clip-vit-large-patch14``; in Python, any `ColourNamer`.
        rule: see `GenEval`.
        legacy: see `GenEval`.
        threshold: see `GenEval`.
        counting_threshold: see `GenEval`.
        max_objects: see `GenEval`.
        max_overlap: see `GenEval`; detectors without their own suppression of doubles, such as OWL, want 0.5 or so.
        position_threshold: see `GenEval`.
        device: where the networks run.

    Raises:
        ConfigError: no path where one is needed, or one where none is.
        ModelError: no detector or no CLIP model can be loaded.
    """
    found: Any
    if callable(detector) or detector == "shapes":
        if path is not None:
            raise ConfigError(f"reward 'geneval': a detector and a path, '{path}', were given; leave one out")
        found = ShapesDetector() if detector == "shapes" else detector
    else:
        if path is None:
            raise ConfigError(
                f"reward 'geneval' needs a path: the hub id or a folder of a detector, such as {DETECTOR}; or"
                " detector: shapes"
            )
        found = _from_path(path, device)
    named: Any
    if isinstance(colours, str):
        named = load_clip_colours(colours, device)
    else:
        named = ShapesColours() if colours is None and detector == "shapes" else colours
    return GenEval(
        found,
        named,
        rule=rule,
        legacy=legacy,
        threshold=threshold,
        counting_threshold=counting_threshold,
        max_objects=max_objects,
        max_overlap=max_overlap,
        position_threshold=position_threshold,
    )


def _from_path(path: str, device: str) -> Detector:
    folder = Path(path).expanduser()
    if not folder.exists() and (path.startswith((".", "/", "~")) or path.count("/") != 1):
        raise ModelError(f"{path}: no such folder; reward 'geneval' reads a detector, such as {DETECTOR}")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"{path}: no file config.json; reward 'geneval' reads a detector, such as {DETECTOR}")
    return load_detector(str(folder) if folder.exists() else path, device)
