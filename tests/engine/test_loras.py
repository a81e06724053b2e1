"""LoRAs: files of any kind and names change the picture, and leave no trace."""

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import diffusers
import numpy as np
import pytest
import torch
from torch import nn

from picowatch.catalog import Catalog
from picowatch.engine.model.lora_files import read_lora
from picowatch.engine.model.loras import Loras
from picowatch.errors import RenderFailed
from picowatch.families import FAMILIES, row_of_pipeline
from picowatch.recipe.request import LoraUse
from tests.engine.adapters import Tensors, files_in, kohya_lora, random_layer, write
from tests.engine.demo import endless
from tests.engine.tiny_flows import tiny_flow
from tests.kinds import one_of_each_kind

_D: Any = diffusers
DEMO = Catalog(Path("nowhere")).demo
TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
FLAT_TO_K = f"lora_unet_{TO_K.replace('.', '_')}"


def assembled(kind: Any, **parts: Any) -> Any:
    """Return a pipeline with only these parts."""
    made = kind.__new__(kind)
    made.__dict__ |= parts
    return made


def modules(tensors: Tensors, folder: Path, found: Any, **metadata: str) -> Tensors:
    """Return the modules by name, with the change of their weights."""
    path = write(folder / "it.safetensors", tensors, metadata or None)
    with files_in(folder)("lora", "it", "it"):
        given, unused, *_ = read_lora("it", path, found, "sd1")
    assert not unused
    return {
        key.removesuffix(".lora_A.weight"): torch.einsum(
            "or,r...->o...", given[key.replace("lora_A", "lora_B")].float().flatten(1), down.float()
        )
        for key, down in given.items()
        if "lora_A" in key
    }


# From here on, single layers: what their weights would get.
def change(tensors: Tensors, tmp_path: Path, layer: nn.Module, **metadata: str) -> torch.Tensor:
    """Return what a file adds to the weight of a UNet's `to_q`."""
    unet: Any = nn.Module()
    unet.dtype, parent = torch.float32, unet
    *levels, last = TO_Q.split(".")
    for level in levels:
        parent.add_module(level, nn.Module())
        parent = parent.get_submodule(level)
    parent.add_module(last, layer)
    found = assembled(_D.StableDiffusionPipeline, unet=unet)
    (only,) = modules(tensors, tmp_path, found, **metadata).values()
    return torch.as_tensor(only)


LINEAR, KERNEL = nn.Linear(16, 24), nn.Conv2d(8, 12, 3, padding=1)
RSLORA = ('{"unet.r": 4, "unet.lora_alpha": 8, "unet.use_rslora": true}', 8 / 4**0.5)
ALPHA = ('{"unet.r": 4, "unet.lora_alpha": 8}', 2.0)
PATTERNS = (
    '{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": '
    '{"to_k": 2, "^x.to_q": 3, "to_[qv]": 16, "to_q": 32}}',
    4.0,
)


def plain(down: str = "lora_A", up: str = "lora_B") -> Tensors:
    """Return `down` and `up` of a layer with these names."""
    halves = zip((down, up), random_layer(LINEAR, 3), strict=True)
    return {f"unet.{TO_Q}.{name}.weight": half for name, half in halves}


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (ALPHA, ("lora_A", "lora_B")),
        (RSLORA, ("lora.down", "lora.up")),
        (PATTERNS, ("lora_A", "lora_B")),
    ],
    ids=["alpha", "rsLoRA", "pattern"],
)
def test_what_pefts_settings_say_of_the_scale_counts(
    tmp_path: Path, settings: tuple[str, float], names: tuple[str, str]
) -> None:
    """The names of the matrices do not matter."""
    found = change(plain(*names), tmp_path, LINEAR, lora_adapter_metadata=settings[0])
    torch.testing.assert_close(found, settings[1] * change(plain(), tmp_path, LINEAR))


def test_settings_of_peft_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    """Ignored, they would give another picture."""
    with pytest.raises(RenderFailed, match="'it' is damaged: JSONDecodeError"):
        change(plain(), tmp_path, LINEAR, lora_adapter_metadata="no JSON")


def test_whole_differences_are_refused_unless_they_are_zero(tmp_path: Path) -> None:
    """ComfyUI extracts many that are."""
    tensors, key = plain(), "to_q.diff_b"
    with pytest.raises(RenderFailed, match="'it' is a file of whole differences, which picowatch"):
        change(tensors | {key: torch.ones(24)}, tmp_path, LINEAR)
    found = change(tensors | {key: torch.zeros(24)}, tmp_path, LINEAR)
    torch.testing.assert_close(found, change(tensors, tmp_path, LINEAR))


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def lyco(layer: Any, kind: str) -> tuple[Tensors, torch.Tensor]:
    """The factors, and their product by LyCORIS' formulas."""
    outputs, inputs, *kernel = layer.weight.shape
    numbers = inputs * int(np.prod(kernel))
    if kind == "LoHa":
        (a, b), (c, d) = ((random(outputs, 3) * n, random(3, numbers) + n) for n in (1, 2))
        factors = {"hada_w1_a": a, "hada_w1_b": b, "hada_w2_a": c, "hada_w2_b": d}
        return factors, 2 / 3 * (a @ b) * (c @ d)
    small, sides = random(4, 2), (outputs // 4, inputs // 2)
    if kind == "whole LoKr":
        large = random(*sides, *kernel)
        whole = np.kron(small.reshape(4, 2, *[1 for _ in kernel]).numpy(), large.numpy())
        return {"lokr_w1": small, "lokr_w2": large}, torch.from_numpy(whole)
    left, right = random(sides[0], 3), random(3, numbers // 2)
    factors = {"lokr_w1_a": small * 2, "lokr_w1_b": torch.eye(2) / 2}
    factors |= {"lokr_w2_a": left, "lokr_w2_b": right}
    return factors, 2 / 3 * torch.kron(small, left @ right)


@pytest.mark.parametrize(
    ("layer", "kind"),
    [(layer, kind) for layer in (LINEAR, KERNEL) for kind in ("LoHa", "LoKr", "whole LoKr")],
)
def test_a_loha_or_lokr_is_a_lora_of_a_higher_rank(tmp_path: Path, layer: Any, kind: str) -> None:
    """The resulting LoRA makes the same change."""
    factors, expected = lyco(layer, kind)
    stem = f"unet.{TO_Q}" if layer is LINEAR else f"lora_unet_{TO_Q.replace('.', '_')}"
    tensors = {f"{stem}.{role}": factor for role, factor in factors.items()}
    found = change(tensors | {f"{stem}.alpha": torch.tensor(2.0)}, tmp_path, layer)
    torch.testing.assert_close(found, expected.reshape(layer.weight.shape), rtol=1e-4, atol=1e-4)
    if kind == "LoHa":
        del tensors[f"{stem}.hada_w2_a"]
        with pytest.raises(RenderFailed, match="'it' is damaged: KeyError"):
            change(tensors, tmp_path, layer)


# From here on, LoRAs in use by a pipeline.
def quiet(kind: Any, folder: Path) -> Any:
    found = kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    found.set_progress_bar_config(disable=True)
    return found


@pytest.fixture
def pipeline() -> Any:
    """The demo model's."""
    return quiet(_D.StableDiffusionPipeline, DEMO.path)


def loras_in(folder: Path, pipeline: Any) -> Loras:
    """Return a pipeline's LoRAs, which are files by name; `hash` is the name, too."""
    name = type(pipeline).__name__
    row = row_of_pipeline(name) or FAMILIES[name]
    return Loras(lambda: pipeline, row.key, files_in(folder), endless(), Path("demo"))


@pytest.fixture
def loras(pipeline: Any, tmp_path: Path) -> Loras:
    """With "a" and "b", each for the UNet and the text encoder."""
    for seed, name in enumerate("ab"):
        tensors = kohya_lora(pipeline.unet, pipeline.text_encoder, seed=seed)
        write(tmp_path / f"{name}.safetensors", tensors)
    return loras_in(tmp_path, pipeline)


def use(name: str, weight: float = 1.0) -> LoraUse:
    return LoraUse(name, name, weight)


@torch.inference_mode()
def draw(pipeline: Any, **values: Any) -> Any:
    """Two steps of the demo model, as whole numbers."""
    given = {"prompt": "a red circle", "num_inference_steps": 2, "width": 64, "height": 64}
    generator = torch.Generator().manual_seed(7)
    image = pipeline(**(given | values), generator=generator, output_type="np").images[0]
    return (image * 255).round()


def apart(picture: Any, other: Any) -> float:
    return float(np.abs(picture - other).max())


def weights(pipeline: Any) -> dict[str, torch.Tensor]:
    """Copies of all weights."""
    return {
        f"{part}.{name}": tensor.clone()
        for part, model in pipeline.components.items()
        if isinstance(model, nn.Module)
        for name, tensor in model.state_dict().items()
    }


def test_loras_change_the_picture_each_its_own_way(pipeline: Any, loras: Loras) -> None:
    """Weights may be negative; a LoRA that is named twice has the sum of both.

    Without them the checkpoint has its own layers and draws its own pictures again, bit by bit.
    """
    sets: list[tuple[LoraUse, ...]]
    sets = [(), (use("a", 0.6),), (use("b", 0.6),), (use("a", 0.6), use("b", 0.6))]
    sets += [(use("a", -0.6),), (use("a", 0.3),)]
    drawn = []
    for uses in sets:
        loras.apply(uses)
        assert loras.applied == uses
        drawn.append(draw(pipeline))
    for index, picture in enumerate(drawn):
        assert all(apart(picture, other) > 3 for other in drawn[:index])
    for again, expected in (
        ([use("b", 0.6), use("a", 0.6)], drawn[3]),
        ([use("a", 0.5), use("a", 0.1)], drawn[1]),
        ([use("a", 0.0)], drawn[0]),
        ([use("a", 0.5), use("a", -0.5)], drawn[0]),
    ):
        loras.apply(again)
        assert apart(draw(pipeline), expected) <= (2 if expected is drawn[3] else 0)
    assert not any("lora" in name for name, _ in pipeline.unet.named_modules())


def test_a_file_that_is_overwritten_in_place_changes_no_picture(
    pipeline: Any, tmp_path: Path, loras: Loras
) -> None:
    """safetensors maps files into memory; truncated, such a file would end the process."""
    loras.apply([use("a")])
    drawn = draw(pipeline)
    path = tmp_path / "a.safetensors"
    half = path.stat().st_size // 2
    with path.open("r+b") as file:
        file.seek(half)
        file.write(bytes(half))
    assert np.array_equal(draw(pipeline), drawn)


def test_a_lora_of_another_size_is_refused(tmp_path: Path, loras: Loras) -> None:
    """diffusers would make some modules larger for it."""
    wide = {"down": torch.zeros(4, 768), "up": torch.zeros(320, 4)}
    tensors = {f"{FLAT_TO_K}.lora_{half}.weight": tensor for half, tensor in wide.items()}
    write(tmp_path / "wide.safetensors", tensors)
    with pytest.raises(RenderFailed, match=r"'wide' is for a model of another size: .* 768 to 320"):
        loras.apply([use("wide")])
    assert loras.applied == ()


def test_a_lora_that_cannot_be_loaded_leaves_nothing(pipeline: Any, loras: Loras) -> None:
    """Layers in the UNet are removed, also those of earlier LoRAs; later it can be used."""
    drawn = draw(pipeline)
    refused: Any
    for error, refused in (
        (torch.OutOfMemoryError, torch.OutOfMemoryError),
        (ValueError, RenderFailed),
    ):
        loras.apply([use("a")])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline.text_encoder, "load_adapter", Mock(side_effect=error("odd")))
            with pytest.raises(refused, match="odd"):
                loras.apply([use("b")])
        assert loras.applied == ()
        assert np.array_equal(draw(pipeline), drawn)
    loras.apply([use("b")])
    assert apart(draw(pipeline), drawn) > 3


def test_what_of_a_lora_does_nothing_is_said(pipeline: Any, tmp_path: Path, loras: Loras) -> None:
    """The warning names three keys; if no part has an effect, the LoRA is refused."""
    deep = "lora_unet_down_blocks_3_attentions_0_proj_in"
    halves = {
        f"{deep}.lora_down.weight": torch.zeros(4, 64),
        f"{deep}.lora_up.weight": torch.zeros(64, 4),
        f"{deep}.alpha": torch.tensor(1.0),
    }
    write(tmp_path / "other.safetensors", halves)
    with pytest.raises(RenderFailed, match=r"is for another kind of model: .* 'lora_unet"):
        loras.apply([use("other")])
    more = {"lora_unet_mid_block_time.lora_up.weight": torch.zeros(4, 4), "x": torch.zeros(1)}
    down, up = random_layer(pipeline.unet.get_submodule(TO_K), 1)
    layer = {f"{FLAT_TO_K}.lora_down.weight": down, f"{FLAT_TO_K}.lora_up.weight": up}
    write(tmp_path / "deep.safetensors", layer | halves | more)
    loras.apply([use("deep", 0.5)])
    (warning,) = loras.warnings
    assert warning.startswith("The LoRA 'deep' has parts that do nothing with this checkpoint: ")
    assert warning.endswith(f": {', '.join(sorted(halves))} and 2 more.")
    loras.apply([])
    assert loras.warnings == ()


def test_a_line_for_the_log_describes_a_lora(
    pipeline: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is computed for it if the daemon logs no details."""
    tensors: Tensors = {}
    changes = []
    for number, (name, rank) in enumerate(((TO_Q, 2), (TO_K, 4))):
        weight = pipeline.unet.get_submodule(name).weight.detach()
        down, up = random(rank, weight.shape[1]), random(len(weight), rank)
        changes.append(float((up @ down).norm() * (number + 1) / rank / weight.norm()))
        flat = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
        tensors[f"{flat}.alpha"] = torch.tensor(number + 1.0)
    write(tmp_path / "style.safetensors", tensors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.linalg, "vector_norm", Mock(side_effect=AssertionError))
        loras_in(tmp_path, pipeline).apply([use("style", -0.5)])
    assert not caplog.records
    with caplog.at_level("DEBUG", "picowatch.engine"):
        loras_in(tmp_path, pipeline).apply([use("style", -0.5)])
    (line,) = caplog.messages
    assert line == (
        "LoRA 'style' at -0.5: 2 layers, rank 2 to 4, alpha 1 to 2, "
        f"largest change {max(changes) / 2:.1%} of a layer's weights"
    )


# Tiny folders, and what scripts call their pipelines with.
FLOWS: dict[str, dict[str, Any]] = {
    "Z-Image-Turbo": {"guidance_scale": 0.0},
    "FLUX.1-dev": {"max_sequence_length": 64},
    "FLUX.2-klein": {},
    "Qwen-Image": {"true_cfg_scale": 1.0},
    "Krea-2-Turbo": {"guidance_scale": 0.0},
    "ERNIE-Image-Turbo": {"guidance_scale": 1.0, "use_pe": False},
    "sd3.5-medium": {"max_sequence_length": 64},
    "Chroma1-HD": {"max_sequence_length": 64},
    "Lumina-Image-2.0": {},
    "Sana": {"use_resolution_binning": False},
}


def merged(model: Any, weight: float) -> Tensors:
    """A LoRA of the layers of attention and feed-forward, and merged into them."""
    marks = ("attn", "attention.", "ff.", "feed_forward", "mlp.")
    tensors: Tensors = {}
    for number, (name, module) in enumerate(model.named_modules()):
        if isinstance(module, nn.Linear) and any(mark in name for mark in marks):
            down, up = random_layer(module, number, size=1)
            tensors[f"transformer.{name}.lora_A.weight"] = down
            tensors[f"transformer.{name}.lora_B.weight"] = up
            module.weight.data += weight * up @ down
    return tensors


@pytest.mark.parametrize("name", one_of_each_kind(FLOWS, ["FLUX.1-dev"]))
def test_a_lora_gives_the_picture_of_merged_weights(tmp_path: Path, name: str) -> None:
    """For every family; afterwards every weight is what it was, bit for bit."""
    values = FLOWS[name]
    pipeline, changed = (quiet(_D.DiffusionPipeline, tiny_flow(name)) for _ in range(2))
    plain, before = draw(pipeline, **values), weights(pipeline)
    write(tmp_path / "style.safetensors", merged(changed.transformer, 0.7))
    loras = loras_in(tmp_path, pipeline)
    loras.apply([use("style", 0.7)])
    styled = draw(pipeline, **values)
    assert loras.warnings == ()
    assert apart(styled, draw(changed, **values)) <= 1 < apart(styled, plain)
    loras.apply([])
    after = weights(pipeline)
    assert all(torch.equal(before[key], after[key]) for key in before.keys() | after.keys())
    assert np.array_equal(draw(pipeline, **values), plain)
