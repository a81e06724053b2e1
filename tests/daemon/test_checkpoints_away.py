"""The only checkpoint cannot be used for a while: nothing is rendered with the demo instead."""

from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path

import pytest

from picowatch.commands.check import check
from picowatch.errors import RenderFailed
from picowatch.recipe.request import ImageRequest
from picowatch.work import worker
from tests.catalog.files import sd15_shapes, write_model
from tests.house import House, wait_for

RECIPE = "prompt: a corgi\nseed: 1\nsize: 64x64\n"


def half_copied(house: House) -> Callable[[], object]:
    path = house.models / "checkpoints/mine.safetensors"
    write_model(path, sd15_shapes(), missing_bytes=1000)
    return lambda: write_model(path, sd15_shapes())


def models_away(house: House) -> Callable[[], object]:
    house.models.rmdir()
    return _away(house, house.models, "checkpoints/mine.safetensors")


def models_missing(house: House) -> Callable[[], object]:
    house.models.rmdir()
    return lambda: write_model(house.models / "checkpoints/mine.safetensors", sd15_shapes())


def linked_folder_away(house: House) -> Callable[[], object]:
    return _away(house, house.models / "checkpoints/disk", "mine.safetensors")


def _away(house: House, link: Path, file: str) -> Callable[[], object]:
    """What mounts the disk that the link leads to."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(house.folder / "disk")
    return lambda: write_model(house.folder / "disk" / file, sd15_shapes())


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (half_copied, "mine.safetensors is cut off"),
        (models_away, "models is a link that leads nowhere"),
        (models_missing, "models does not exist"),
        (linked_folder_away, "disk cannot be read: its link leads nowhere"),
    ],
)
def test_the_demo_does_not_stand_in_for_a_checkpoint_that_cannot_be_used(
    house: House,
    capsys: pytest.CaptureFixture[str],
    prepare: Callable[[House], Callable[[], object]],
    said: str,
) -> None:
    """Only a recipe that names it is rendered with it."""
    install = prepare(house)
    path = house.save("a.yaml", RECIPE)
    house.save("b.yaml", f"{RECIPE}checkpoint: demo\n")
    assert not house.once()
    error = house.error("a.yaml") or ""
    assert "no checkpoint is named, and none that is installed can be used" in error
    assert said in error
    assert "write 'checkpoint: demo'" in error
    assert check(house.settings(), [path], as_json=False) == 1
    assert said in capsys.readouterr().err
    assert [house.chunk(one).request.checkpoint for one in house.pictures()] == ["demo"]
    install()
    path.touch()
    assert house.once()
    (picture,) = house.pictures("a")
    assert house.chunk(picture).request.checkpoint in ("mine", "disk/mine")


def test_images_wait_while_the_models_are_not_mounted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None fails, though the engine finds no checkpoint; the demo model's own failures count."""
    monkeypatch.setattr(worker, "RESTART_SECONDS", 0.01)
    monkeypatch.setattr(worker, "START_AGAIN_SECONDS", 0.01)
    mounted, away = house.models / "checkpoints", house.folder / "away"
    write_model(mounted / "mine.safetensors", sd15_shapes())

    calls = count(1)

    def load(batch: Sequence[ImageRequest]) -> None:
        call = next(calls)
        if call == 1:
            mounted.rename(away)
        if call == 4:
            wait_for(lambda: "There is no model in" in str(house.status()["trouble"]))
            assert not house.status()["images"]["failed"]
            away.rename(mounted)
        if call <= 4 or batch[0].checkpoint == "demo":
            raise RenderFailed(f"There is no checkpoint {batch[0].checkpoint!r}.")

    house.engine.before_batch = load
    house.save("a.yaml", "prompt: a\nseed: [1, 2]\nsize: 64x64\n")
    with house.running(batch_size=1):
        wait_for(lambda: house.seeds() == [1, 2])
        assert house.log().count("Trying again every minute") == 1
        mounted.rename(away)
        house.save("b.yaml", "prompt: b\nseed: 3\ncheckpoint: demo\n")
        wait_for(lambda: house.status()["images"]["failed"] == 1)
