"""Previews of flow families: from latents in whatever form a pipeline keeps them."""

from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from picowatch.engine.colours import FLUX
from picowatch.engine.options import EngineOptions
from picowatch.engine.protocol import Preview
from picowatch.engine.renderer import Renderer
from tests.engine.pipelines.test_flows import SIDE, requests_of
from tests.engine.pipelines.tiny_flows import tiny_flow
from tests.engine.requests import ignore_steps, pixels

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept:DeprecationWarning"),
]
_D: Any = diffusers


def renderer(models: Path, previews: list[Preview]) -> Renderer:
    options = EngineOptions(models=models, device="cpu", precision="float32", threads=1)
    return Renderer(options, previews.append)


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("Z-Image-Turbo", _D.ZImagePipeline, {"guidance_scale": 0.0}),
        ("FLUX.1-dev", _D.FluxPipeline, {"guidance_scale": 3.5}),
    ],
)
def test_the_last_preview_is_the_picture_in_the_latents_colours(
    tmp_path: Path, name: str, kind: Any, values: dict[str, Any]
) -> None:
    """A pixel for each of the latents'; and looking changes no pixel."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / name).symlink_to(tiny_flow(name))
    wanted = requests_of(tmp_path, name, f"prompt: a red cube\nsteps: 3\nsize: {SIDE}x{2 * SIDE}")
    previews: list[Preview] = []
    (looked_at,) = renderer(tmp_path, previews).render(wanted, ignore_steps, preview_seconds=1e-9)
    (unseen,) = renderer(tmp_path, []).render(wanted, ignore_steps)
    assert (pixels(looked_at) == pixels(unseen)).all()
    assert [(one.width, one.height) for one in previews] == [(8, 16)] * 2  # not the first step
    pipeline = kind.from_pretrained(tiny_flow(name), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        prompt="a red cube",
        num_inference_steps=3,
        width=SIDE,
        height=2 * SIDE,
        generator=torch.Generator("cpu").manual_seed(7),
        output_type="latent",
        **values,
    ).images
    if latents.ndim == 3:
        latents = pipeline._unpack_latents(latents, 2 * SIDE, SIDE, 8)
    colours = torch.tensor(FLUX)
    picture = torch.einsum("chw,cr->hwr", latents[0].float(), colours[:-1]) + colours[-1]
    expected = ((picture + 1) * 127.5).clamp(0, 255).detach().numpy()
    shown = np.frombuffer(previews[-1].pixels, np.uint8).reshape(16, 8, 3)
    assert expected.std() > 1
    assert np.abs(shown - expected).max() <= 1
