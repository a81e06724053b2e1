"""Flow families on every rung of the memory ladder: pictures, LoRAs, interruption, and back."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from picowatch.engine.memory.ladder import FLOW_LADDER, LADDERS, Ladders, MemoryLadder, Rung
from picowatch.engine.models.loaded import apply_rung
from picowatch.engine.options import EngineOptions
from picowatch.engine.pipelines.loaded import LoadedPipeline
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import EngineStopped
from picowatch.recipe.request import ImageRequest
from tests.engine.adapters import random_layer, write
from tests.engine.pipelines.test_flows import NAMES, SIDE, requests_of, square
from tests.engine.pipelines.tiny_flows import MAKERS, tiny_flow
from tests.engine.requests import ignore_steps, pixels
from tests.engine.unet.test_loras import use
from tests.engine.unet.test_start_images import circle

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
RUNGS = {rung.name: rung for rung in FLOW_LADDER}
EXACT_RUNGS = [name for name, rung in RUNGS.items() if not rung.cast]
# Of 255. 8-bit floats round a weight by a sixteenth at most; these differ by 4 to 10.
MOST_APART_IN_8_BITS = 20
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with all of them, and a start image with a mask."""
    models = tmp_path_factory.mktemp("models")
    (models / "checkpoints").mkdir()
    for name in MAKERS:
        (models / "checkpoints" / name).symlink_to(tiny_flow(name))
    circle(SIDE).save(models / "start.png")
    square().save(models / "mask.png")
    return models


@pytest.fixture(scope="module")
def engine(models: Path) -> Renderer:
    """With a GPU's ladder on the CPU, where all of its rungs work, too."""
    return Renderer(
        EngineOptions(
            models=models, device="cpu", precision="float32", threads=1, start_images=models
        )
    )


def wanted_of(models: Path, name: str) -> list[ImageRequest]:
    """Two images of different prompts, which may share a batch."""
    prompts = ("a red cube", "two blue balls on grass")
    texts = (f"prompt: {prompt}\nexact: false" for prompt in prompts)
    return [one for text in texts for one in requests_of(models, name, text)]


def on_rung(engine: Renderer, rung: Rung, *batch: ImageRequest, **more: Any) -> list[RenderedImage]:
    engine._ladder = MemoryLadder("full", Ladders([], [rung]), None)
    images = engine.render(batch, ignore_steps, **more)
    assert {image.memory_rung for image in images} == {rung.name}
    return images


def apart(first: Sequence[RenderedImage], second: Sequence[RenderedImage]) -> int:
    return max(
        int(np.abs(pixels(one) - pixels(other)).max())
        for one, other in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_rung_draws_the_same(models: Path, engine: Renderer, name: str) -> None:
    """8-bit weights within a bound; afterwards the first picture comes back to the bit."""
    batch = wanted_of(models, name)
    plain = on_rung(engine, RUNGS["full"], *batch)
    assert all(pixels(image).std() > 1 for image in plain)
    for name in EXACT_RUNGS[1:]:
        assert apart(on_rung(engine, RUNGS[name], *batch), plain) <= 1, name
    in_8_bits = on_rung(engine, RUNGS["fp8 weights"], *batch)
    assert 0 < apart(in_8_bits, plain) <= MOST_APART_IN_8_BITS
    again = on_rung(engine, RUNGS["full"], *batch)
    assert [image.pixels for image in again] == [image.pixels for image in plain]


def test_rungs_leave_no_hooks_and_no_other_weights(models: Path, engine: Renderer) -> None:
    """Whichever way it goes from one to another."""
    (wanted, _) = wanted_of(models, "Z-Image-Turbo")
    on_rung(engine, RUNGS["full"], wanted)
    loaded = engine._checkpoints.held(wanted)
    kept = {name: tensor.clone() for name, tensor in loaded.models[1].state_dict().items()}
    for name in (*EXACT_RUNGS, *reversed(EXACT_RUNGS)):
        apply_rung(loaded, RUNGS[name], CPU)
    for model in loaded.models:
        for module in model.modules():
            assert not hasattr(module, "_hf_hook")
            assert not getattr(getattr(module, "_diffusers_hook", None), "hooks", {})
    after = loaded.models[1].state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in after.items())


def test_8_bit_weights_take_half_of_16_bit_ones(models: Path) -> None:
    """All but norms and the first and last layers, which diffusers leaves."""
    engine = Renderer(EngineOptions(models=models, device="cpu", precision="bfloat16", threads=1))
    (wanted, _) = wanted_of(models, "FLUX.1-dev")

    def held() -> int:
        loaded: LoadedPipeline = engine._checkpoints.held(wanted, RUNGS["fp8 weights"])
        (*_, transformer, _) = loaded.models
        return sum(tensor.nbytes for tensor in transformer.parameters())

    (image,) = on_rung(engine, RUNGS["full"], wanted)
    before = held()
    (cast,) = on_rung(engine, RUNGS["fp8 weights"], wanted)
    assert 0.5 <= held() / before < 0.7
    assert (image.precision, cast.precision) == ("bfloat16", "bfloat16")


def attention_lora(transformer: Any) -> dict[str, torch.Tensor]:
    """All of its attention, in kohya's names."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and ".attention." in name:
            down, up = random_layer(module, seed=len(tensors), size=2)
            flat = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
    return tensors


@pytest.mark.parametrize("rung", RUNGS)
def test_a_lora_acts_on_every_rung(models: Path, engine: Renderer, rung: str) -> None:
    """And no longer when it is not requested, whether it was read on this rung or another."""
    (wanted, _) = wanted_of(models, "Z-Image-Turbo")
    plain = on_rung(engine, RUNGS["full"], wanted)
    loaded = engine._checkpoints.held(wanted)
    write(models / f"loras/{rung}.safetensors", attention_lora(loaded.components["transformer"]))
    with_lora = replace(wanted, loras=(use(models, rung, 0.7),))
    here = on_rung(engine, RUNGS[rung], with_lora)
    most = MOST_APART_IN_8_BITS if RUNGS[rung].cast else 1
    assert apart(here, plain) > most
    assert apart(on_rung(engine, RUNGS[rung], wanted), plain) <= most
    assert apart(here, on_rung(engine, RUNGS["full"], with_lora)) <= most


@pytest.mark.parametrize("rung", RUNGS)
def test_a_batch_ends_within_a_step_on_every_rung(
    models: Path, engine: Renderer, rung: str
) -> None:
    """While it encodes or in the middle of a step; the next batch renders what it would have."""
    (wanted, _) = wanted_of(models, "FLUX.1-dev")
    expected = on_rung(engine, RUNGS[rung], wanted)
    for looks_before in (0, 3):
        looks = iter([False] * looks_before + [True] * 1000)
        with pytest.raises(EngineStopped):
            on_rung(engine, RUNGS[rung], wanted, interrupted=looks.__next__)
        assert apart(on_rung(engine, RUNGS[rung], wanted), expected) == 0


def test_the_first_batch_begins_where_the_weights_fit(models: Path, engine: Renderer) -> None:
    """Nothing is tried above it: a card of a gigabyte and the largest part."""
    (wanted, _) = wanted_of(models, "FLUX.1-schnell")
    weights = engine._checkpoints.weights(wanted)
    largest = max(weights.encoders, weights.denoiser, weights.vae)
    tries: list[int] = []
    for gpu_bytes in (2**30 + largest, 2**30 + largest - 1):
        engine._ladder = MemoryLadder("auto", LADDERS["cuda"], gpu_bytes)
        (image,) = engine.render([wanted], lambda done, total: tries.append(done))
        assert image.memory_rung == ("group offload" if tries[2:] else "model offload")
    assert tries == [1, 2, 1, 2]
