"""The checkpoints in memory, and the verification of their files."""

import shutil
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from picowatch.catalog import Catalog
from picowatch.catalog.parts import CONFIGS
from picowatch.engine.drawing import checkpoints as module
from picowatch.engine.drawing.checkpoints import Checkpoints
from picowatch.engine.drawing.renderer import Renderer
from picowatch.engine.model import load as loading
from picowatch.engine.model.cache import Cache
from picowatch.engine.model.devices import Target, choose_target
from picowatch.engine.model.verify import verified
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine import demo
from tests.engine.adapters import controlnet_of, write
from tests.engine.ldm import write_single_file
from tests.engine.requests import circle, draw, keep, plain_options, request
from tests.engine.rungs import reads
from tests.engine.tiny_flows import tiny_flow

DEMO = Catalog(Path("nowhere")).demo.path


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo model twice, once as a single file; a VAE, and a ControlNet."""
    mine = shutil.copytree(DEMO, tmp_path / "checkpoints/mine")
    (mine / "scheduler/note.json").write_text("{}")  # another hash
    monkeypatch.setitem(CONFIGS, "sd1", DEMO)
    write_single_file(DEMO, tmp_path / "checkpoints/file.safetensors")
    shutil.copytree(DEMO / "vae", tmp_path / "vae/other")
    unet = demo.read_part(Catalog(tmp_path).demo, "unet")
    for number in (1, 2):
        made = controlnet_of(unet, number).state_dict()
        write(tmp_path / f"controlnet/{number}.safetensors", made)
    return tmp_path


def named(models: Path, checkpoint: str = "mine", **values: Any) -> ImageRequest:
    return demo.named(models, checkpoint=checkpoint, **values)


def checkpoints(models: Path, target: Target = demo.CPU, kept: Cache | None = None) -> Checkpoints:
    return Checkpoints(partial(verified, Catalog(models)), target, kept or demo.endless())


def test_only_what_is_missing_is_read(models: Path) -> None:
    """Checkpoints that fit are all kept; one keeps the last VAE and the last batch's ControlNets.

    What a failed batch needed is read again. Released are others' ControlNets, too.
    """
    renderer = Renderer(plain_options(models))
    small: dict[str, Any] = {"steps": 1, "width": 64, "height": 64}
    ours, mine = request(**small), named(models, **small)
    picture = {"it": keep(models, circle())}
    first, second = (
        demo.named(
            models, picture, checkpoint="mine", control=[{"image": "it", "model": name}], **small
        )
        for name in ("1", "2")
    )

    def read(wanted: ImageRequest) -> list[str]:
        with reads() as found:
            draw(renderer, wanted)
        return sorted(name for name, _ in found)

    every = ["text_encoder", "unet", "vae"]
    assert read(ours) == read(mine) == every
    assert read(replace(ours, prompt="another", seed=9)) == read(mine) == []
    assert read(named(models, vae="other", **small)) == read(mine) == ["vae"]
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
    loads, other = checkpoints(models, kept=Cache(lambda: (0, 0), lambda: None)), named(models)
    unet, seen = weakref.ref(loads.load(request(), "device").denoiser), []

    def load_part(*given: Any, **named: Any) -> Any:
        seen.append(unet() is None)
        return loading.load_part(*given, **named)

    monkeypatch.setattr(module, "load_part", load_part)
    loads.load(other, "device")
    assert seen[0]
    assert loads.held(other, "device") is not None
    assert loads.held(request(), "device") is None


@pytest.mark.parametrize(
    ("name", "precision"),
    [("mine", "bfloat16"), ("file", "float32"), ("file", "bfloat16"), ("FLUX.1-dev", "bfloat16")],
)
def test_headers_say_what_parts_take(models: Path, name: str, precision: Any) -> None:
    """Sizes are for the type that computes, not the file's; copies of weights do not count."""
    (models / "checkpoints/FLUX.1-dev").symlink_to(tiny_flow("FLUX.1-dev"))
    loads = checkpoints(models, choose_target("cpu", precision))
    wanted = named(models, name)
    sizes, parts = loads.sizes(wanted), loads.load(wanted, "device").parts.by_name

    def size(begin: str) -> Any:
        found = [part for name, part in parts.items() if name.startswith(begin)]
        models = [part for part in found if isinstance(part, nn.Module)]
        return pytest.approx(
            sum(weight.nbytes for m in models for weight in m.parameters()), rel=0.01
        )

    assert sum(sizes.encoders) == size("text_encoder")
    assert sizes.denoiser == size("unet" if "unet" in parts else "transformer")
    assert sizes.vae == size("vae")
    plus = loads.sizes(named(models, name, control=[{"image": "", "model": "1"}]))
    assert plus.denoiser > sizes.denoiser
