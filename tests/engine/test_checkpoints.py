"""The checkpoints in memory, and the verification of their files."""

import shutil
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from picowatch.catalog import Catalog, embedded
from picowatch.engine.drawing.models import Checkpoints
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.verify import verified
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine import demo
from tests.engine.adapters import controlnet_of, write
from tests.engine.flow_requests import requests_of
from tests.engine.requests import circle, draw, plain_options, request
from tests.engine.rungs import reads
from tests.fault_points import preceded_by, wrap

DEMO = embedded("checkpoint").path


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """The demo model under another name, a VAE, and two ControlNets."""
    mine = shutil.copytree(DEMO, tmp_path / "checkpoints/mine")
    (mine / "scheduler/note.json").write_text("{}")  # another hash
    shutil.copytree(DEMO / "vae", tmp_path / "vae/other")
    unet = demo.read_part(embedded("checkpoint"), "unet")
    for seed, name in enumerate(("one", "two"), 1):
        write(tmp_path / f"controlnet/{name}.safetensors", controlnet_of(unet, seed).state_dict())
    return tmp_path


def wanted(models: Path, *lines: str) -> ImageRequest:
    (found,) = requests_of(models, "mine", "\n".join(("prompt: a corgi", "steps: 1", *lines)))
    return found


def test_only_what_is_missing_is_read(models: Path) -> None:
    """Checkpoints that fit are kept, one with its last VAE. A failed batch's are read again."""
    renderer = Renderer(plain_options(models))
    ours, mine = request(steps=1, width=64, height=64), wanted(models)
    circle().save(models / "it.png")
    first, second = (
        wanted(models, f"control: {{image: it.png, model: {name}}}") for name in ("one", "two")
    )
    sizes = renderer._checkpoints.sizes
    assert sizes(first).denoiser > sizes(mine).denoiser, "with its ControlNet"

    def read(request: ImageRequest) -> list[str]:
        with reads() as found:
            draw(renderer, request)
        return sorted(name for name, _ in found)

    every = ["text_encoder", "unet", "vae"]
    assert read(ours) == read(mine) == every
    assert read(replace(ours, prompt="another", seed=9)) == read(mine) == []
    assert read(wanted(models, "vae: other")) == read(mine) == ["vae"]
    assert read(first) == ["controlnet"] and read(first) == read(mine) == []
    assert read(second) == read(first) == ["controlnet"]
    with pytest.raises(RenderFailed):
        draw(renderer, replace(mine, vae="gone", vae_hash="0"))
    assert read(mine) == every and read(ours) == []
    forget_others = renderer._checkpoints.forget_others
    assert forget_others(mine) and not forget_others(mine)
    assert read(mine) == [] and read(first) == ["controlnet"]
    assert forget_others(mine) and not forget_others(mine)
    assert read(first) == ["controlnet"] and read(ours) == every


def test_a_checkpoint_goes_where_another_would_not_fit(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's memory is free before the next one is read."""
    kept, other = Cache(lambda: (0, 0), lambda: None), wanted(models)
    loads = Checkpoints(partial(verified, Catalog(models)), demo.CPU, kept)
    unet, seen = weakref.ref(loads.load(request(), "device").denoiser), list[bool]()
    note = preceded_by(lambda *_, **__: seen.append(unet() is None))
    wrap("picowatch.engine.drawing.models:load_part", note, monkeypatch.setattr)
    loads.load(other, "device")
    assert seen[0]
    assert loads.held(other, "device") is not None
    assert loads.held(request(), "device") is None
