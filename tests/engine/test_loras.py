"""LoRAs: files of any kind and names change the picture, and leave no trace."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import diffusers
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import nn

from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.lora_files import read_lora
from picowatch.engine.model.memory import FULL, LAYERS, MODELS, TURNS
from picowatch.engine.protocol import RenderedImage
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse
from tests.engine.adapters import Tensors, files_in, kohya_lora, random_layer, write
from tests.engine.demo import demo
from tests.engine.flow_requests import flow_models, flow_renderer, hash_of, requests_of
from tests.engine.requests import difference, draw, pixels, plain_options, request
from tests.engine.rungs import lora_of, on_rung
from tests.engine.test_flows import CASES, CUBE, called, kind_of, same, scripted_here
from tests.kinds import one_of_each_kind

_D: Any = diffusers
TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
FLAT_TO_K = f"lora_unet_{TO_K.replace('.', '_')}"


def modules(tensors: Tensors, folder: Path, found: Any, **metadata: str) -> Tensors:
    path = write(folder / "it.safetensors", tensors, metadata or None)
    with files_in(folder)("lora", "it", "it"):
        given, unused, *_ = read_lora("it", path, found, "sd1")
    assert not unused
    return {
        f"{part}.{name}": torch.einsum("or,r...->o...", up.float().flatten(1), down.float())
        for (part, name), (down, up) in given.items()
    }


# From here on, single layers: what their weights would get.
def change(tensors: Tensors, tmp_path: Path, layer: nn.Module, **metadata: str) -> torch.Tensor:
    unet: Any = nn.Module()
    unet.dtype, parent = torch.float32, unet
    *levels, last = TO_Q.split(".")
    for level in levels:
        parent.add_module(level, nn.Module())
        parent = parent.get_submodule(level)
    parent.add_module(last, layer)
    found = _D.StableDiffusionPipeline.__new__(_D.StableDiffusionPipeline)
    found.__dict__["unet"] = unet
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
    factors, expected = lyco(layer, kind)
    stem = f"unet.{TO_Q}" if layer is LINEAR else f"lora_unet_{TO_Q.replace('.', '_')}"
    tensors = {f"{stem}.{role}": factor for role, factor in factors.items()}
    found = change(tensors | {f"{stem}.alpha": torch.tensor(2.0)}, tmp_path, layer)
    torch.testing.assert_close(found, expected.reshape(layer.weight.shape), rtol=1e-4, atol=1e-4)
    if kind == "LoHa":
        del tensors[f"{stem}.hada_w2_a"]
        with pytest.raises(RenderFailed, match="'it' is damaged: KeyError"):
            change(tensors, tmp_path, layer)


# From here on, LoRAs in use: pictures of the demo model.
@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With "a" and "b", each for the UNet and the text encoder."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate("ab"):
        tensors = kohya_lora(demo()["unet"], demo()["text_encoder"], seed=seed)
        write(folder / f"loras/{name}.safetensors", tensors)
    return folder


Drawn = Callable[..., RenderedImage]


@pytest.fixture(scope="module")
def drawn(models: Path) -> Drawn:
    """Draws with LoRAs, which are names with weights."""
    renderer = Renderer(plain_options(models))

    def picture(*uses: tuple[str, float]) -> RenderedImage:
        loras = tuple(LoraUse(name, hash_of(models, "lora", name), weight) for name, weight in uses)
        return draw(renderer, request(steps=2, width=64, height=64, loras=loras))[0]

    return picture


def test_loras_change_the_picture_each_its_own_way(drawn: Drawn) -> None:
    """Weights may be negative; those of a LoRA named twice add up. Without LoRAs no bit differs."""
    both = ("a", 0.6), ("b", 0.6)
    pictures = [drawn(*uses) for uses in ((), both[:1], both[1:], both, [("a", -0.6)])]
    pictures.append(drawn(("a", 0.3)))
    for index, picture in enumerate(pictures):
        assert all(difference(picture, other) > 3 for other in pictures[:index])
    assert difference(drawn(*reversed(both)), pictures[3]) <= 2
    for again, expected in (
        ([("a", 0.5), ("a", 0.1)], pictures[1]),
        ([("a", 0.0)], pictures[0]),
        ([("a", 0.5), ("a", -0.5)], pictures[0]),
    ):
        assert drawn(*again).pixels == expected.pixels


def test_a_lora_of_another_size_is_refused(models: Path, drawn: Drawn) -> None:
    """diffusers would make some modules larger for it."""
    wide = {"down": torch.zeros(4, 768), "up": torch.zeros(320, 4)}
    tensors = {f"{FLAT_TO_K}.lora_{half}.weight": tensor for half, tensor in wide.items()}
    write(models / "loras/wide.safetensors", tensors)
    with pytest.raises(RenderFailed, match=r"'wide' is for a model of another size: .* 768 to 320"):
        drawn(("wide", 1))


def test_a_lora_that_cannot_be_loaded_leaves_nothing(drawn: Drawn) -> None:
    """Nor do earlier LoRAs; later it can be used."""
    plain, _ = drawn(), drawn(("a", 1))
    with pytest.MonkeyPatch.context() as patch:
        failing = Mock(side_effect=ValueError("odd"))
        patch.setattr(transformers.CLIPTextModel, "load_adapter", failing)
        with pytest.raises(RenderFailed, match="odd"):
            drawn(("b", 1))
    assert drawn().pixels == plain.pixels
    assert difference(drawn(("b", 1)), plain) > 3


def test_what_of_a_lora_does_nothing_is_said(models: Path, drawn: Drawn) -> None:
    """The warning names three keys; if no part has an effect, the LoRA is refused."""
    deep = "lora_unet_down_blocks_3_attentions_0_proj_in"
    halves = {
        f"{deep}.lora_down.weight": torch.zeros(4, 64),
        f"{deep}.lora_up.weight": torch.zeros(64, 4),
        f"{deep}.alpha": torch.tensor(1.0),
    }
    write(models / "loras/other.safetensors", halves)
    with pytest.raises(RenderFailed, match=r"is for another kind of model: .* 'lora_unet"):
        drawn(("other", 1))
    down, up = random_layer(demo()["unet"].get_submodule(TO_K), 1)
    layer = {f"{FLAT_TO_K}.lora_down.weight": down, f"{FLAT_TO_K}.lora_up.weight": up}
    write(models / "loras/deep.safetensors", layer | halves | {"x": torch.zeros(1)})
    (warning,) = drawn(("deep", 0.5)).warnings
    assert warning.startswith("The LoRA 'deep' has parts that do nothing with this checkpoint: ")
    assert warning.endswith(f": {', '.join(sorted(halves))} and 1 more.")
    assert drawn().warnings == ()


def test_a_line_for_the_log_describes_a_lora(
    models: Path, drawn: Drawn, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is computed for it if the daemon logs no details."""
    tensors: Tensors = {}
    changes = []
    for number, (name, rank) in enumerate(((TO_Q, 2), (TO_K, 4))):
        weight = demo()["unet"].get_submodule(name).weight.detach()
        down, up = random(rank, weight.shape[1]), random(len(weight), rank)
        changes.append(float((up @ down).norm() * (number + 1) / rank / weight.norm()))
        flat = f"lora_unet_{name.replace('.', '_')}"
        tensors |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
        tensors[f"{flat}.alpha"] = torch.tensor(number + 1.0)
    write(models / "loras/style.safetensors", tensors)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.linalg, "vector_norm", Mock(side_effect=AssertionError))
        drawn(("style", -0.5))
        drawn()
    assert not caplog.records
    with caplog.at_level("DEBUG", "picowatch.engine"):
        drawn(("style", -0.5))
    (line,) = (line for line in caplog.messages if "LoRA" in line)
    assert line == (
        "LoRA 'style' at -0.5: 2 layers, rank 2 to 4, alpha 1 to 2, "
        f"largest change {max(changes) / 2:.1%} of a layer's weights"
    )


# From here on, LoRAs of recipes for each family.
FLOWS = (
    *("Z-Image-Turbo", "FLUX.1-dev", "FLUX.2-klein", "Qwen-Image", "Krea-2-Turbo", "Anima"),
    *("ERNIE-Image-Turbo", "sd3.5-medium", "Chroma1-HD", "Lumina-Image-2.0", "FLUX.3-klein-base"),
)
# Those whose pipelines are modular have one on every rung; test_rungs.py has the others.
ON_EVERY_RUNG = ("Anima", "FLUX.3-klein-base")


@torch.no_grad()
def merge(pipeline: Any, lora: Path, weight: float) -> None:
    tensors = load_file(lora)
    for name in (name for name in tensors if "lora_A" in name):
        part, _, layer = name.removesuffix(".lora_A.weight").partition(".")
        change = tensors[name.replace("lora_A", "lora_B")].float() @ tensors[name].float()
        pipeline.components[part].get_submodule(layer).weight += weight * change


@pytest.mark.parametrize("name", one_of_each_kind(FLOWS, ["FLUX.1-dev", "Anima"]))
def test_a_lora_gives_the_picture_of_merged_weights(name: str) -> None:
    """Anima's also changes what maps its texts. Without it everything is as before, to the bit."""
    models, values = flow_models(name), CASES[name].plain | CASES[name].both
    lora = lora_of(models, name, *(["text_conditioner"] if name == "Anima" else []))
    (wanted,) = requests_of(models, name, CUBE)
    script = scripted_here(kind_of(name, "text"), name)
    plain = called(script, values)
    merge(script, models / "loras/a.safetensors", lora.weight)
    merged = called(script, values)
    assert not same(merged, plain)
    ours = flow_renderer(models)
    for rung in (FULL, MODELS, LAYERS, TURNS) if name in ON_EVERY_RUNG else (FULL,):
        renderer = on_rung(ours, replace(rung, tiled=False))
        before, styled, after = (
            draw(renderer, replace(wanted, loras=uses))[0] for uses in ((), (lora,), ())
        )
        assert same(pixels(styled), merged) and same(pixels(before), plain), rung
        assert before.pixels == after.pixels
        assert styled.warnings == ()
