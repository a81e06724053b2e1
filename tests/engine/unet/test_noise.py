"""What a seed stands for: CPU's or NVIDIA's numbers, variations, and the noise of the steps."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picowatch.engine.unet.philox import Philox
from PIL import Image

from picowatch.engine.noise import NvidiaGenerator, noise_of, numbers_of, slerp
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.engine.samplers import build_sampler
from picowatch.recipe.parts import Hires
from picowatch.recipe.request import ImageRequest
from picowatch.recipe.samplers import SAMPLERS
from tests.engine.demo import demo
from tests.engine.pictures import keep
from tests.engine.requests import difference, ignore_steps, pixels, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "cfg_scale": 1.0}
NOISY: dict[str, Any] = SMALL | {"sampler": "Euler a", "schedule_type": "uniform"}
NVIDIA: dict[str, Any] = {"noise": "nvidia"}
# Those whose steps draw noise, as `_KINDS` of samplers.py says it; a table of its own, so that a
# sampler that forgets to is noticed.
DRAWING = {
    *("DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE", "DPM++ 2S a", "SA-Solver"),
    *("Euler a", "DPM2 a", "DPM++ SDE", "DDPM", "LCM", "TCD"),
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of start images."""
    return tmp_path_factory.mktemp("start-images")


@pytest.fixture(scope="module")
def engine(kept: Path) -> Renderer:
    return Renderer(
        EngineOptions(models=Path("nowhere"), device="cpu", threads=1, start_images=kept)
    )


def draw(engine: Renderer, *requests: ImageRequest) -> list[RenderedImage]:
    return engine.render(requests, ignore_steps)


def alone(engine: Renderer, **values: Any) -> RenderedImage:
    """One small picture."""
    return draw(engine, request(**{**SMALL, **values}))[0]


def test_the_initial_noise_is_nvidias() -> None:
    """Whatever the batch is; without the field it is torch's for a CPU."""
    requests = [request(seed=5, **SMALL), request(seed=6, **NVIDIA, **SMALL)]
    noise, _ = noise_of(requests, 64, 64)
    theirs = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    assert torch.equal(noise[0], theirs[0])
    assert np.array_equal(noise[1].numpy(), Philox(6).randn((4, 8, 8)))


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.name)
def test_the_noise_of_steps_is_nvidias(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever function of torch the scheduler draws with, none uses torch's own numbers."""
    prepared = build_sampler(sampler.name, sampler.automatic, 4, demo().schedule)
    generators: list[Any] = [NvidiaGenerator(1), NvidiaGenerator(2)]
    before = [generator.get_state() for generator in generators]
    shapes: list[tuple[int, ...]] = []
    drawn = Philox.randn

    def noted(numbers: Philox, shape: tuple[int, ...]) -> Any:
        shapes.append(shape)
        return drawn(numbers, shape)

    monkeypatch.setattr(Philox, "randn", noted)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("drawn without the images' generators")

    for name in ("randn_like", "normal", "rand"):
        monkeypatch.setattr(torch, name, forbidden)
    latents = torch.ones(2, 4, 8, 8)
    named = {"generator": generators} if prepared.draws_noise else {}
    with numbers_of(generators):
        for timestep in prepared.timesteps:
            scaled = prepared.scheduler.scale_model_input(latents, timestep)
            latents = prepared.scheduler.step(scaled * 0.1, timestep, latents, **named).prev_sample
    for generator, state in zip(generators, before, strict=True):
        assert torch.equal(generator.get_state(), state), "torch's own numbers were drawn"
    assert bool(shapes) == (sampler.name in DRAWING)
    assert set(shapes) <= {(1, 4, 8, 8)}


def test_nothing_but_randn_draws_from_a_generator_of_nvidias_numbers() -> None:
    """Other functions would silently take torch's state, which means nothing."""
    generator = NvidiaGenerator(1)
    with numbers_of([generator]), pytest.raises(TypeError, match="NVIDIA"):
        torch.rand(3, generator=generator)
    assert torch.randn(3, generator=torch.Generator().manual_seed(1)).shape == (3,)


def test_images_of_one_batch_may_differ_in_all_of_it(engine: Renderer) -> None:
    """The noise is theirs alone to the last bit, and so are the pictures but for rounding."""
    requests = [
        request("a red circle", seed=3, **NOISY),
        request("a red circle", seed=3, **NVIDIA, **NOISY),
        request("a red circle", seed=3, ensd=31337, **NVIDIA, **NOISY),
        request("a red circle", seed=3, variation_seed=4, variation_strength=0.4, **NOISY),
    ]
    assert len({one.batch_key for one in requests}) == 1
    together, generators = noise_of(requests, 64, 64)
    for row, (one, generator) in enumerate(zip(requests, generators, strict=True)):
        start, (own,) = noise_of([one], 64, 64)
        assert torch.equal(start[0], together[row])
        with numbers_of([generator, own]):
            first, second = (torch.randn((1, 9), generator=each) for each in (generator, own))
        assert torch.equal(first, second)
    drawn = draw(engine, *requests)
    assert len({image.pixels for image in drawn}) == 4
    for image, one in zip(drawn, requests, strict=True):
        assert difference(image, draw(engine, one)[0]) <= 2


@pytest.mark.parametrize("noise", ["cpu", "nvidia"])
def test_ensd_moves_the_noise_of_the_steps_alone(engine: Renderer, noise: str) -> None:
    """From the seed to the seed + ensd, beyond 32 bits, too; as A1111's ENSD."""
    values: dict[str, Any] = {"noise": noise, **NOISY}
    plain, moved = (
        noise_of([request(seed=2**32 - 1, ensd=ensd, **values)], 64, 64) for ensd in (0, 31337)
    )
    assert torch.equal(plain.start, moved.start)
    other = noise_of([request(seed=1, **values)], 64, 64)
    with numbers_of(moved.generators):
        step = torch.randn((1, 4, 8, 8), generator=moved.generators[0])
    seed = 2**32 - 1 + 31337
    if noise == "nvidia":
        expected = torch.from_numpy(Philox(seed).randn((1, 4, 8, 8)))
    else:
        expected = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(step, expected)
    assert not torch.equal(other.start, plain.start)
    assert alone(engine, **values).pixels != alone(engine, ensd=1, **values).pixels
    still: dict[str, Any] = {"noise": noise}  # its steps draw none
    assert alone(engine, **still).pixels == alone(engine, ensd=1, **still).pixels


def test_a_variation_goes_from_one_seeds_picture_to_the_others(engine: Renderer) -> None:
    """0 is the one and 1 the other, to the last bit; what lies between is no less noisy."""
    ends = alone(engine, seed=8).pixels, alone(engine, seed=9).pixels
    values: dict[str, Any] = {"seed": 8, "variation_seed": 9}
    found = [alone(engine, **values, variation_strength=share).pixels for share in (0.0, 1.0)]
    assert tuple(found) == ends
    half, _ = noise_of([request(**values, variation_strength=0.5)], 512, 512)
    assert abs(float(half.std()) - 1) < 0.01
    assert alone(engine, **values, variation_strength=0.5).pixels not in ends
    same = alone(engine, seed=8, variation_seed=8, variation_strength=0.5)
    assert same.pixels == ends[0]


def test_a_variation_is_a1111s() -> None:
    """Numbers of the function slerp in A1111's modules/rng.py."""
    low = torch.arange(24, dtype=torch.float32).sin().reshape(2, 3, 4)
    high = torch.arange(24, dtype=torch.float32).mul(1.7).cos().reshape(2, 3, 4)
    found = slerp(low, high, 0.3)
    expected = [0.478546, 0.677608, 0.384256, 0.345687, -0.28025, -1.100472, -0.731658, 1.080631]
    assert np.allclose(found.flatten()[:8], expected, atol=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        NVIDIA | {"sampler": "Euler a", "schedule_type": "uniform"},
        {"variation_seed": 4, "variation_strength": 0.3},
    ],
    ids=["nvidia", "variation"],
)
def test_the_second_pass_begins_anew_as_in_a1111(
    engine: Renderer, kept: Path, values: dict[str, Any]
) -> None:
    """So it is img2img of the enlarged picture, with the same seed."""
    first = alone(engine, **values)
    second = alone(engine, hires=Hires(1.5, 4, 0.5, "Lanczos"), **values)
    picture = Image.fromarray(pixels(first).astype(np.uint8))
    enlarged = picture.resize((96, 96), Image.Resampling.LANCZOS)
    started = {
        "image": "it.png",
        "image_hash": keep(kept, enlarged),
        "denoising_strength": 0.5,
        "width": 96,
        "height": 96,
        "steps": 4,
    }
    assert alone(engine, **{**values, **started}).pixels == second.pixels


def test_a_mask_leaves_the_other_source_its_own_noise(engine: Renderer, kept: Path) -> None:
    """What is kept comes back with the noise of the images' own source."""
    white = Image.new("L", (64, 64), 0)
    white.paste(255, (0, 0, 32, 64))
    masked: dict[str, Any] = {
        "image": "it.png",
        "image_hash": keep(kept, Image.new("RGB", (64, 64), (44, 100, 226))),
        "mask": "mask.png",
        "mask_hash": keep(kept, white),
        "mask_blur": 0,
        "denoising_strength": 1.0,
    }
    cpu, nvidia = (alone(engine, noise=noise, **masked) for noise in ("cpu", "nvidia"))
    assert cpu.pixels != nvidia.pixels
    assert np.array_equal(pixels(cpu)[:, 32:], pixels(nvidia)[:, 32:])
