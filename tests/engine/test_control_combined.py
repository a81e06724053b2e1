"""ControlNets meet the other fields that steer a picture."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.engine.tiling import seamless
from picowatch.recipe.request import LoraUse
from tests.engine.adapters import lora_use, write
from tests.engine.control_requests import (
    DEMO,
    assert_equal,
    drawn,
    expected,
    lines,
    requested,
    theirs,
    unet_of,
    use,
)
from tests.engine.controlnets import controlnet_of, save_single
from tests.engine.requests import ignore_steps

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

RANK = 2
LAYER = "mid_block.attentions.0.transformer_blocks.0.attn1.to_v"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    save_single(controlnet_of(unet_of(DEMO), 1), models / "controlnet/first.safetensors")
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    return Renderer(EngineOptions(models=models, device="cpu", threads=1, start_images=models))


def theirs_with(unet: Any, controlnet: Any) -> Any:
    pipeline = theirs(diffusers.StableDiffusionControlNetPipeline, DEMO, controlnet)
    pipeline.unet = unet
    return pipeline


def lora(models: Path, unet: Any) -> tuple[LoraUse, Any]:
    """A LoRA of one layer, and the UNet with it merged by hand at the same weight."""
    merged = deepcopy(unet)
    weight = merged.get_submodule(LAYER).weight
    source = torch.Generator().manual_seed(5)
    down, up = (
        2 * torch.randn(shape, generator=source)
        for shape in ((RANK, weight.shape[1]), (weight.shape[0], RANK))
    )
    name = f"lora_unet_{LAYER.replace('.', '_')}"
    tensors = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.tensor(float(RANK))}
    write(models / "loras/one.safetensors", {f"{name}.{k}": v for k, v in tensors.items()})
    with torch.no_grad():
        weight += 0.7 * (up @ down)
    return lora_use(models, "one", 0.7), merged


def test_a_lora_changes_the_unet_and_not_the_controlnet(models: Path, ours: Renderer) -> None:
    """As with weights that were merged into the UNet alone."""
    unet = unet_of(DEMO)
    controlnet = controlnet_of(unet, 1)
    style, merged = lora(models, unet)
    one = requested(models, use(models, "first"), loras=(style,), steps=2)
    wanted = expected(theirs_with(merged, controlnet), one, image=lines())
    assert_equal(drawn(ours, one), wanted, drawn(ours, replace(one, loras=())))
    assert_equal(drawn(ours, one), wanted, drawn(ours, replace(one, control=())))


def test_guidance_is_rescaled_as_by_diffusers(
    models: Path, ours: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ControlNet pipelines have no such option: their scheduler gets the rescaled sum."""
    one = requested(models, use(models, "first"), cfg_rescale=0.7, cfg_scale=9.0, steps=2)
    pipeline = theirs_with(unet_of(DEMO), controlnet_of(unet_of(DEMO), 1))
    predict = pipeline.unet.forward
    texts: list[Any] = []

    def keep_text(*given: Any, **named: Any) -> Any:
        found = predict(*given, **named)
        texts.append(found[0].chunk(2)[1])
        return found

    step = pipeline.scheduler.step

    def rescaled(noise: Any, *given: Any, **named: Any) -> Any:
        rescale: Any = rescale_noise_cfg
        return step(rescale(noise, texts[-1], 0.7), *given, **named)

    monkeypatch.setattr(pipeline.unet, "forward", keep_text)
    monkeypatch.setattr(pipeline.scheduler, "step", rescaled)
    wanted = expected(pipeline, one, image=lines())
    assert_equal(drawn(ours, one), wanted, drawn(ours, replace(one, cfg_rescale=0.0)))


def test_an_exact_picture_is_the_same_alone_and_in_company(models: Path, ours: Renderer) -> None:
    """Bit for bit; it is what the ControlNet makes of it without `exact`, too."""
    one = requested(models, use(models, "first"), exact=True, steps=2)
    other = replace(one, seed=5, exact=False)
    first, _, again = (ours.render([each], ignore_steps)[0] for each in (one, other, one))
    assert first.pixels == again.pixels
    (loose,) = ours.render([replace(one, exact=False)], ignore_steps)
    assert max(abs(a - b) for a, b in zip(first.pixels, loose.pixels, strict=True)) <= 1


@torch.inference_mode()
def test_a_controlnet_of_a_picture_that_repeats_knows_no_edge(models: Path, ours: Renderer) -> None:
    """What goes over an edge of its picture comes in at the other; afterwards it is as before."""
    one = requested(models, use(models, "first"), tiling=True, steps=1)
    plain = drawn(ours, replace(one, tiling=False))
    loaded = ours._checkpoints.held(one, "device")
    assert loaded is not None
    (model,) = loaded.components.controlnets.values()
    seen: list[str] = []
    handle = model.conv_in.register_forward_pre_hook(
        lambda layer, _: seen.append(layer.padding_mode)
    )
    drawn(ours, one)
    assert (drawn(ours, replace(one, tiling=False)) == plain).all()
    handle.remove()
    assert seen == ["circular", "zeros"]
    source = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, 16, 16, generator=source)
    maps = torch.rand(1, 3, 128, 128, generator=source)
    states = torch.randn(1, 77, model.config.cross_attention_dim, generator=source)

    def residuals(shift: int) -> list[torch.Tensor]:
        noisy, picture = latents.roll((shift,) * 2, (2, 3)), maps.roll((8 * shift,) * 2, (2, 3))
        down, mid = model(noisy, 500, states, picture, return_dict=False)
        return [*down, mid]

    def furthest() -> float:
        pairs = zip(residuals(8), residuals(0), strict=True)
        moved = ((new, old.roll((old.shape[2] // 2,) * 2, (2, 3))) for new, old in pairs)
        return max(float((new - old).abs().max()) for new, old in moved)

    assert furthest() > 0.1
    with seamless([model]):
        assert furthest() < 1e-4


def test_a_variation_of_a_controlled_picture_goes_from_seed_to_seed(
    models: Path, ours: Renderer
) -> None:
    """Bit for bit at both ends."""
    one = requested(models, use(models, "first"), seed=8, variation_seed=9, steps=1)
    at = {share: drawn(ours, replace(one, variation_strength=share)) for share in (0.0, 0.4, 1.0)}
    for share, seed in ((0.0, 8), (1.0, 9)):
        alone = drawn(ours, requested(models, use(models, "first"), seed=seed, steps=1))
        assert (at[share] == alone).all()
        assert (at[0.4] != alone).any()
    free = replace(one, variation_strength=0.4, control=())
    assert abs(at[0.4] - drawn(ours, free)).max() > 5
