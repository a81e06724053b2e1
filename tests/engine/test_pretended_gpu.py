"""What a card is asked to do, on a pretended one: nothing that it refuses, nothing that waits."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from picowatch.engine.latents import Decoding, _again
from picowatch.engine.memory import FULL, LADDER, Ladders, MemoryLadder
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import SAMPLERS, KnownSampler
from tests.engine.adapters import kohya_lora, write
from tests.engine.control.controlnets import controlnet_of, save_single
from tests.engine.control.test_against_diffusers import DEMO, unet_of
from tests.engine.control.test_against_diffusers import use as control
from tests.engine.demo import demo
from tests.engine.pictures import right_half, start
from tests.engine.pretended_gpu import PretendedGpu, pretended_gpu
from tests.engine.requests import difference, ignore_steps, request
from tests.engine.unet.test_loras import use
from tests.kinds import SAMPLERS_IN_EACH_RUN, one_of_each_kind

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 3}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with a LoRA in it; start images are kept in it, too."""
    folder = tmp_path_factory.mktemp("models")
    write(folder / "loras/a.safetensors", kohya_lora(demo().unet, demo().text_encoders[0], seed=1))
    save_single(controlnet_of(unet_of(DEMO), 1), folder / "controlnet/first.safetensors")
    return folder


@pytest.fixture(scope="module")
def gpu() -> Iterator[PretendedGpu]:
    with pretended_gpu() as gpu:
        yield gpu


@pytest.fixture(scope="module")
def engine(gpu: PretendedGpu, models: Path) -> Renderer:
    return Renderer(options(models, "cuda"))


@pytest.fixture(scope="module")
def plain(models: Path) -> Renderer:
    return Renderer(options(models, "cpu"))


def options(models: Path, device: str, **values: Any) -> EngineOptions:
    return EngineOptions(
        models=models, device=device, precision="float32", threads=1, start_images=models, **values
    )


def drawn(
    engine: Renderer,
    gpu: PretendedGpu,
    *batch: ImageRequest,
    between_passes: int = 0,
    preview_seconds: float = 0,
) -> tuple[list[RenderedImage], list[str]]:
    """The pictures, and what waited for the card between the first step and the last.

    After the last, all pictures leave the card in one copy, which nothing waits for but their
    reader. `between_passes` are the copies to the
    card that the second pass of hires begins with.
    """
    for found in (gpu.mixed, gpu.waits, gpu.uploads, gpu.downloads):
        found.clear()
    at_steps: list[int] = []
    uploads: list[int] = []

    def on_step(done: int, total: int) -> None:
        at_steps.append(len(gpu.waits))
        uploads.append(len(gpu.uploads))

    images = engine.render(batch, on_step, preview_seconds=preview_seconds)
    assert gpu.mixed == []
    assert len(gpu.uploads[uploads[0] : uploads[-1]]) == between_passes, gpu.uploads
    assert [one for one in gpu.waits[at_steps[-1] :] if "previewer.py" not in one] == []
    assert len(gpu.downloads) == 1, gpu.downloads
    return images, gpu.waits[at_steps[0] : at_steps[-1]]


def test_the_pretended_card_notices_what_a_real_one_would(gpu: PretendedGpu) -> None:
    """Otherwise the tests below could not fail."""
    for found in (gpu.mixed, gpu.waits, gpu.uploads):
        found.clear()
    there, here = torch.ones(2, device="cuda"), torch.ones(2)
    assert not (there + there * torch.tensor(2.0)).to("cuda").is_cpu and not gpu.mixed
    torch.add(there, here)
    torch.randn(2, generator=torch.Generator(), device="cuda")
    assert len(gpu.mixed) == 2
    assert not gpu.waits
    here = (there + here.to("cuda")).cpu()
    assert float(there[0]) == 1 and bool((here == 2).all())
    assert [one.split()[0] for one in gpu.waits] == ["cpu", "__float__"]
    assert [one.split()[0] for one in gpu.uploads] == ["to"]
    gpu.mixed.clear()


@pytest.mark.parametrize(
    "sampler",
    one_of_each_kind(SAMPLERS, [one for one in SAMPLERS if one.name in SAMPLERS_IN_EACH_RUN]),
    ids=lambda sampler: sampler.name,
)
def test_no_sampler_waits_for_the_card(
    gpu: PretendedGpu, engine: Renderer, sampler: KnownSampler
) -> None:
    """Between its steps: the card would stand still meanwhile."""
    wanted = request(sampler=sampler.name, schedule_type=sampler.automatic, **SMALL)
    _, waits = drawn(engine, gpu, wanted)
    assert waits == []


Changes = Callable[[Path], dict[str, Any]]
CASES: dict[str, Changes] = {
    "batch": lambda models: {},
    "guidance off": lambda models: {"cfg_scale": 1.0},
    "guidance on a part": lambda models: {"cfg_start": 0.3, "cfg_end": 0.5},
    "cfg_rescale": lambda models: {"cfg_rescale": 0.7},
    "LoRA": lambda models: {"loras": (use(models, "a", 0.5),)},
    "start image": lambda models: start(models, 0.6),
    "mask": lambda models: start(models, 0.6) | right_half(models),
    "noise": lambda models: {"ensd": 5, "tiling": True},
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_batch_does_it_does_on_the_card(
    gpu: PretendedGpu, engine: Renderer, plain: Renderer, models: Path, case: str
) -> None:
    """And gets the pictures that the CPU draws."""
    changes = SMALL | CASES[case](models)
    batch = [request(seed=seed, sampler="Euler a", schedule_type="uniform", **changes)
             for seed in (1, 2)]  # fmt: skip
    images, waits = drawn(engine, gpu, *batch)
    assert waits == []
    for image, expected in zip(images, plain.render(batch, ignore_steps), strict=True):
        assert image.device == "cuda:0 (Pretended)"
        assert difference(image, expected) <= 2


def test_weights_that_move_meet_what_they_compute_with(
    gpu: PretendedGpu, models: Path, plain: Renderer
) -> None:
    """By model and by layer, with LoRA, ControlNet and mask; and all back on the card.

    By model each part comes once for both groups of the batch; the VAE before the steps, for start
    images, and after them.
    """
    engine = Renderer(options(models, "cuda"))
    changes = SMALL | {"steps": 2} | start(models, 0.6) | right_half(models)
    changes |= {"loras": (use(models, "a", 0.5),), "control": (control(models, "first"),)}
    batch = [request(prompt, **changes) for prompt in ("a red circle", "a red circle, " * 30)]
    drawn_here = plain.render(batch, ignore_steps)
    assert [image.chunks for image in drawn_here] == [1, 2]
    for one in (*(rung for rung in LADDER if rung.offload), FULL):
        engine._ladder = MemoryLadder("full", Ladders([one], []), None)
        gpu.mixed.clear()
        gpu.loads.clear()
        images = engine.render(batch, ignore_steps)
        assert gpu.mixed == []
        assert {image.memory_rung for image in images} == {one.name}
        for image, expected in zip(images, drawn_here, strict=True):
            assert difference(image, expected) <= 2
        if one.offload == "model":
            parts = engine._checkpoints.held(batch[0]).models
            loads = [gpu.loads[next(part.parameters()).data_ptr()] for part in parts]
            assert loads == [1, 1, 1, 2]  # text encoder, ControlNet, UNet, VAE


def test_a_vae_changes_its_type_when_nothing_else_computes_with_it(
    gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another group of the batch may be decoded on a stream beside; its weights would go."""
    vae, done = demo().vae, []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda _: done.append(vae.dtype))
    vae.to("cuda", torch.float16)
    try:
        _again(vae, lambda: torch.ones(1, device="cuda", dtype=vae.dtype))
    finally:
        vae.to("cpu", torch.float32)
    assert done == [torch.float16]


def test_decoding_falls_back_to_one_picture_at_a_time(gpu: PretendedGpu, models: Path) -> None:
    """Where several at once are too much; the pictures are the same."""
    vae = Renderer(options(models, "cuda"))._checkpoints.load(request()).vae
    sizes: list[int] = []
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = [one.pixels for one in Decoding(demo().vae, latents).images()]
    real = vae.decode

    def decode(part: torch.Tensor) -> Any:
        sizes.append(len(part))
        if len(part) > 1 and sizes != [3]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")
        return real(part)

    vae.decode = decode
    for _ in range(2):
        found = [one.pixels for one in Decoding(vae, latents.to("cuda")).images()]
        assert all(
            (abs(a.astype(int) - b) <= 1).all() for a, b in zip(expected, found, strict=True)
        )
    assert sizes == [3, 3, 1, 1, 1]


def test_the_latent_upscaler_waits_for_nothing(gpu: PretendedGpu, engine: Renderer) -> None:
    """Both passes of hires are one queue but for the second one's noise and timesteps."""
    wanted = request(hires=Hires(scale=1.5, steps=2), **SMALL)
    _, waits = drawn(engine, gpu, wanted, between_passes=2)
    assert waits == []


def test_a_preview_is_one_copy(gpu: PretendedGpu, models: Path) -> None:
    """Nothing else of it waits."""
    shown: list[Any] = []
    engine = Renderer(options(models, "cuda"), shown.append)
    _, waits = drawn(engine, gpu, request(**SMALL), preview_seconds=1e-9)
    assert len(shown) == SMALL["steps"]
    assert len(waits) == len(shown) - 1, waits
