"""The checkpoints in memory, and the verification of their files."""

import shutil
import weakref
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog
from picowatch.catalog.parts import CONFIGS
from picowatch.engine import checkpoints as module
from picowatch.engine import load as loading
from picowatch.engine.checkpoints import Checkpoints
from picowatch.engine.devices import Target, choose_target
from picowatch.engine.loaded import Loaded
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from tests.engine import demo
from tests.engine.controlnets import controlnet_of, save_single
from tests.engine.ldm import write_single_file
from tests.engine.requests import request
from tests.engine.tiny_flows import tiny_flow

DEMO = Catalog(Path("nowhere")).demo.path
FULL = choose_target("cpu", "float32")


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo model twice, once as a single file; a VAE, and a ControlNet."""
    mine = shutil.copytree(DEMO, tmp_path / "checkpoints/mine")
    (mine / "scheduler/note.json").write_text("{}")  # another hash
    monkeypatch.setitem(CONFIGS, "sd1", DEMO)
    write_single_file(DEMO, tmp_path / "checkpoints/file.safetensors")
    shutil.copytree(DEMO / "vae", tmp_path / "vae/other")
    unet = loading.load_part(Catalog(tmp_path).demo, FULL, FULL.device, "unet")
    for number in (1, 2):
        save_single(controlnet_of(unet, number), tmp_path / f"controlnet/{number}.safetensors")
    return tmp_path


def named(models: Path, checkpoint: str = "mine", **values: Any) -> ImageRequest:
    return demo.named(models, checkpoint=checkpoint, **values)


def checkpoints(models: Path, target: Target = FULL) -> Checkpoints:
    return Checkpoints(Catalog(models), target)


def loaded(loads: Checkpoints, wanted: ImageRequest) -> Loaded:
    """Load a checkpoint to its device."""
    return loads.load(wanted, "device")


def nbytes(loaded: Loaded, *names: str) -> int:
    return sum(tensor.nbytes for name in names for tensor in loaded.parts[name].parameters())


def test_checkpoints_that_fit_are_all_kept(models: Path) -> None:
    """Going back to one reads nothing."""
    loads, other = checkpoints(models), named(models)
    first, second = loaded(loads, request()), loaded(loads, other)
    assert loads.held(request(prompt="another", seed=9), "device") is first
    assert loads.held(other, "device") is second
    assert loads.forget_others(other)
    assert loads.held(request(), "device") is None
    assert loads.held(other, "device") is second
    assert not loads.forget_others(other)


def test_a_checkpoint_goes_where_another_would_not_fit(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other's memory is free before the next one is read."""
    monkeypatch.setattr(module, "free_bytes", lambda device: 0)
    loads = checkpoints(models)
    unet, seen = weakref.ref(loaded(loads, request()).denoiser), []

    def load_part(*given: Any, **named: Any) -> Any:
        seen.append(unet() is None)
        return loading.load_part(*given, **named)

    monkeypatch.setattr(module, "load_part", load_part)
    loaded(loads, named(models))
    assert seen[0]
    assert loads.held(named(models), "device") is not None
    assert loads.held(request(), "device") is None


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["mine", "file", "FLUX.1-dev"])
def test_headers_say_what_parts_take(models: Path, name: str, precision: Any) -> None:
    """Sizes are for the type that computes, not the file's; copies of weights do not count."""
    (models / "checkpoints/FLUX.1-dev").symlink_to(tiny_flow("FLUX.1-dev"))
    loads = checkpoints(models, choose_target("cpu", precision))
    wanted = named(models, name)
    weights, kept = loads.weights(wanted), loaded(loads, wanted)
    encoders = [part for part in kept.parts if part.startswith("text_encoder")]
    denoiser = "unet" if "unet" in kept.parts else "transformer"
    assert weights.encoders == pytest.approx(nbytes(kept, *encoders), rel=0.01)
    assert weights.denoiser == pytest.approx(nbytes(kept, denoiser), rel=0.01)
    assert weights.vae == pytest.approx(nbytes(kept, "vae"), rel=0.01)
    plus = loads.weights(named(models, name, control=["1"]))
    assert plus.denoiser > weights.denoiser


def test_another_vae_takes_the_place_of_the_checkpoints_own(models: Path) -> None:
    """Its own returns when it is requested; the other parts stay."""
    loads, other = checkpoints(models), demo.named(models, vae="other")
    kept = loaded(loads, request())
    own, unet = kept.vae, kept.denoiser
    assert loaded(loads, other) is kept
    assert kept.vae is not own
    assert kept.denoiser is unet
    assert loads.held(request(), "device") is None
    loaded(loads, request())
    assert loads.held(other, "device") is None
    assert loads.held(request(), "device") is kept


def test_after_a_failed_load_nothing_is_held(models: Path) -> None:
    """The next load reads everything again."""
    loads = checkpoints(models)
    loaded(loads, request())
    with pytest.raises(RenderFailed):
        loaded(loads, request(vae="gone", vae_hash="0"))
    assert loads.held(request(), "device") is None
    assert loaded(loads, request()).vae is not None


def test_a_checkpoint_keeps_the_controlnets_of_its_last_batch(models: Path) -> None:
    """Those of others make room for them."""
    loads = checkpoints(models)
    plain = loaded(loads, named(models))
    first, second = (named(models, control=[name]) for name in ("1", "2"))
    assert loads.held(first, "device") is None
    assert loaded(loads, first) is plain
    assert loads.held(first, "device") is plain
    loaded(loads, second)
    assert loads.held(first, "device") is None
    assert [*plain.controlnets] == [second.control[0].model_hash]
    assert loads.forget_others(named(models))
    assert not plain.controlnets


def test_parts_wait_in_verified_files_until_they_are_restored(models: Path) -> None:
    """Text encoders make room for the denoiser; a changed file is refused."""
    loads, wanted = checkpoints(models), named(models)
    kept = loads.load(wanted, "device")
    kept.drop(["text_encoder", "unet"])
    assert kept.denoiser is None
    kept.restore(["unet"])
    assert kept.denoiser is not None
    note = models / "checkpoints/mine/scheduler/note.json"
    note.write_text('{"changed": 1}')
    with pytest.raises(RenderFailed, match="'mine' is a different file now"):
        kept.restore(["text_encoder"])
