"""Diffusers folders in which strange things lie: refused in words, at once, one by one."""

import json
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog
from picowatch.errors import ModelRefused
from tests.catalog.files import kohya_lora_shapes, write_model
from tests.house import House

DEMO = Catalog(Path("nowhere")).demo.path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A checkpoint folder called it."""
    return Path(shutil.copytree(DEMO, tmp_path / "models/checkpoints/it"))


def _fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_fifo, _device])
@pytest.mark.parametrize("name", ["unet/more.json", "tokenizer/vocab.json", "vae/config.json"])
def test_what_has_no_end_is_refused_unread(
    folder: Path, name: str, make: Callable[[Path], None]
) -> None:
    """A FIFO is waited for, a device gives bytes for ever."""
    make(folder / name)
    catalog = Catalog(folder.parents[1])
    found = _in_time(catalog.scan)
    assert not found.models
    (refused,) = found.refused
    assert "not a regular file" in refused.reason
    assert name in refused.reason
    with pytest.raises(ModelRefused, match="not a regular file"):
        catalog.find("checkpoint", "it")


def test_a_fifo_that_comes_after_the_scan_is_not_waited_for(folder: Path) -> None:
    """Hashing looks once more."""
    catalog = Catalog(folder.parents[1])
    (model,) = catalog.scan().models
    _fifo(folder / "unet/config.json")

    def hashed() -> str:
        with pytest.raises(ModelRefused, match="not a regular file"):
            catalog.sha256(model)
        return "refused"

    assert _in_time(hashed) == "refused"


def _in_time(action: Callable[[], Any]) -> Any:
    """What the action gives; fails the test where it hangs."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(action()), daemon=True)
    thread.start()
    thread.join(30)
    assert results, "it hangs"
    return results[0]


def test_weights_that_aria2_is_still_downloading_are_not_there(folder: Path) -> None:
    """They have their whole size and header at once; whole repositories are fetched so."""
    catalog = Catalog(folder.parents[1])
    control = folder / "unet/diffusion_pytorch_model.safetensors.aria2"
    control.write_bytes(b"abc")
    (refused,) = catalog.scan().refused
    assert refused.reason == "it is a diffusers folder without weights in unet/."
    control.unlink()
    assert [model.name for model in catalog.scan().models] == ["it"]


def test_a_folder_with_the_name_of_a_file_is_passed_over(folder: Path) -> None:
    """It has no bytes that could be hashed."""
    catalog = Catalog(folder.parents[1])
    before = catalog.sha256(catalog.find("checkpoint", "it"))
    (folder / "unet/y.json").mkdir()
    assert catalog.sha256(catalog.find("checkpoint", "it")) == before


def test_links_that_cannot_be_followed_refuse_themselves_alone(folder: Path) -> None:
    """A target that is too long, and a link to itself."""
    (folder.parent / "long.safetensors").symlink_to("x" * 300)
    (folder.parent / "deep").symlink_to("y" * 300)
    (folder.parent / "loop.safetensors").symlink_to("loop.safetensors")
    (folder.parents[1] / "vae").symlink_to("vae")
    found = Catalog(folder.parents[1]).scan()
    assert [model.name for model in found.models] == ["it"]
    assert {refused.name for refused in found.refused} == {
        "deep",
        "long.safetensors",
        "loop.safetensors",
        "vae",
    }


BEYOND_MEASURE: dict[str, tuple[str, dict[str, object]]] = {
    "training steps": ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**9}),
    "betas": ("scheduler/scheduler_config.json", {"trained_betas": [0.1] * 20_000}),
    "layers of text": ("text_encoder/config.json", {"num_hidden_layers": 10**6}),
    "words": ("text_encoder/config.json", {"vocab_size": 10**9}),
    "positions": ("text_encoder/config.json", {"max_position_embeddings": 10**9}),
    "layers": ("unet/config.json", {"layers_per_block": 10**6}),
    "layers by block": ("unet/config.json", {"layers_per_block": [1, 1, 10**6]}),
    "blocks": ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 50_000}),
    "width": ("unet/config.json", {"block_out_channels": [10**7] * 4}),
    "infinity": ("unet/config.json", {"norm_eps": float("1e400")}),
    "a table": ("vae/config.json", {"act_fn": {"a": 1}}),
    "channels of the VAE": ("vae/config.json", {"block_out_channels": [10**9]}),
}


@pytest.mark.parametrize("case", BEYOND_MEASURE)
def test_numbers_beyond_measure_are_refused_before_anything_is_built(
    folder: Path, case: str
) -> None:
    """They are gigabytes, or minutes, whatever the weights are."""
    name, values = BEYOND_MEASURE[case]
    config = json.loads((folder / name).read_text())
    (folder / name).write_text(json.dumps(config | values))
    found = Catalog(folder.parents[1]).scan()
    assert not found.models
    (refused,) = found.refused
    assert name in refused.reason
    assert case == "infinity" or case == "a table" or "the limit is" in refused.reason


def test_what_diffusers_writes_for_infinity_is_a_number(folder: Path) -> None:
    """Into the configs of its DPM++ schedulers, and so into folders that scripts saved."""
    name = folder / "scheduler/scheduler_config.json"
    schedule = json.loads(name.read_text()) | {"lambda_min_clipped": float("-inf")}
    name.write_text(json.dumps(schedule))
    assert "-Infinity" in name.read_text()
    assert Catalog(folder.parents[1]).find("checkpoint", folder.name)


def test_a_recipe_with_such_a_folder_is_answered_in_words(tmp_path: Path) -> None:
    """And every other recipe with its picture."""
    house = House(tmp_path)
    folder = Path(shutil.copytree(DEMO, house.models / "checkpoints/it"))
    (folder / "text_encoder/config.json").write_text('{"num_hidden_layers": 1000000}')
    house.save("a.yaml", "prompt: a\ncheckpoint: it\n")
    house.save("b.yaml", "prompt: b\ncheckpoint: demo\nseed: 1\n")
    assert not house.once()
    assert "text_encoder/config.json says num_hidden_layers: 1000000; the limit is 100." in (
        house.error("a.yaml") or ""
    )
    assert house.pictures() == ["b/0001-1.png"]


def test_a_folder_that_vanishes_while_it_is_looked_at_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A share is unmounted at that moment: the next scan sees it again."""
    write_model(tmp_path / "loras/a.safetensors", kohya_lora_shapes())
    write_model(tmp_path / "Lora/b.safetensors", kohya_lora_shapes())
    real = os.stat

    def unmounted(path: Any, *more: Any, **flags: Any) -> os.stat_result:
        status = real(path, *more, **flags)
        if Path(path) == tmp_path / "loras":
            shutil.rmtree(path, ignore_errors=True)
        return status

    monkeypatch.setattr(os, "stat", unmounted)
    assert Catalog(tmp_path).inventory().loras == ("b",)
