"""LoRAs: found by name, added in forward, taken away without a trace."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from picowatch.catalog import Catalog, read_config
from picowatch.catalog.lora_keys import layer_of, misfits
from picowatch.catalog.lora_layers import LayerId, has_layer
from picowatch.engine import renderer as renderer_module
from picowatch.engine.models import weights
from picowatch.engine.models.parts import SD15
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import RenderedImage
from picowatch.engine.renderer import Renderer
from picowatch.engine.unet import loras as loras_module
from picowatch.engine.unet.lora_files import LoraReader
from picowatch.engine.unet.loras import Loras, modules_by_layer
from picowatch.errors import RenderFailed
from picowatch.recipe.request import LoraUse
from tests.engine.adapters import RANK, adapted_layers, kohya_lora, random_layer, write
from tests.engine.models.test_checkpoints import CPU, demo
from tests.engine.requests import difference, ignore_steps, request

# numpy 2.4 and torch 2.13 inside diffusers 0.42; in the engine process warnings are off.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TO_Q = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"


@pytest.fixture
def engine(models: Path) -> Renderer:
    return Renderer(EngineOptions(models=models, device="cpu", threads=1))


def use(models: Path, name: str, weight: float = 1.0) -> LoraUse:
    """A LoRA by name, with its file's hash."""
    catalog = Catalog(models)
    return LoraUse(name, catalog.sha256(catalog.find("lora", name)), weight)


def style(models: Path, name: str, seed: int) -> None:
    """A LoRA of every layer that is adapted by default."""
    tensors = kohya_lora(demo().unet, demo().text_encoders[0], seed=seed)
    write(models / f"loras/{name}.safetensors", tensors)


def draw(engine: Renderer, *loras: LoraUse, **values: Any) -> RenderedImage:
    (image,) = engine.render([request(steps=2, loras=loras, **values)], ignore_steps)
    return image


def meta_sd15() -> tuple[Any, Any]:
    """Stable Diffusion 1.5's UNet and text encoder, without weights."""
    text = CLIPTextConfig(**read_config(SD15 / "text_encoder/config.json"))
    unet = weights.empty(UNet2DConditionModel, read_config(SD15 / "unet/config.json"))
    return unet, weights.empty(CLIPTextModel, text)


def test_all_of_stable_diffusion_15s_kohya_names_have_a_layer(models: Path) -> None:
    """192 of the UNet, 72 of the text encoder, with nothing left over."""
    unet, text_encoder = meta_sd15()
    tensors = {
        name: torch.zeros(()).expand(tensor.shape)
        for name, tensor in kohya_lora(unet, text_encoder).items()
    }
    path = write(models / "loras/full.safetensors", tensors)
    assert len(adapted_layers(unet)) == 192
    assert "lora_te_text_model_encoder_layers_11_mlp_fc2.lora_up.weight" in tensors
    lora = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_ff_net_0_proj.alpha"
    assert lora in tensors
    read = LoraReader("full", "sd1", modules_by_layer(unet, text_encoder), CPU.device).read(path)
    assert len(read.layers) == 192 + 72
    assert read.unexpected == ()


@pytest.mark.parametrize(
    ("down", "up"),
    [
        ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight"),
        ("lora_transformer_{flat}.lora_down.weight", "lora_transformer_{flat}.lora_up.weight"),
        ("lycoris_{flat}.lora_down.weight", "lycoris_{flat}.lora_up.weight"),
        ("unet.{name}.lora_A.weight", "unet.{name}.lora_B.weight"),
        ("base_model.model.{name}.lora_A.weight", "base_model.model.{name}.lora_B.weight"),
        ("unet.{name}.lora.down.weight", "unet.{name}.lora.up.weight"),
        ("{old}_lora.down.weight", "{old}_lora.up.weight"),
        ("unet.{old}_lora.down.weight", "unet.{old}_lora.up.weight"),
    ],
    ids=[
        "kohya",
        "OneTrainer",
        "LyCORIS",
        "diffusers",
        "peft",
        "diffusers 0.20",
        "diffusers 0.10",
        "diffusers 0.15",
    ],
)
@pytest.mark.parametrize("layer", ["to_q", "to_out.0"])
def test_every_naming_means_the_same_layer(down: str, up: str, layer: str) -> None:
    """Dots, underscores, attention processors."""
    name = TO_Q.replace("to_q", layer)
    old = name.replace(layer, f"processor.{layer.removesuffix('.0')}")
    names = {"name": name, "flat": name.replace(".", "_"), "old": old}
    layer_id = LayerId("denoiser", name.replace(".", "_"))
    assert layer_of(down.format(**names)) == (layer_id, "down")
    assert layer_of(up.format(**names)) == (layer_id, "up")


def test_the_text_encoders_names_fit_every_transformers() -> None:
    """With `text_model` in them and without."""
    layer_id = LayerId("text_encoder", "encoder_layers_0_self_attn_q_proj")
    for key in (
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "text_encoder.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
        "text_encoder.text_model.encoder.layers.0.self_attn.to_q_lora.down.weight",
        "text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "text_encoders.clip_h.transformer.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
    ):
        assert layer_of(key) == (layer_id, "down")
    assert layer_of("lora_unet_x.alpha") == (LayerId("denoiser", "x"), "alpha")
    assert layer_of("lora_unet_x.dora_scale") == (LayerId("denoiser", "x"), "dora_scale")
    assert layer_of("lora_unet_x.oft_blocks") is None


def applied(tensors: dict[str, torch.Tensor], models: Path, **metadata: str) -> Loras:
    """A LoRA of these tensors, acting with weight 1.5 on the demo model."""
    path = write(models / "loras/it.safetensors", tensors, metadata or None)
    loras = Loras("demo", demo().unet, demo().text_encoders, lambda *_: path, CPU.device)
    loras.apply([LoraUse("it", "1", 1.5)])
    return loras


def test_a_linear_layer_gives_what_merged_weights_would_give(models: Path) -> None:
    """weight * alpha / rank * up @ down, on top."""
    module = demo().unet.get_submodule(TO_Q)
    down, up = random_layer(module, 1)
    flat = f"lora_unet_{TO_Q.replace('.', '_')}"
    halves = {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
    x = torch.randn(2, 5, module.weight.shape[1])
    plain = module(x)
    loras = applied(halves | {f"{flat}.alpha": torch.tensor(2.0)}, models)
    merged = module.weight + 1.5 * 2.0 / RANK * up @ down
    assert torch.allclose(module(x), torch.nn.functional.linear(x, merged, module.bias), atol=1e-5)
    loras.apply([])
    assert torch.equal(module(x), plain)


def test_convolutions_are_adapted_too(models: Path) -> None:
    """3x3 kernels, and LyCORIS' way of splitting the kernel off into `lora_mid`."""
    module = demo().unet.get_submodule(CONV)
    down, up = random_layer(module, 2)
    flat = f"lora_unet_{CONV.replace('.', '_')}"
    x = torch.randn(1, module.weight.shape[1], 8, 8)
    whole = {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
    loras = applied(whole, models)
    merged = module.weight + 1.5 * torch.einsum("orxy,rihw->oihw", up, down)
    expected = torch.nn.functional.conv2d(x, merged, module.bias, padding=1)
    assert torch.allclose(module(x), expected, atol=1e-4)
    loras.apply([])
    mid = torch.randn(RANK, RANK, 3, 3) * 0.1
    split = {
        f"{flat}.lora_down.weight": down[:, :, :1, :1],
        f"{flat}.lora_mid.weight": mid,
        f"{flat}.lora_up.weight": up,
    }
    loras = applied(split, models)
    merged = module.weight + 1.5 * torch.einsum(
        "or,rshw,si->oihw", up[:, :, 0, 0], mid, down[:, :, 0, 0]
    )
    expected = torch.nn.functional.conv2d(x, merged, module.bias, padding=1)
    assert torch.allclose(module(x), expected, atol=1e-4)
    loras.apply([])


def test_the_first_layer_of_an_inpainting_checkpoint_is_adapted_for_latents_alone(
    tmp_path: Path,
) -> None:
    """LyCORIS trains it, too: mask and picture are no inputs of its checkpoint."""
    module = torch.nn.Conv2d(9, 8, 3, padding=1)
    down, up = torch.randn(RANK, 4, 3, 3), torch.randn(8, RANK, 1, 1)
    keys = ("lora_unet_conv_in.lora_down.weight", "lora_unet_conv_in.lora_up.weight")
    path = write(tmp_path / "it.safetensors", dict(zip(keys, (down, up), strict=True)))
    layer_id = LayerId("denoiser", "conv_in")
    layer = LoraReader("it", "sd1", {layer_id: module}, CPU.device).read(path).layers[layer_id]
    x = torch.randn(1, 9, 6, 6)
    latents = torch.nn.functional.conv2d(x[:, :4], down, padding=1)
    expected = torch.nn.functional.conv2d(latents, up)
    assert torch.allclose(layer.added(module, x), expected, atol=1e-4)
    assert torch.count_nonzero(layer.change_of(module.weight)[:, 4:]) == 0


def test_diffusers_alpha_from_the_metadata_counts(models: Path) -> None:
    """It writes alpha there and not beside the layers."""
    module = demo().unet.get_submodule(TO_Q)
    down, up = random_layer(module, 3)
    tensors = {f"unet.{TO_Q}.lora_A.weight": down, f"unet.{TO_Q}.lora_B.weight": up}
    x = torch.randn(1, 2, module.weight.shape[1])
    plain = module(x)
    loras = applied(tensors, models, lora_adapter_metadata='{"unet.r": 4, "unet.lora_alpha": 8}')
    expected = plain + 1.5 * 2 * x @ down.T @ up.T
    assert torch.allclose(module(x), expected, atol=1e-5)
    loras.apply([])


RSLORA = '{"unet.r": 4, "unet.lora_alpha": 8, "unet.use_rslora": true}'
PATTERNS = (
    '{"unet.r": 4, "unet.lora_alpha": 8, "unet.alpha_pattern": '
    '{"to_k": 2, "^attn1.to_q": 3, "attn1.to_q": 16, "to_q": 32}}'
)


@pytest.mark.parametrize(
    ("settings", "scale"),
    [(RSLORA, 8 / 4**0.5), (PATTERNS, 16 / 4)],
    ids=["use_rslora", "alpha_pattern"],
)
@pytest.mark.parametrize("prefix", ["unet.", "base_model.model.unet."])
def test_what_pefts_settings_say_of_the_scale_counts(
    models: Path, settings: str, scale: float, prefix: str
) -> None:
    """alpha / sqrt(rank) for rsLoRA; a layer's own alpha by the first pattern that fits."""
    module = demo().unet.get_submodule(TO_Q)
    down, up = random_layer(module, 3)
    tensors = {f"{prefix}{TO_Q}.lora_A.weight": down, f"{prefix}{TO_Q}.lora_B.weight": up}
    x = torch.randn(1, 2, module.weight.shape[1])
    plain = module(x)
    loras = applied(tensors, models, lora_adapter_metadata=settings)
    expected = plain + 1.5 * scale * x @ down.T @ up.T
    assert torch.allclose(module(x), expected, atol=1e-5)
    loras.apply([])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ('{"unet.lora_bias": true}', "'it' has biases"),
        ('{"unet.alpha_pattern": {"to_[qk]": 4}}', "by a regular expression in its alpha_pattern"),
        ("no JSON", "its lora_adapter_metadata cannot be read"),
    ],
)
def test_settings_of_peft_that_cannot_be_honoured_are_refused(
    models: Path, settings: str, message: str
) -> None:
    """Ignored, they would give another picture."""
    down, up = random_layer(demo().unet.get_submodule(TO_Q), 3)
    tensors = {f"unet.{TO_Q}.lora_A.weight": down, f"unet.{TO_Q}.lora_B.weight": up}
    with pytest.raises(RenderFailed, match=message):
        applied(tensors, models, lora_adapter_metadata=settings)


def test_weights_and_several_loras_change_the_picture(engine: Renderer, models: Path) -> None:
    """Each its own way; negative weights too; the order in the recipe only rounds."""
    style(models, "a", 1)
    style(models, "b", 2)
    a, b = use(models, "a", 0.6), use(models, "b", 0.6)
    plain = draw(engine)
    sets = [(a,), (b,), (a, b), (use(models, "a", -0.6),), (use(models, "a", 0.3),)]
    drawn = [draw(engine, *loras) for loras in sets]
    for index, one in enumerate(drawn):
        assert all(difference(one, other) > 3 for other in [plain, *drawn[:index]])
    assert difference(drawn[2], draw(engine, b, a)) <= 2
    assert draw(engine, use(models, "a", 0.0)).pixels == plain.pixels


@pytest.mark.parametrize("switches", [20, pytest.param(200, marks=pytest.mark.heavy)])
def test_switches_leave_the_plain_checkpoint_as_it_was(
    engine: Renderer, models: Path, switches: int
) -> None:
    """Its weights, its pictures and the memory it takes, bit by bit."""
    names = [f"style{number}" for number in range(10)]
    for number, name in enumerate(names):
        style(models, name, number)
    sets = [tuple(use(models, name, 0.5) for name in (one, names[0])) for one in names[1:]]
    plain = draw(engine)
    loaded = engine._checkpoints.held(request())
    assert loaded is not None
    before = {name: tensor.clone() for name, tensor in loaded.unet.state_dict().items()}
    for switch in range(switches):
        loaded.loras.apply(sets[switch % len(sets)])
        if switch % 20 == 19:
            assert draw(engine).pixels == plain.pixels
    assert len(loaded.loras._files) <= 8
    assert all(torch.equal(before[name], t) for name, t in loaded.unet.state_dict().items())
    assert not any(module._forward_hooks for module in loaded.unet.modules())


def test_a_lora_for_a_model_of_another_size_is_refused_with_the_reason(
    engine: Renderer, models: Path
) -> None:
    """And the next picture is the plain checkpoint's."""
    flat = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    halves = {
        f"{flat}.lora_down.weight": torch.zeros(4, 768),
        f"{flat}.lora_up.weight": torch.zeros(320, 4),
    }
    write(models / "loras/wide.safetensors", halves)
    plain = draw(engine)
    with pytest.raises(RenderFailed, match=r"'wide' is for a model of another size: .* 768 to 320"):
        draw(engine, use(models, "wide"))
    assert draw(engine).pixels == plain.pixels


def test_a_lora_that_is_refused_leaves_nothing_of_those_beside_it_or_before_it(
    engine: Renderer, models: Path
) -> None:
    """Neither a warning nor the words as the LoRA before had them encoded."""
    style(models, "a", 1)
    tensors = kohya_lora(demo().unet, demo().text_encoders[0], seed=2)
    write(models / "loras/odd.safetensors", tensors | {"lora_unet_x.alpha": torch.tensor(1.0)})
    flat = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    halves = {
        f"{flat}.lora_down.weight": torch.zeros(4, 768),
        f"{flat}.lora_up.weight": torch.zeros(320, 4),
    }
    write(models / "loras/wide.safetensors", halves)
    plain = draw(engine, prompt="a blue square")
    draw(engine, use(models, "a"))
    with pytest.raises(RenderFailed, match="'wide' is for a model of another size"):
        draw(engine, use(models, "odd"), use(models, "wide"))
    after = draw(engine)
    assert after.warnings == ()
    fresh = Renderer(EngineOptions(models=models, device="cpu", threads=1))
    assert after.pixels == draw(fresh).pixels
    assert draw(engine, prompt="a blue square").pixels == plain.pixels


def test_layers_that_the_model_does_not_have_are_a_warning(engine: Renderer, models: Path) -> None:
    """Named, since they change nothing; a file with no layer that fits is an error."""
    deep = "lora_unet_down_blocks_3_attentions_0_proj_in"
    halves = {
        f"{deep}.lora_down.weight": torch.zeros(4, 64),
        f"{deep}.lora_up.weight": torch.zeros(64, 4),
    }
    write(models / "loras/other.safetensors", halves)
    with pytest.raises(
        RenderFailed, match="no layer of this checkpoint has a name like 'lora_unet"
    ):
        draw(engine, use(models, "other"))
    tensors = kohya_lora(demo().unet, demo().text_encoders[0], seed=1) | halves
    write(models / "loras/deep.safetensors", tensors)
    (warning,) = draw(engine, use(models, "deep", 0.5)).warnings
    assert warning.endswith(
        f"do nothing with this checkpoint: {deep}.lora_down.weight, {deep}.lora_up.weight."
    )
    assert draw(engine).warnings == ()


def test_a_tag_in_the_prompt_is_not_encoded(engine: Renderer, models: Path) -> None:
    """Its LoRA is in the request."""
    tagged = draw(engine, prompt="a red circle<lora:a:0.5>")
    assert tagged.pixels == draw(engine, prompt="a red circle").pixels


def test_the_layers_of_stable_diffusion_1_are_known_without_loading_it() -> None:
    """`models` says of a file which of its layers do nothing: none of a LoRA for all of them."""
    unet, text_encoder = meta_sd15()
    layers = modules_by_layer(unet, text_encoder)
    assert [layer for layer in layers if not has_layer("sd1", layer)] == []
    every = kohya_lora_keys(layers)
    assert misfits(every, "sd1") == ""
    odd = [*every, "lora_unet_up_blocks_9_conv1.lora_down.weight"]
    assert misfits(odd, "sd1").startswith("1 of its ")


def kohya_lora_keys(layers: Iterable[LayerId]) -> list[str]:
    """A LoRA of every layer there is."""
    parts = {"denoiser": "lora_unet_", "text_encoder": "lora_te_text_model_"}
    return [
        f"{parts[layer.part]}{layer.module}.lora_{half}.weight"
        for layer in layers
        for half in ("down", "up")
    ]


def test_copies_of_weights_draw_what_hooks_draw(
    models: Path, engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint's own weights are the same objects afterwards, with the same bits."""
    style(models, "copied", 5)
    small: dict[str, Any] = {"width": 64, "height": 64}
    plain = draw(engine, **small)
    loaded = engine._checkpoints.held(request())
    before = {name: (weight, weight.clone()) for name, weight in loaded.unet.named_parameters()}
    pictures = []
    for worth in (True, False):
        monkeypatch.setattr(Loras, "is_worth_merging", lambda *_, worth=worth: worth)
        pictures.append(draw(engine, use(models, "copied"), **small))
        assert bool(loaded.loras._plain) == worth
    assert difference(*pictures) <= 1 < difference(pictures[0], plain)
    monkeypatch.setattr(Loras, "is_worth_merging", lambda *_: True)
    assert draw(engine, use(models, "copied"), **small).pixels == pictures[0].pixels
    draw(engine, use(models, "copied"), exact=True, **small)
    assert not loaded.loras._plain, "exact is by hooks"
    assert draw(engine, **small).pixels == plain.pixels
    after = dict(loaded.unet.named_parameters())
    assert all(after[name] is weight for name, (weight, _) in before.items())
    assert all(torch.equal(weight, kept) for weight, kept in before.values())


def test_a_dora_draws_by_hooks_what_copies_of_weights_draw(
    models: Path, engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lengths as the checkpoint's leave its colours; a weight of 0 leaves all of it."""
    tensors = kohya_lora(demo().unet, demo().text_encoders[0], seed=7, dora=True)
    write(models / "loras/dora.safetensors", tensors)
    small: dict[str, Any] = {"width": 64, "height": 64}
    plain = draw(engine, **small)
    pictures = []
    for worth in (True, False):
        monkeypatch.setattr(Loras, "is_worth_merging", lambda *_, worth=worth: worth)
        pictures.append(draw(engine, use(models, "dora"), **small))
    assert difference(*pictures) <= 1 < difference(pictures[0], plain)
    assert draw(engine, use(models, "dora", 0.0), **small).pixels == plain.pixels


@pytest.mark.parametrize("room", [0, 2**20], ids=["large", "small"])
def test_large_files_are_not_kept_in_memory(
    models: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """Small ones are, for the recipes that use them in turn."""
    monkeypatch.setattr(loras_module, "_KEPT_BYTES", room)
    style(models, "a", 1)
    style(models, "b", 2)
    read: list[str] = []

    def find(kind: str, name: str, sha256: str) -> Path:
        read.append(name)
        return models / f"loras/{name}.safetensors"

    loras = Loras("demo", demo().unet, demo().text_encoders, find, CPU.device)
    for name in "abab":
        loras.apply([LoraUse(name, name, 1.0)])
    loras.apply([])
    assert [*dict.fromkeys(read)] == ["a", "b"]
    assert (read[-1], len(set(loras._files))) == ("b", 2 if room else 1)


def test_few_evaluations_are_worth_no_copies(models: Path) -> None:
    """The more images, steps and pixels, the sooner."""
    style(models, "costs", 6)
    path = models / "loras/costs.safetensors"
    loras = Loras("demo", demo().unet, demo().text_encoders, lambda *_: path, CPU.device)
    loras.apply([LoraUse("costs", "2", 1.0)])
    worth = {size: loras.is_worth_merging(*size) for size in ((1, 64), (24, 256), (48, 64))}
    loras.apply([])
    assert worth == {(1, 64): False, (24, 256): True, (48, 64): True}


def test_the_machine_decides_on_copies_and_not_what_is_free_just_now(
    models: Path, engine: Renderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor a batch's other images: a picture that is made again is made in the same way."""
    style(models, "steady", 7)
    small: dict[str, Any] = {"width": 64, "height": 64}
    monkeypatch.setattr(Loras, "is_worth_merging", lambda *_: True)
    draw(engine, **small)
    loaded = engine._checkpoints.held(request())
    lacks = {"free_bytes": 0, "total_bytes": 2 * sum(map(_bytes_of, loaded.models))}
    for what, size in lacks.items():
        with monkeypatch.context() as machine:
            machine.setattr(renderer_module, what, lambda _, size=size: size)
            draw(engine, use(models, "steady"), **small)
        assert bool(loaded.loras._plain) == (what == "free_bytes"), what
    draw(engine, **small)


def _bytes_of(model: Any) -> int:
    return sum(weight.nbytes for weight in model.parameters())


def test_a_compiled_unet_is_told_the_weights_without_moving_any(models: Path) -> None:
    """A graph may compute with the copies in the same batch, and nothing else keeps them."""
    style(models, "told", 8)
    path = models / "loras/told.safetensors"
    loras = Loras("demo", demo().unet, demo().text_encoders, lambda *_: path, CPU.device)
    before = dict(demo().unet.named_parameters())
    loras.apply([LoraUse("told", "3", 1.0)])
    by_hooks = loras.merged()
    assert by_hooks.keys() <= before.keys() and not loras.plain()
    loras.merge()
    copies = dict(demo().unet.named_parameters())
    assert all(copies[name] is weight for name, weight in loras.merged().items())
    assert all(torch.equal(by_hooks[name], weight) for name, weight in loras.merged().items())
    assert loras.plain() == {name: before[name] for name in by_hooks}
    loras.apply([])
    assert dict(demo().unet.named_parameters()) == before
