"""Memory runs out in a batch: the engine goes down the ladder, and the picture stays the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from picowatch.engine.models import offload
from picowatch.engine.models.loaded import Loaded, apply_rung
from picowatch.engine.unet.denoise import denoise as real_denoise

from picowatch.engine.memory import LADDER, LADDERS, MemoryLadder, Rung
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest, LoraUse
from tests.engine.adapters import kohya_lora, write
from tests.engine.demo import CPU, demo
from tests.engine.requests import difference, ignore_steps, request
from tests.engine.unet.test_loras import use

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CUDA = LADDERS["cuda"]
Needs = Callable[[Loaded, int], bool]


@pytest.fixture
def engine(models: Path) -> Renderer:
    """With a GPU's ladder on the CPU: all of its rungs work here, too."""
    engine = Renderer(EngineOptions(models=models, device="cpu", threads=1))
    engine._ladder = MemoryLadder("auto", CUDA, None)
    return engine


def limit(
    engine: Renderer, monkeypatch: pytest.MonkeyPatch, enough: Needs, draw: bool = True
) -> list[str]:
    """An allocator that fails in the UNet unless `enough` of memory is saved; counts its tries.

    Without `draw` the UNet is left out where memory is enough: its pictures are noise.
    """
    tries: list[str] = []

    def denoise(unet: Any, sampler: Any, latents: torch.Tensor, *rest: Any) -> torch.Tensor:
        loaded = next(reversed(engine._checkpoints._kept.values())).loaded
        tries.append(f"{len(latents)} of {latents.shape[3] * 8}x{latents.shape[2] * 8}")
        if not enough(loaded, latents.numel()):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return real_denoise(unet, sampler, latents, *rest) if draw else latents

    monkeypatch.setattr("picowatch.engine.unet.draw.denoise", denoise)
    return tries


def make(engine: Renderer, *batch: ImageRequest) -> list[RenderedImage]:
    return engine.render(batch, ignore_steps)


def offloaded(loaded: Loaded, how: str) -> bool:
    return loaded.rung is not None and loaded.rung.offload == how


NEEDS: dict[str, Needs] = {
    "full": lambda loaded, size: True,
    "smaller batch": lambda loaded, size: size <= 4 * 16 * 16,
    "VAE tiling": lambda loaded, size: bool(loaded.vae.use_tiling),
    "attention slicing": lambda loaded, size: bool(loaded.rung and loaded.rung.sliced),
    "model offload": lambda loaded, size: offloaded(loaded, "model"),
    "sequential offload": lambda loaded, size: offloaded(loaded, "sequential"),
}


@pytest.mark.parametrize("rung", NEEDS)
def test_the_picture_is_the_same_on_every_rung(
    engine: Renderer, monkeypatch: pytest.MonkeyPatch, rung: str
) -> None:
    """The first rung that is enough is taken and recorded; noise and words are what they were."""
    batch = [request(seed=1, steps=2), request("a corgi", seed=2, steps=2)]
    plain = make(engine, *batch)
    ladders = LADDERS["cpu"] if rung == "attention slicing" else CUDA
    engine._ladder = MemoryLadder("auto", ladders, None)
    tries = limit(engine, monkeypatch, NEEDS[rung])
    images = make(engine, *batch)
    assert {image.memory_rung for image in images} == {rung}
    assert {image.batch_size for image in images} == {2 if rung == "full" else 1}
    assert all(difference(*pair) <= 2 for pair in zip(images, plain, strict=True))
    # One try on each rung above, then the batch itself.
    above = [one.name for one in ladders.unet].index(rung)
    assert len(tries) == above + (1 if rung == "full" else 2)
    tries.clear()
    assert make(engine, batch[0])[0].memory_rung == rung
    assert len(tries) == 1


def test_afterwards_other_sizes_are_rendered_at_full_speed_again(
    engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the very pixels they had before."""
    small = request(width=64, height=64, steps=2)
    plain = make(engine, small)[0]
    limit(
        engine, monkeypatch, lambda loaded, size: size < 4 * 16 * 16 or offloaded(loaded, "model")
    )
    assert make(engine, request(steps=2))[0].memory_rung == "model offload"
    again = make(engine, small)[0]
    assert again.memory_rung == "full"
    assert again.pixels == plain.pixels


@pytest.mark.parametrize("dora", [False, True], ids=["LoRA", "DoRA"])
def test_loras_work_on_every_rung(
    engine: Renderer, models: Path, monkeypatch: pytest.MonkeyPatch, dora: bool
) -> None:
    """They may be read while the weights are elsewhere, and DoRAs measure these in each layer."""
    tensors = kohya_lora(demo().unet, demo().text_encoders[0], seed=1, dora=dora)
    write(models / "loras/a.safetensors", tensors)
    lora: LoraUse = use(models, "a", 0.5)
    requested = request(steps=2, loras=(lora,))
    plain = make(engine, requested)[0]
    for rung in ("model offload", "sequential offload"):
        fresh = Renderer(EngineOptions(models=models, device="cpu", threads=1))
        fresh._ladder = MemoryLadder("auto", CUDA, None)
        with monkeypatch.context() as patch:
            limit(fresh, patch, NEEDS[rung])
            assert make(fresh, request(steps=2))[0].memory_rung == rung
            image = make(fresh, requested)[0]
        assert image.memory_rung == rung
        assert difference(image, plain) <= 2


def test_when_nothing_helps_the_batch_fails_with_the_reason(
    engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each rung was tried once; the next image is rendered as usual."""
    before = make(engine, request(steps=2))[0]
    with monkeypatch.context() as patch:
        tries = limit(engine, patch, lambda loaded, size: False)
        with pytest.raises(
            RenderFailed, match=r"not have enough memory .* or shrink_to_fit: true\."
        ):
            make(engine, request(steps=2, width=64))
        assert len(tries) == 4
    assert make(engine, request(steps=2))[0].pixels == before.pixels


def test_shrink_to_fit_renders_it_smaller_and_says_so(
    engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real size and steps are the picture's; without it the batch fails."""
    values: dict[str, Any] = {"width": 512, "height": 384, "steps": 26}
    limit(engine, monkeypatch, lambda loaded, size: size <= 4 * 60 * 48, draw=False)
    with pytest.raises(RenderFailed, match="shrink_to_fit: true"):
        make(engine, request(**values))
    values = {"width": 640, "height": 512, "steps": 26}
    (image,) = make(engine, request(shrink_to_fit=True, **values))
    assert (image.width, image.height, image.steps) == (480, 384, 25)
    assert image.memory_rung == "smaller picture"
    assert "at 480x384 with 25 steps instead of 640x512 with 26" in image.warnings[0]


def test_a_programming_error_is_no_lack_of_memory(
    engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails at once, on the first rung."""

    def broken(*_: Any) -> torch.Tensor:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr("picowatch.engine.unet.draw.denoise", broken)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        make(engine, request())


def test_a_move_that_breaks_off_leaves_nothing_behind(
    engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may run out while weights go back to the GPU, too."""
    plain = make(engine, request(steps=2))[0]
    loaded = engine._checkpoints.held(request())
    assert loaded is not None

    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with monkeypatch.context() as patch:
        patch.setattr("picowatch.engine.models.loaded._move_weights", full)
        with pytest.raises(torch.OutOfMemoryError):
            apply_rung(loaded, LADDER[2], CPU.device)
    assert loaded.vae.use_tiling
    assert make(engine, request(steps=2))[0].pixels == plain.pixels
    assert not loaded.vae.use_tiling


def test_moving_in_and_out_leaves_the_weights_as_they_were() -> None:
    """After every way of offloading."""
    before = {name: tensor.clone() for name, tensor in demo().unet.state_dict().items()}
    for rung in (*LADDER, *reversed(LADDER), Rung()):
        apply_rung(demo(), rung, CPU.device)
    after = demo().unet.state_dict()
    assert all(torch.equal(before[name], tensor) for name, tensor in after.items())
    assert not any(hasattr(module, "_hf_hook") for module in demo().unet.modules())


def test_models_that_take_turns_come_once_for_a_batch(
    engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is encoded, then denoised, then decoded, and the pictures are the same."""
    batch = [request(seed=seed, steps=2) for seed in (1, 2, 3)]
    alone = [make(engine, one)[0] for one in batch]
    came: list[str] = []
    come = offload._InTurn._come

    def noted(hook: Any) -> None:
        loaded = next(iter(engine._checkpoints._kept.values())).loaded
        came.append(next(type(m).__name__ for m in loaded.models if m._hf_hook is hook))
        come(hook)

    monkeypatch.setattr(offload._InTurn, "_come", noted)
    engine._ladder = MemoryLadder("low", CUDA, None)
    images = make(engine, *batch)
    assert came == ["UNet2DConditionModel", "AutoencoderKL"], "the prompts were encoded before"
    assert {image.memory_rung for image in images} == {"model offload"}
    assert all(difference(*pair) <= 2 for pair in zip(images, alone, strict=True))
