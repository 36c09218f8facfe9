"""Every pipeline keeps what diffusers promises of its own: saving, loading, batches, generators, callbacks, dtypes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.utils import BaseOutput
from pipeline_cases import PipelineCase, cases, generators

from diffpref import pipelines
from diffpref.core.errors import ConfigError
from diffpref.models import registry as families

CASES = cases()
KINDS = [(name, family) for name, case in CASES.items() for family in case.families]
WATCHED = [(name, family) for name, family in KINDS if CASES[name].is_watched]
GENERATED = [(name, family) for name, family in KINDS if CASES[name].takes_generators]

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def stock() -> Iterator[Any]:
    made: dict[str, Any] = {}

    def get(family: str) -> Any:
        if family not in made:
            made[family] = families.get(family).tiny().pipeline()
        return made[family]

    yield get


@pytest.fixture
def opened(stock: Any) -> Any:
    """Give a case and its pipeline on a family's components."""

    def get(name: str, family: str) -> tuple[PipelineCase, Any]:
        case = CASES[name]
        return case, quiet(pipelines.registry.get(name).from_pipe(stock(family), **case.options))

    return get


def quiet(pipe: Any) -> Any:
    pipe.set_progress_bar_config(disable=True)
    return pipe


def apart(case: PipelineCase, first: Any, second: Any) -> float:
    pairs = zip(case.rows(first), case.rows(second), strict=True)
    return max(float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).max()) for a, b in pairs)


def test_every_pipeline_has_a_case() -> None:
    assert sorted(CASES) == pipelines.registry.names()


@pytest.mark.parametrize("name", CASES)
def test_a_call_has_the_arguments_that_users_of_diffusers_look_for(name: str) -> None:
    kind = pipelines.registry.get(name)
    known = inspect.signature(kind.__call__).parameters
    assert {"prompt", "generator", "output_type", "return_dict"} <= set(known)
    assert known["return_dict"].default is True and known["generator"].default is None
    if CASES[name].is_watched:
        assert {"num_inference_steps", "guidance_scale", "callback_on_step_end"} <= set(known)
        assert known["callback_on_step_end_tensor_inputs"].default == ("latents",)
    assert kind.__name__.removesuffix("Pipeline") + "Output" in pipelines.__all__


@pytest.mark.parametrize("name, family", KINDS)
def test_a_saved_pipeline_gives_the_same_by_every_way_of_loading(
    opened: Any, name: str, family: str, tmp_path: Path
) -> None:
    case, pipe = opened(name, family)
    pipe.save_pretrained(tmp_path)
    before = case.call(pipe)
    kind = type(pipe)
    for loaded in (
        kind.from_pretrained(tmp_path),
        DiffusionPipeline.from_pretrained(tmp_path, custom_pipeline=str(tmp_path), trust_remote_code=True),
    ):
        assert type(loaded) is kind
        assert apart(case, case.call(quiet(loaded)), before) < 1e-4


@pytest.mark.parametrize("name, family", KINDS)
def test_a_stock_folder_loads_with_the_installed_file_and_saves_again(
    opened: Any, stock: Any, name: str, family: str, tmp_path: Path
) -> None:
    case, pipe = opened(name, family)
    stock(family).save_pretrained(tmp_path / "stock")
    file = inspect.getfile(type(pipe))
    loaded = DiffusionPipeline.from_pretrained(
        tmp_path / "stock", custom_pipeline=file, trust_remote_code=True, **case.options
    )
    assert type(loaded).__name__ == type(pipe).__name__
    before = case.call(pipe)
    assert apart(case, case.call(quiet(loaded)), before) < 1e-4
    loaded.save_pretrained(tmp_path / "again")  # from a copy of the file, under another name
    again = DiffusionPipeline.from_pretrained(
        tmp_path / "again", custom_pipeline=str(tmp_path / "again"), trust_remote_code=True
    )
    assert type(again) is type(pipe) and apart(case, case.call(quiet(again)), before) < 1e-4


@pytest.mark.parametrize("name, family", KINDS)
def test_a_prompt_gives_alone_what_it_gives_in_a_batch(opened: Any, name: str, family: str) -> None:
    case, pipe = opened(name, family)
    together = case.rows(case.call(pipe, count=3))
    assert len(together) == 3
    for row in (0, 2):
        (alone,) = case.rows(case.call(pipe, count=3, only=row))
        assert alone.shape == together[row].shape
        assert np.abs(alone - together[row]).max() < 1e-4


@pytest.mark.parametrize("name, family", KINDS)
def test_two_calls_give_the_same_and_the_prompt_matters(opened: Any, name: str, family: str) -> None:
    case, pipe = opened(name, family)
    first = case.call(pipe)
    assert apart(case, first, case.call(pipe)) == 0
    assert apart(case, first, case.call(pipe, prompt=["other", "words"])) > 0
    assert apart(case, first, case.call(pipe, guidance_scale=9.0)) > 0
    assert apart(case, first, case.call(pipe, negative_prompt="ugly")) > 0


@pytest.mark.parametrize("name, family", KINDS)
def test_tuples_hold_what_outputs_do(opened: Any, name: str, family: str) -> None:
    case, pipe = opened(name, family)
    output = case.call(pipe)
    as_tuple = case.call(pipe, return_dict=False)
    assert isinstance(output, BaseOutput) and type(as_tuple) is tuple
    assert apart(case, output, as_tuple) == 0


@pytest.mark.parametrize("name, family", KINDS)
def test_components_are_those_of_the_constructor_shared_and_enough(opened: Any, name: str, family: str) -> None:
    case, pipe = opened(name, family)
    parameters = inspect.signature(type(pipe).__init__).parameters
    named = {key for key, one in parameters.items() if one.default is inspect.Parameter.empty} - {"self"}
    assert set(pipe.components) == named | set(type(pipe)._optional_components)
    again = quiet(type(pipe)(**pipe.components, **_settings(pipe, case)))
    assert all(getattr(again, key) is part for key, part in pipe.components.items())
    assert apart(case, case.call(again), case.call(pipe)) == 0


def _settings(pipe: Any, case: PipelineCase) -> dict[str, Any]:
    """Of the stock pipeline's config, what the constructor takes."""
    known = inspect.signature(type(pipe).__init__).parameters
    return {
        **{key: pipe.config[key] for key in known if key in pipe.config and key not in pipe.components},
        **case.options,
    }


@pytest.mark.parametrize("name, family", [(n, f) for n, f in KINDS if f in CASES[n].without])
def test_components_that_may_be_absent_stay_absent(opened: Any, name: str, family: str, tmp_path: Path) -> None:
    case, pipe = opened(name, family)
    lacking = quiet(type(pipe)(**{**pipe.components, **dict.fromkeys(case.without[family])}, **_settings(pipe, case)))
    before = case.call(lacking)
    assert apart(case, before, case.call(pipe)) > 0
    lacking.save_pretrained(tmp_path)
    loaded = quiet(type(pipe).from_pretrained(tmp_path))
    assert all(getattr(loaded, part) is None for part in case.without[family])
    assert apart(case, case.call(loaded), before) < 1e-4
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert all(index[part] == [None, None] for part in case.without[family])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name, family", WATCHED)
def test_half_precision_runs_and_is_near(name: str, family: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    pipe = quiet(pipelines.registry.get(name).from_pipe(families.get(family).tiny().pipeline(), **case.options))
    wide = case.call(pipe, guidance_scale=1.0)
    pipe.to(dtype)
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert {part.dtype for part in networks} == {dtype}
    half = case.call(pipe, guidance_scale=1.0)
    assert all(np.isfinite(row).all() for row in case.rows(half))
    away = [np.abs(a - b).mean() for a, b in zip(case.rows(half), case.rows(wide), strict=True)]
    assert 0 < max(away) < 0.1  # of an untrained network single pixels may turn over
    assert {part.dtype for part in networks} == {dtype}  # the VAE's, too
    assert pipe.to("cpu").device == torch.device("cpu")


@pytest.mark.parametrize("name, family", KINDS)
def test_attention_in_slices_gives_the_same(name: str, family: str) -> None:
    case = CASES[name]
    pipe = quiet(pipelines.registry.get(name).from_pipe(families.get(family).tiny().pipeline(), **case.options))
    before = case.call(pipe)
    pipe.enable_attention_slicing("max")
    assert apart(case, case.call(pipe), before) < 5e-3  # some pictures were bytes once


@pytest.mark.parametrize("name, family", WATCHED)
def test_a_callback_sees_every_step_and_changes_the_latents(opened: Any, name: str, family: str) -> None:
    case, pipe = opened(name, family)
    seen: list[tuple[int, float]] = []

    def watch(one: Any, step: int, timestep: Any, told: dict[str, Any]) -> dict[str, Any]:
        assert one is pipe and set(told) == set(asked) <= set(pipe._callback_tensor_inputs)
        seen.append((step, float(timestep)))
        return told

    for asked in (["latents"], []):
        seen.clear()
        case.call(pipe, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=asked)
        assert [step for step, _ in seen] == list(range(pipe.num_timesteps))
        assert all(0 <= timestep <= 1000 for _, timestep in seen) and len({t for _, t in seen}) > 1
        assert pipe.guidance_scale == 2.0

    def erase(one: Any, step: int, timestep: Any, told: dict[str, Any]) -> dict[str, Any]:
        last = step == one.num_timesteps - 1
        return {"latents": torch.zeros_like(told["latents"])} if last else told

    output = case.call(pipe, output_type="latent", callback_on_step_end=erase)
    assert all(float(torch.as_tensor(row).abs().sum()) == 0 for row in case.rows(output))
    with pytest.raises(ConfigError, match="callback_on_step_end_tensor_inputs: 'noise' is not known; known: latents"):
        case.call(pipe, callback_on_step_end=watch, callback_on_step_end_tensor_inputs=["noise"])
    with pytest.raises(ConfigError, match="callback_on_step_end: must be callable, got int"):
        case.call(pipe, callback_on_step_end=3)


@pytest.mark.parametrize("name, family", WATCHED)
def test_the_progress_bar_shows_all_steps_and_can_be_silenced(
    opened: Any, name: str, family: str, capsys: pytest.CaptureFixture[str]
) -> None:
    case, pipe = opened(name, family)
    capsys.readouterr()
    case.call(pipe)
    assert capsys.readouterr().err == ""
    pipe.set_progress_bar_config(disable=False)
    case.call(pipe)
    shown = capsys.readouterr().err
    assert f"{pipe.num_timesteps}/{pipe.num_timesteps}" in shown


@pytest.mark.parametrize("name, family", GENERATED)
def test_one_generator_serves_the_prompts_in_their_order(opened: Any, name: str, family: str) -> None:
    case, pipe = opened(name, family)
    given = {"eta": 0.5} if name == "inversion" and family != "sd3" else {}

    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    first, again = (case.call(pipe, generator=generator(), **given) for _ in range(2))
    assert apart(case, first, again) == 0
    other = case.call(pipe, generator=torch.Generator().manual_seed(4), **given)
    assert (apart(case, first, other) > 0) == (name != "inversion" or bool(given))
    if given or name != "inversion":
        with pytest.raises(ConfigError, match=r"generator: must be a torch\.Generator or a list of 2, got 3 things"):
            case.call(pipe, generator=generators(3), **given)
        with pytest.raises(ConfigError, match=r"generator: must be a torch\.Generator or a list of 2, got int"):
            case.call(pipe, generator=3, **given)


@pytest.mark.parametrize("name, family", WATCHED)
def test_every_output_type_shows_the_same(opened: Any, name: str, family: str) -> None:
    case, pipe = opened(name, family)
    arrays, tensors, pictures, latents = (
        case.call(pipe, output_type=kind)[0] for kind in ("np", "pt", "pil", "latent")
    )
    assert arrays.dtype == np.float32 and 0 <= arrays.min() and arrays.max() <= 1
    np.testing.assert_allclose(np.moveaxis(tensors.numpy(), -3, -1), arrays, atol=1e-6)
    bytes_ = np.stack([np.asarray(one) for one in _flat(pictures)]).reshape(arrays.shape)
    assert np.abs(bytes_ / 255 - arrays).max() <= 0.5 / 255 + 1e-6
    assert isinstance(latents, torch.Tensor) and latents.dtype == torch.float32
    with pytest.raises(ConfigError, match=r"output_type: must be .*, got 'png'"):
        case.call(pipe, output_type="png")


def _flat(nested: Any) -> Iterator[Any]:
    for one in nested if isinstance(nested, list) else [nested]:
        if isinstance(one, list):
            yield from _flat(one)
        else:
            yield one


@pytest.mark.parametrize("name, family", WATCHED)
def test_wrong_prompts_and_components_are_told_in_a_line(opened: Any, stock: Any, name: str, family: str) -> None:
    case, pipe = opened(name, family)
    with pytest.raises(ConfigError, match="prompt: must be a text, or a list of 2"):
        case.call(pipe, prompt=["one"])
    strange = {**pipe.components, "unet": torch.nn.Linear(1, 1)}
    strange["unet"].config = {}  # type: ignore[assignment]
    other = quiet(type(pipe)(**{**strange, **({"transformer": None} if "transformer" in strange else {})}))
    with pytest.raises(ConfigError, match="a Linear of this kind is no denoiser of"):
        case.call(other)
