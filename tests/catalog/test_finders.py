"""Folders of models that find things by words: which are used, and why others are not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from picowatch.catalog import Catalog
from picowatch.catalog.finders import network_in
from tests.catalog.files import refused_in, write_model

BACKBONE = {"model_type": "swin", "depths": [2, 2]}
CONFIGS: dict[str, dict[str, Any]] = {
    "sam3": {"model_type": "sam3", "text_config": {"model_type": "clip_text_model"}},
    "dino": {"model_type": "grounding-dino", "backbone_config": BACKBONE},
    "clipseg": {"model_type": "clipseg", "vision_config": {"model_type": ""}},
    "sam": {"model_type": "sam"},
}
# facebook's own folder of SAM 3, which tracks things in videos, too.
CONFIGS["video"] = {"model_type": "sam3_video", "detector_config": CONFIGS["sam3"]}
PREPROCESSOR = "preprocessor_config.json"
PIXELS = {"size": {"height": 352, "width": 352}, "image_processor_type": "Evil"}


def write(models: Path, kind: str, name: str = "", mark: int = 2, **more: Any) -> Path:
    """A folder with a config, a vocabulary and weights of one tensor, whose size `mark` tells."""
    folder = models / "segmentation" / (name or kind)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[kind] | more))
    (folder / PREPROCESSOR).write_text(json.dumps(PIXELS))
    (folder / "tokenizer.json").write_text("{}")
    write_model(folder / "model.safetensors", {"a": (mark, 2)})
    return folder


def test_the_best_comes_first(tmp_path: Path) -> None:
    """Outlines come before areas, areas before boxes, and the larger of one kind first."""

    def names() -> tuple[str, ...]:
        return Catalog(tmp_path).inventory().segmentations

    for number, (kind, name) in enumerate([("clipseg", ""), ("dino", "tiny"), ("dino", "base")]):
        write(tmp_path, kind, name, mark=2 + number)
    assert names() == ("clipseg", "base", "tiny")
    write(tmp_path, "sam")
    assert names() == ("base", "tiny", "clipseg")
    write(tmp_path, "video")
    assert names() == ("video", "base", "tiny", "clipseg")


def test_the_largest_sam_completes_each_grounding_dino(tmp_path: Path) -> None:
    """They have one name and one hash, which is of both."""
    write(tmp_path, "dino")
    catalog = Catalog(tmp_path)

    def digest() -> str:
        return catalog.sha256(catalog.find("segmentation", "dino"))

    alone = digest()
    write(tmp_path, "sam", "sam-base")
    together = digest()
    huge = write(tmp_path, "sam", "sam-huge", mark=9)
    model = catalog.find("segmentation", "dino")
    assert [part.folder for part in model.parts] == [huge]
    assert len({alone, together, digest()}) == 3


def without(name: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).unlink()


def cut(folder: Path) -> None:
    write_model(folder / "model.safetensors", {"a": (2, 2)}, missing_bytes=4)


def written(name: str, **values: Any) -> Callable[[Path], Any]:
    return lambda folder: (folder / name).write_text(json.dumps(values))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


REFUSED: list[tuple[str, Callable[[Path], Any], str]] = [
    ("dino", without("tokenizer.json"), "is a folder without a vocabulary in dino/ (tokenizer.js"),
    ("clipseg", without(PREPROCESSOR), "clipseg/preprocessor_config.json is missing"),
    ("sam3", without("model.safetensors"), "without weights in sam3/"),
    ("sam3", pickled, "only as pickle files (.bin), which can run code"),
    ("dino", cut, "its file dino/model.safetensors is cut off: 4 of 8"),
    ("dino", written("config.json", model_type="owlv2"), "is the folder of another model (owlv2)"),
    ("dino", written("config.json", **CONFIGS["dino"], x={"model_type": "timm"}), "inside (timm)"),
    ("sam", written("config.json", model_type="sam", layers=10**9), "says layers: 1000000000; the"),
    ("sam", written(PREPROCESSOR, size={"longest_edge": 10**6}), "size: 1000000; the"),
]


@pytest.mark.parametrize(("kind", "change", "words"), REFUSED)
def test_others_are_refused(
    tmp_path: Path, kind: str, change: Callable[[Path], Any], words: str
) -> None:
    change(write(tmp_path, kind))
    assert words in refused_in(tmp_path)
    assert not Catalog(tmp_path).scan().models


@pytest.mark.parametrize("folder", ["segmentation", "sams", "grounding-dino", "adetailer"])
def test_a_detector_of_yolo_is_refused_with_the_remedy(tmp_path: Path, folder: str) -> None:
    """It is a pickle; in other programs' folders, too."""
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "face_yolov8n.pt").write_bytes(b"PK")
    reason = refused_in(tmp_path)
    assert "face_yolov8n.pt is a pickle file" in reason
    assert "hf download IDEA-Research/grounding-dino-tiny" in reason


def test_no_backbone_comes_from_another_library(tmp_path: Path) -> None:
    """Nor from the network: such keys of a config are dropped."""
    given: dict[str, Any] = {
        "use_timm_backbone": True,
        "backbone": "x/y",
        "use_pretrained_backbone": True,
    }
    _, config = network_in(write(tmp_path, "dino", **given))
    assert config == CONFIGS["dino"]
