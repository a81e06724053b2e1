"""ControlNets: their layouts, and maps of pictures as OpenCV, transformers and others make them."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from picowatch.catalog import Catalog, embedded
from picowatch.catalog.models import Model
from picowatch.engine.drawing.control import load_controlnet
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.devices import choose_target
from picowatch.engine.networks.find import bytes_of, load_depth
from picowatch.engine.networks.preprocess import Pixels, canny, preprocess
from picowatch.engine.protocol import RenderedImage
from picowatch.recipe.request import ControlUse
from tests.engine.adapters import ControlNet, acting, controlnet_of, save_original, write
from tests.engine.demo import CPU, assert_equal
from tests.engine.ldm import write_single_file
from tests.engine.reference.models import Models
from tests.engine.requests import circle, difference, draw, pixels
from tests.engine.tiny_flows import tiny_unet


def small(unet: Any) -> Any:
    """Return a ControlNet without attention, like the small ones for SDXL."""
    like = ControlNet.from_unet(unet, load_weights_from_unet=False).config
    config = {name: value for name, value in like.items() if not name.startswith("_")}
    config["down_block_types"] = ("DownBlock2D",) * len(unet.config.block_out_channels)
    config |= {"mid_block_type": "UNetMidBlock2D", "transformer_layers_per_block": 1}
    config["conditioning_embedding_out_channels"] = (8, 8, 16, 16)
    torch.manual_seed(4)
    return acting(ControlNet(**config), 4)


@pytest.mark.parametrize("layout", ["original", "whole", "bare", "small"])
def test_every_layout_holds_the_same_weights(tmp_path: Path, layout: str) -> None:
    """What a ControlNet consists of is read from its tensors and its UNet's config."""
    kind: Any = diffusers.UNet2DConditionModel
    demo = embedded("checkpoint").path
    folder = demo if layout in ("whole", "bare") else tiny_unet("sdxl")
    unet = kind.from_pretrained(folder / "unet", local_files_only=True)
    model = small(unet) if layout == "small" else controlnet_of(unet)
    path = tmp_path / "it.safetensors"
    if layout == "small":
        write(path, model.state_dict())
    else:
        save_original(model, path, prefix="" if layout == "bare" else "control_model.")
    if layout == "whole":
        checkpoint = tmp_path / "checkpoint.safetensors"
        write_single_file(folder, checkpoint)
        save_file(load_file(path) | load_file(checkpoint), path)
    found = read(path, unet)
    assert_equal(found, model)
    assert not found.config.global_pool_conditions


def read(path: Path, unet: Any) -> Any:
    model = Model("controlnet", "sd1", name=path.stem, layout="file", path=path, bytes=0)
    return load_controlnet(model, unet, CPU, CPU.device)


def test_an_inpainting_unet_is_controlled_by_four_channels(models: Models) -> None:
    renderer = Renderer(models.options)
    follows = {"image": "circle.png", "model": "random", "preprocess": "inpaint", "preview": True}
    values: dict[str, Any] = {"image": "circle.png", "mask": "half.png", "mask_blur": 0, "steps": 2}
    values |= {"checkpoint": "demo-inpaint", "denoising_strength": 1.0}
    (found,) = draw(renderer, models.request({**values, "control": [follows]}))
    (plain,) = draw(renderer, models.request(values))
    assert difference(found, plain) > 5
    shown = pixels(found.control_maps[0])
    assert (shown[:, 64:] == 0).all() and (shown[:, :64] > 0).any()
    part = {"mask_padding": 0, "width": 64, "height": 128}
    follows |= {"preprocess": "none"}
    (found,) = draw(renderer, models.request({**values, **part, "control": [follows]}))
    shown = pixels(found.control_maps[0])
    assert (shown == np.asarray(circle())[:, 64:]).all(), "only the masked part"


def test_a_file_under_another_name_is_read_again(models: Models) -> None:
    """Only the name tells that it was trained with pooled conditions, so `mv` is the remedy."""
    renderer = Renderer(models.options)

    def drawn(renderer: Renderer, name: str) -> RenderedImage:
        control = [{"image": "sketch.png", "model": name}]
        return draw(renderer, models.request({"steps": 2, "control": control}))[0]

    before, after = (drawn(renderer, name) for name in ("random", "random-shuffle"))
    assert difference(before, after)
    assert not difference(after, drawn(Renderer(models.options), "random-shuffle"))


def use(name: Any, **values: Any) -> ControlUse:
    return ControlUse("a.png", "it", preprocess=name, **values)


# The sha256 of `cv2.Canny(grain(), 100, 200)` of opencv-python-headless 5.0.0.93 and of 4.14.0.94
# (both gave the same), with numpy 2.4.6 on x86-64.
EDGES = "772ec12064d519ae837803663c4ce49fda9b256160b13df2331a7529a44126a0"


def grain() -> Pixels:
    """Noise, blurred: weak edges beside strong ones; of integers only, for every machine."""
    index = np.arange(48 * 64 * 3, dtype=np.uint64)
    noise = (index * np.uint64(2654435761) >> np.uint64(13)) % np.uint64(256)
    padded = np.pad(noise.astype(int).reshape(48, 64, 3), ((2, 2), (2, 2), (0, 0)), mode="edge")
    blurred = sum(padded[y : y + 48, x : x + 64] for y in range(5) for x in range(5))
    return (np.asarray(blurred) // 25 * 3 % 256).astype(np.uint8)


def test_edges_are_those_of_opencv() -> None:
    """Each pixel is equal, in either order of thresholds: ControlNets were trained on its maps."""
    for thresholds in ((100, 200), (200, 100)):
        edges = canny(grain(), *thresholds)
        assert (edges == 255).sum() == 598
        assert sha256(edges.tobytes()).hexdigest() == EDGES


def test_a_plain_picture_has_no_edges_and_no_lines() -> None:
    plain = np.full((16, 16, 3), 77, np.uint8)
    assert not canny(plain, 0, 0).any()
    assert not preprocess(plain, use("lineart")).any()


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("none", {}, [(10, 20, 30), (255, 255, 255), (0, 0, 0), (200, 128, 140)]),
        ("tile", {}, [(10, 20, 30), (255, 255, 255), (0, 0, 0), (200, 128, 140)]),
        ("invert", {}, [(245, 235, 225), (0, 0, 0), (255, 255, 255), (55, 127, 115)]),
        ("threshold", {}, [(0,) * 3, (255,) * 3, (0,) * 3, (255,) * 3]),
        ("threshold", {"threshold": 128}, [(0,) * 3, (255,) * 3, (0,) * 3, (0,) * 3]),
        # CIELAB's lightness: 6.3, 100, 0 and 60.8 of 100.
        ("luminance", {}, [(16,) * 3, (255,) * 3, (0,) * 3, (155,) * 3]),
    ],
)
def test_maps_of_single_pixels(name: str, values: Any, expected: Any) -> None:
    """Every channel counts for the threshold."""
    picture = np.array([[(10, 20, 30), (255, 255, 255), (0, 0, 0), (200, 128, 140)]], np.uint8)
    found = preprocess(picture, use(name, **values))
    assert np.abs(found[0].astype(int) - expected).max() <= 1
    assert found.dtype == np.uint8


def test_dark_lines_on_paper_become_white_ones_on_black() -> None:
    """This holds for any colour of paper; gradual changes are no lines."""
    picture = Image.new("RGB", (64, 64), (230, 220, 180))
    ImageDraw.Draw(picture).line((8, 8, 56, 56), (60, 60, 60), 2)
    found = preprocess(np.asarray(picture), use("lineart"))
    assert found[32, 32].min() > 100
    assert found[10:20, 50].max() < 20


def test_a_blur_is_as_wide_as_it_says() -> None:
    """A Gaussian's: at one radius from an edge, 84 % of the way is done."""
    picture = np.zeros((8, 128, 3), np.uint8)
    picture[:, 64:] = 255
    found = preprocess(picture, use("blur", radius=9.0))
    assert abs(int(found[4, 64 + 9, 0]) - 0.84 * 255) < 8


def tiny_depth() -> Any:
    """Return a model with the parts and options of the real one."""
    torch.manual_seed(1)
    kind: Any = Dinov2Config
    stages = [f"stage{number}" for number in (1, 2, 3, 4)]
    sizes = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2}
    config = DepthAnythingConfig(
        backbone_config=kind(
            image_size=28, patch_size=14, out_features=stages, reshape_hidden_states=False, **sizes
        ),
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
    )
    made: Any = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.3)
        made.head.conv3.weight.abs_()  # or the last ReLU may cut all of it off
    return made.eval()


def test_a_depth_model_counts_as_it_is_read(tmp_path: Path) -> None:
    """On a card with the 16 bits in which Stable Diffusion draws there."""
    tiny_depth().save_pretrained(tmp_path / "depth/tiny")
    model, half = Catalog(tmp_path).find("depth", "tiny"), choose_target("cpu", "float16")
    for target in (CPU, half):
        weights = load_depth(model, target).state_dict().values()
        assert {tensor.dtype for tensor in weights} == {target.dtype}
        assert sum(tensor.nbytes for tensor in weights) == bytes_of(model, target)


def test_a_picture_follows_its_depth(models: Models) -> None:
    """As transformers gives it, nearest white, farthest black; it is shown."""
    model = tiny_depth()
    model.save_pretrained(models.options.models / "depth/tiny")
    follows = {"image": "circle.png", "model": "random", "preprocess": "depth", "preview": True}
    control = [follows | {"depth": "tiny"}]
    (image,) = draw(Renderer(models.options), models.request({"steps": 1, "control": control}))
    found = pixels(image.control_maps[0])
    assert (found.min(), found.max()) == (0, 255)
    small = np.asarray(circle(128).resize((518, 518), Image.Resampling.BICUBIC))
    values = (small / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    with torch.no_grad():
        depth = model(torch.from_numpy(values).permute(2, 0, 1)[None].float()).predicted_depth
    depth = torch.nn.functional.interpolate(depth[:, None], (128, 128), mode="bilinear")[0, 0]
    expected = (depth - depth.min()) / (depth.max() - depth.min()) * 255
    assert np.abs(found[:, :, 0] - expected.numpy().astype(int)).max() <= 1
