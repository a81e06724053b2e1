"""How ControlNets act in our own loop: layouts, modes, sizes, batches and memory."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from picowatch.catalog.models import Model
from picowatch.engine.control import Hint, residuals_of
from picowatch.engine.control_nets import load_controlnet
from picowatch.engine.options import EngineOptions
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.families import DEMO_WIDTH
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ControlUse
from tests.engine.control_requests import DEMO, SIDE, lines, requested, unet_of, use
from tests.engine.controlnets import (
    ControlNet,
    acting,
    controlnet_of,
    save_folder,
    save_original,
    save_single,
)
from tests.engine.demo import CPU, assert_equal
from tests.engine.inpainting import inpainting_demo
from tests.engine.ldm import write_single_file
from tests.engine.pictures import circle, right_half, start
from tests.engine.requests import difference, ignore_steps, pixels
from tests.engine.tiny_models import tiny_sdxl

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = tmp_path_factory.mktemp("models")
    save_single(controlnet_of(unet_of(DEMO), 1), models / "controlnet/first.safetensors")
    inpainting_demo(models)
    return models


@pytest.fixture(scope="module")
def ours(models: Path) -> Renderer:
    return Renderer(EngineOptions(models=models, device="cpu", threads=1, start_images=models))


def small(unet: Any) -> Any:
    """Without attention, as the small ControlNets for SDXL."""
    names = ["block_out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim"]
    names += ["addition_embed_type", "addition_time_embed_dim"]
    names += ["projection_class_embeddings_input_dim"]
    torch.manual_seed(4)
    return acting(
        ControlNet(
            **{name: unet.config[name] for name in names},
            down_block_types=("DownBlock2D",) * len(unet.config.block_out_channels),
            mid_block_type="UNetMidBlock2D",
            conditioning_embedding_out_channels=(8, 8, 16, 16),
        ),
        4,
    )


@pytest.mark.parametrize("family", ["sd1", "sdxl"])
@pytest.mark.parametrize("layout", ["original", "whole", "bare", "single", "folder", "small"])
def test_every_layout_holds_the_same_weights(tmp_path: Path, family: str, layout: str) -> None:
    """What a ControlNet consists of is read from its tensors and its UNet's config."""
    unet = unet_of(DEMO if family == "sd1" else tiny_sdxl())
    model = small(unet) if layout == "small" else controlnet_of(unet)
    path = tmp_path / "it.safetensors"
    match layout:
        case "original":
            save_original(model, path)
        case "whole":
            save_original(model, path)
            checkpoint = tmp_path / "checkpoint.safetensors"
            write_single_file(DEMO if family == "sd1" else tiny_sdxl(), checkpoint)
            save_file(load_file(path) | load_file(checkpoint), path)
        case "bare":
            save_original(model, path, prefix="")
        case "folder":
            path = tmp_path / "it"
            save_folder(model, path)
        case _:
            save_single(model, path)
    found = read(path, unet)
    assert_equal(model, found)
    assert not found.config.global_pool_conditions


def test_a_shuffle_file_is_known_by_its_name(tmp_path: Path) -> None:
    """What it adds is the mean of the whole picture."""
    path = tmp_path / "control_v11e_sd15_shuffle.safetensors"
    save_single(controlnet_of(unet_of(DEMO)), path)
    model = read(path, unet_of(DEMO))
    found = hint(model).residuals(*inputs())
    assert {one.shape[2:] for one in found} == {(1, 1)}
    assert all(float(one[0].abs().max()) == 0 < float(one[1].abs().max()) for one in found)


def test_a_controlnet_of_another_size_is_refused_with_the_reason(tmp_path: Path) -> None:
    """As far as headers did not tell."""
    path = tmp_path / "it.safetensors"
    save_single(controlnet_of(unet_of(tiny_sdxl())), path)
    with pytest.raises(RenderFailed, match="is incomplete"):
        read(path, unet_of(DEMO))


def read(path: Path, unet: Any) -> Any:
    layout: Any = "folder" if path.is_dir() else "file"
    model = Model(
        name=path.stem, kind="controlnet", family="sd1", layout=layout, path=path, bytes=0
    )
    return load_controlnet(model, unet, CPU, CPU.device)


def hint(model: Any, *, soft: bool = False, **values: Any) -> Hint:
    values = {"image": "a.png", "model": "it", **values}
    maps = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    return Hint(model, ControlUse(**values), maps, soft)


def inputs() -> Any:
    source = torch.Generator().manual_seed(2)
    latents = torch.randn(1, 4, SIDE // 8, SIDE // 8, generator=source)
    states = torch.randn(2, 77, DEMO_WIDTH, generator=source)
    return torch.cat([latents] * 2), torch.tensor(500), states, None


@pytest.mark.parametrize("mode", ["prompt", "control"])
def test_modes_weigh_the_layers_as_a1111_does(mode: str) -> None:
    """0.825 to the power of 12 - i; "control" acts only where the prompt is, too."""
    model = controlnet_of(unet_of(DEMO))
    plain = hint(model).residuals(*inputs())
    found = hint(model, mode=mode).residuals(*inputs())
    for index, (one, other) in enumerate(zip(found, plain, strict=True)):
        expected = other * 0.825 ** (12 - index)
        if mode == "control":
            expected[0] = 0
        torch.testing.assert_close(one, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("share", "acts"), [(0.0, False), (0.2, True), (0.6, True), (0.61, False)])
def test_a_controlnet_acts_from_start_to_end_both_included(share: float, acts: bool) -> None:
    """A1111's rule; without any that acts there is nothing to add."""
    one = hint(controlnet_of(unet_of(DEMO)), start=0.2, end=0.6)
    found = residuals_of([one], share, *inputs())
    assert (found is not None) == acts


def test_a_weight_of_zero_changes_nothing(models: Path, ours: Renderer) -> None:
    """Bit for bit."""
    nothing = use(models, "first", weight=0.0)
    (plain,) = ours.render([requested(models, steps=2)], ignore_steps)
    (found,) = ours.render([requested(models, nothing, steps=2)], ignore_steps)
    assert found.pixels == plain.pixels


def test_each_image_of_a_batch_follows_its_own_picture(models: Path, ours: Renderer) -> None:
    """Its picture is the one that it is alone."""
    batch = [
        requested(models, use(models, "first", lines(shift)), seed=seed, steps=2)
        for seed, shift in ((1, 0), (2, 20), (3, 10))
    ]
    assert len({one.batch_key for one in batch}) == 1
    together = ours.render(batch, ignore_steps)
    for one, found in zip(batch, together, strict=True):
        (alone,) = ours.render([one], ignore_steps)
        assert difference(alone, found) <= 1
    assert difference(together[0], together[1]) > 5


def test_hires_makes_the_map_anew_at_its_size(models: Path, ours: Renderer) -> None:
    """Its maps are those that are shown; canny is softened there, as in A1111."""
    canny = use(models, "first", preprocess="canny", preview=True)
    hires = Hires(2.0, 2, 0.6, "Latent")
    seen: list[tuple[int, ...]] = []
    loaded = ours._checkpoints.load(requested(models, canny), "device")
    model = loaded.components.controlnets[canny.model_hash]
    handle = model.controlnet_cond_embedding.register_forward_pre_hook(
        lambda _, given: seen.append(given[0].shape[2:])
    )
    (found,) = ours.render([requested(models, canny, steps=2, hires=hires)], ignore_steps)
    handle.remove()
    assert [*dict.fromkeys(seen)] == [(64, 64), (128, 128)]
    (shown,) = found.control_maps
    assert (shown.width, shown.height) == (128, 128)
    assert set(shown.pixels) == {0, 255}


def test_only_canny_is_softened_whatever_else_is_in_the_batch(models: Path, ours: Renderer) -> None:
    """In the second pass of hires; those whose maps are made otherwise are rendered as alone."""
    hires = Hires(2.0, 2, 0.6, "Latent")
    ways = ("none", "invert", "canny")
    requests = [
        requested(models, use(models, "first", preprocess=way, weight=1.5), steps=2, hires=hires)
        for way in ways
    ]
    keys = [one.batch_key for one in requests]
    batches = [[r for r in requests if r.batch_key == key] for key in dict.fromkeys(keys)]
    found = [picture for batch in batches for picture in ours.render(batch, ignore_steps)]
    for one, picture in zip([r for batch in batches for r in batch], found, strict=True):
        (alone,) = ours.render([one], ignore_steps)
        assert difference(alone, picture) <= 1
    assert keys[0] == keys[1] != keys[2]


def test_an_inpainting_unet_is_controlled_by_four_channels(models: Path, ours: Renderer) -> None:
    """And the mask's part of the start image may be what is followed."""
    follows = use(models, "first", circle(SIDE), preprocess="inpaint", preview=True)
    values = {
        **start(models, 1.0, circle(SIDE)),
        **right_half(models),
        "checkpoint": "inpaint",
        "steps": 2,
    }
    (found,) = ours.render([requested(models, follows, **values)], ignore_steps)
    (plain,) = ours.render([requested(models, **values)], ignore_steps)
    assert difference(found, plain) > 5
    shown = np.frombuffer(found.control_maps[0].pixels, np.uint8).reshape(SIDE, SIDE, 3)
    assert (shown[:, SIDE // 2 :] == 0).all() and (shown[:, : SIDE // 2] > 0).any()


def controlnets_of(renderer: Renderer, one: Any) -> dict[str, Any]:
    held = renderer._checkpoints.held(one, "device")
    assert held
    return held.components.controlnets


def test_a_checkpoint_keeps_the_controlnets_of_its_last_batch(models: Path) -> None:
    """A batch without any needs no loading, and where memory runs out they are dropped."""
    save_single(controlnet_of(unet_of(DEMO), 2), models / "controlnet/second.safetensors")
    renderer = Renderer(EngineOptions(models=models, device="cpu", threads=1, start_images=models))
    first, second = (requested(models, use(models, n), steps=1) for n in ("first", "second"))
    plain = replace(first, control=())
    for one, kept in ((first, first), (plain, first), (second, second)):
        renderer.render([one], ignore_steps)
        assert [*controlnets_of(renderer, one)] == [kept.control[0].model_hash]
    assert renderer._checkpoints.forget_others(plain)
    assert not controlnets_of(renderer, plain)
    (found,) = renderer.render([second], ignore_steps)
    assert pixels(found).std() > 5


def test_a_controlnet_that_changed_since_the_save_is_refused(models: Path) -> None:
    """Another file must not guide the picture."""
    one = requested(models, use(models, "first"))
    (control,) = one.control
    other = replace(one, control=(replace(control, model_hash="0" * 64),))
    renderer = Renderer(EngineOptions(models=models, device="cpu", threads=1, start_images=models))
    with pytest.raises(RenderFailed, match="The ControlNet 'first' is a different file now"):
        renderer.render([other], ignore_steps)
