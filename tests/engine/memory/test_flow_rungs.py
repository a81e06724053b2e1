"""Flow families on every rung of the memory ladder: pictures, LoRAs, interruption, and back."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from picowatch.engine.models.loaded import apply_rung
from picowatch.engine.models.weights import has_weights
from picowatch.engine.pipelines.loaded import LoadedPipeline

from picowatch.catalog import Catalog
from picowatch.engine.memory import (
    FLOW_LADDER,
    LADDERS,
    SHARED_FLOW_LADDER,
    Ladders,
    MemoryLadder,
    Rung,
)
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.errors import EngineStopped, RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine.adapters import random_layer, write
from tests.engine.pictures import circle
from tests.engine.test_flows import NAMES, SIDE, requests_of, square
from tests.engine.tiny_flows import tiny_flow
from tests.engine.transformer_files import weights_of, write_gguf
from tests.engine.requests import ignore_steps, pixels
from tests.engine.unet.test_loras import use
from tests.kinds import one_of_each_kind

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
    # diffusers' own use of what it deprecates (Chroma).
    pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning"),
]
RUNGS = {rung.name: rung for rung in FLOW_LADDER}
UNLOADED = next(rung for rung in SHARED_FLOW_LADDER if rung.offload == "disk")
RUNGS[UNLOADED.name] = UNLOADED
RUNGS["fp8 weights, unloaded"] = SHARED_FLOW_LADDER[-1]
EXACT_RUNGS = [name for name, rung in RUNGS.items() if not rung.cast]
# Of 255, for the most and in the mean. 8-bit floats round a weight by a sixteenth at most.
MOST_APART_IN_8_BITS = 60
MEAN_APART_IN_8_BITS = 3
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder for those that are asked for, and a start image with a mask."""
    models = tmp_path_factory.mktemp("models")
    (models / "checkpoints").mkdir()
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
    folder = models / "checkpoints" / name
    if not folder.exists():
        folder.symlink_to(tiny_flow(name))
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


def mean_apart(first: Sequence[RenderedImage], second: Sequence[RenderedImage]) -> float:
    pairs = zip(first, second, strict=True)
    return max(float(np.abs(pixels(one) - pixels(other)).mean()) for one, other in pairs)


# A transformer of one kind of blocks, and one of two.
IN_EACH_RUN = ("Z-Image-Turbo", "FLUX.1-dev")


@pytest.mark.parametrize("name", one_of_each_kind(NAMES, IN_EACH_RUN))
def test_every_rung_draws_the_same(models: Path, engine: Renderer, name: str) -> None:
    """8-bit weights within a bound; afterwards the first picture comes back to the bit."""
    batch = wanted_of(models, name)
    plain = on_rung(engine, RUNGS["full"], *batch)
    assert all(pixels(image).std() > 1 for image in plain)
    for name in EXACT_RUNGS[1:]:
        assert apart(on_rung(engine, RUNGS[name], *batch), plain) <= 1, name
    in_8_bits = on_rung(engine, RUNGS["fp8 weights"], *batch)
    assert 0 < apart(in_8_bits, plain) <= MOST_APART_IN_8_BITS
    assert mean_apart(in_8_bits, plain) <= MEAN_APART_IN_8_BITS
    unloaded = on_rung(engine, RUNGS["fp8 weights, unloaded"], *batch)
    assert apart(unloaded, in_8_bits) <= 1
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


@pytest.mark.parametrize("rung", [name for name, rung in RUNGS.items() if not rung.cast])
def test_a_gguf_transformer_works_on_every_rung(tmp_path: Path, rung: str) -> None:
    """Its weights move as they are; they have less than 8 bits already, so they are not cast."""
    checkpoints = tmp_path / "checkpoints"
    checkpoints.mkdir()
    (checkpoints / "Z-Image-Turbo").symlink_to(tiny_flow("Z-Image-Turbo"))
    engine = Renderer(EngineOptions(models=tmp_path, device="cpu", precision="float32", threads=1))
    (wanted, _) = wanted_of(tmp_path, "Z-Image-Turbo")
    write_gguf(checkpoints / "mine-turbo.gguf", weights_of("Z-Image-Turbo"), "Q8_0")
    catalog = Catalog(tmp_path)
    sha256 = catalog.sha256(catalog.find("checkpoint", "mine-turbo.gguf"))
    wanted = replace(wanted, checkpoint="mine-turbo.gguf", checkpoint_hash=sha256)
    ladder = MemoryLadder("auto", LADDERS["cuda"], None)
    rungs = list(ladder.rungs([wanted], engine._checkpoints.weights(wanted)))
    assert rungs[-1].name == "group offload"
    plain = on_rung(engine, RUNGS["full"], wanted)
    here = on_rung(engine, RUNGS[rung], wanted)
    assert apart(here, plain) <= 1
    assert on_rung(engine, RUNGS["full"], wanted)[0].pixels == plain[0].pixels


def attention_lora(transformer: Any, seed: int) -> dict[str, torch.Tensor]:
    """All of its attention, in kohya's names."""
    tensors: dict[str, torch.Tensor] = {}
    for name, module in transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and ".attention." in name:
            down, up = random_layer(module, seed=seed + len(tensors), size=2)
            flat = f"lora_unet_{name.replace('.', '_')}"
            tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
    return tensors


@pytest.mark.parametrize("rung", RUNGS)
def test_a_lora_acts_on_every_rung(models: Path, engine: Renderer, rung: str) -> None:
    """And no longer when it is not requested, whether it was read on this rung or another."""
    (wanted, _) = wanted_of(models, "Z-Image-Turbo")
    plain = on_rung(engine, RUNGS["full"], wanted)
    loaded = engine._checkpoints.held(wanted)
    # A file that no other rung has read.
    tensors = attention_lora(loaded.components["transformer"], seed=list(RUNGS).index(rung))
    write(models / f"loras/{rung}.safetensors", tensors)
    with_lora = replace(wanted, loras=(use(models, rung, 0.7),))
    here = on_rung(engine, RUNGS[rung], with_lora)
    most = MEAN_APART_IN_8_BITS if RUNGS[rung].cast else 0.1
    assert mean_apart(here, plain) > 2 * most
    assert mean_apart(on_rung(engine, RUNGS[rung], wanted), plain) <= most
    assert mean_apart(here, on_rung(engine, RUNGS["full"], with_lora)) <= most


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


def test_encoders_and_transformer_take_turns_in_memory(models: Path) -> None:
    """What is read is dropped for what computes next; known prompts need no encoder."""
    engine = Renderer(EngineOptions(models=models, device="cpu", precision="float32", threads=1))
    wanted, other = wanted_of(models, "FLUX.1-dev")
    seen: list[list[bool]] = []

    def look(*_: int) -> None:
        loaded = engine._checkpoints.held(wanted, UNLOADED)
        seen.append([has_weights(model) for model in loaded.models])

    engine._ladder = MemoryLadder("full", Ladders([], [UNLOADED]), None)
    with record_reads() as reads:
        engine.render([wanted], look)
        assert reads == ["transformer"]
        engine.render([replace(wanted, seed=8)], look)
        assert reads == ["transformer"]
        engine.render([other], look)
        assert reads == ["transformer", "text_encoder", "text_encoder_2", "transformer"]
    assert seen == [[False, False, True, True]] * 6


def test_weights_are_read_again_from_the_same_files_only(models: Path, tmp_path: Path) -> None:
    """A checkpoint that was replaced meanwhile must not lend its transformer."""
    folder = shutil.copytree(tiny_flow("FLUX.1-dev"), tmp_path / "checkpoints/FLUX.1-dev")
    engine = Renderer(EngineOptions(models=tmp_path, device="cpu", precision="float32", threads=1))
    wanted, other = wanted_of(tmp_path, "FLUX.1-dev")
    on_rung(engine, UNLOADED, wanted)
    config = folder / "transformer/config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(RenderFailed, match="is a different file now"):
        on_rung(engine, UNLOADED, other)


@contextmanager
def record_reads() -> Iterator[list[str]]:
    """The parts that are read again, by name."""
    reads: list[str] = []
    read = LoadedPipeline.read_again

    def recorded(self: LoadedPipeline, model: Any) -> None:
        reads.append(next(name for name, part in self.components.items() if part is model))
        read(self, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LoadedPipeline, "read_again", recorded)
        yield reads
