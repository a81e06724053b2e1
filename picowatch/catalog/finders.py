"""Recognises folders of models that find places in a picture by words, or tell its depth.

They are in transformers' layout. The table is an allowlist: the engine loads no other classes,
whatever a config names. Processors of pictures get only the keys of their configs that are known.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from picowatch.catalog.folder_files import check_vocabulary, known_values, read_config, read_json
from picowatch.catalog.models import Kind, Model, Part, Recognised
from picowatch.errors import ModelRefused
from picowatch.recipe.messages.problems import shown

DINO, SAM = "Grounding DINO", "SAM"
PIXELS_FILE = "preprocessor_config.json"
_PIXELS = "size pad_size image_mean image_std resample"
_MOST_PIXELS = 4096  # of a side that a network sees; SAM 3 sees the most, 1008
# Keys that would load a backbone of another library, or from the network.
_OTHER_BACKBONES = ("backbone", "backbone_kwargs", "use_timm_backbone", "use_pretrained_backbone")


@dataclass(frozen=True, slots=True)
class FolderRow:
    """A kind of folder, with the names of transformers' classes."""

    name: str
    does: str
    class_name: str
    words: str  # the class of its tokenizer, "" for none
    pixels: str  # the class of its processor of pictures, "" for none
    inside: tuple[str, ...]  # how the types of configs inside its own begin
    within: str = ""  # where its config is in that of a folder which is more than the finder
    prefix: str = ""  # … and how its tensors' names begin there
    narrow: bool = False  # it computes in 16 bits where flow families do, as its authors compute
    kind: Kind = "segmentation"


NETWORKS = {  # by the `model_type` of a folder's config
    "sam3": FolderRow(
        "SAM 3", "finds things with their outlines", "Sam3Model", "CLIPTokenizer",
        "ViTImageProcessorPil", ("sam3", "clip_text_model"), narrow=True,
    ),
    "grounding-dino": FolderRow(
        DINO, "finds things in boxes", "GroundingDinoForObjectDetection", "BertTokenizer",
        "GroundingDinoImageProcessorPil", ("bert", "swin"),
    ),
    "clipseg": FolderRow(
        "CLIPSeg", "finds areas", "CLIPSegForImageSegmentation", "CLIPTokenizer",
        "ViTImageProcessorPil", ("clipseg",),
    ),
    "sam": FolderRow(
        SAM, f"outlines what {DINO} finds", "SamModel", "", "SamImageProcessorPil", ("sam_",),
    ),
    "depth_anything": FolderRow(
        "Depth Anything", "tells depths", "DepthAnythingForDepthEstimation", "", "", ("dinov2",),
        kind="depth",
    ),
}  # fmt: skip
NETWORKS |= {
    "sam3_video": replace(NETWORKS["sam3"], within="detector_config", prefix="detector_model."),
    "mm-grounding-dino": replace(
        NETWORKS["grounding-dino"], class_name="MMGroundingDinoForObjectDetection"
    ),
}
DOES = {row.name: row.does for row in NETWORKS.values()}
_NAMES = ("SAM 3", "Grounding DINO with SAM", "CLIPSeg", "Grounding DINO")  # the best first
IS_PICKLE = (  # ADetailer's detectors, and the first files of Grounding DINO and SAM
    "is a pickle file, which can run code when it is opened (YOLO's detectors are code, too): get "
    "the folder of Grounding DINO, which finds by words (hf download IDEA-Research/"
    "grounding-dino-tiny --local-dir models/segmentation/grounding-dino-tiny), and for outlines "
    "that of SAM (facebook/sam-vit-base)."
)


def network_in(folder: Path) -> tuple[FolderRow, dict[str, Any]]:
    """Return a folder's kind and its config. Raises ModelRefused for any other model."""
    config = read_config(folder / "config.json")
    row = NETWORKS.get(str(config.get("model_type")))
    values = config.get(row.within) if row and row.within else config
    if row is None or not isinstance(values, dict):
        raise ModelRefused(
            f"is the folder of another model ({shown(str(config.get('model_type')))}): "
            "picowatch finds by SAM 3, Grounding DINO and CLIPSeg, outlines by SAM, and tells "
            "depths by Depth Anything."
        )
    backbone = values.get("backbone_config")
    if row.kind == "depth" and not (isinstance(backbone, dict) and backbone.get("model_type")):
        raise ModelRefused(f"is a {row.name} without a known network inside.")
    for kind in _types_within(values):
        if not kind.startswith(row.inside):
            raise ModelRefused(f"is a {row.name} with another network inside ({shown(kind)}).")
    return row, {name: value for name, value in values.items() if name not in _OTHER_BACKBONES}


def _types_within(config: dict[str, Any]) -> Iterator[str]:
    for value in config.values():
        if isinstance(value, dict):
            if kind := value.get("model_type"):
                yield str(kind)
            yield from _types_within(value)


def pixels_config(folder: Path) -> dict[str, Any]:
    """Return the known values of the config of a folder's processor of pictures."""
    values = known_values(PIXELS_FILE, read_json(folder / PIXELS_FILE), _PIXELS)
    for name in ("size", "pad_size"):
        sides = values.get(name, {})
        for side in sides.values() if isinstance(sides, dict) else [sides]:
            if type(side) is not int or not 0 < side <= _MOST_PIXELS:
                raise ModelRefused(
                    f"cannot be used: {PIXELS_FILE} says {name}: {shown(str(side))}; "
                    f"the limit is {_MOST_PIXELS}."
                )
    return values


def recognise_network(folder: Path) -> Recognised:
    """Recognise the folder of a network in the table. Raises ModelRefused."""
    row, _ = network_in(folder)
    if row.pixels:
        pixels_config(folder)
    if row.words:
        check_vocabulary(folder)
    return Recognised(row.kind, "", variant=row.name)


def outlined(models: Sequence[Model]) -> list[Model]:
    """Return the models, with each Grounding DINO completed by the largest SAM."""
    sams = [model for model in models if model.variant == SAM]
    if not sams:
        return [*models]
    largest = max(sams, key=lambda sam: sam.bytes)
    parts = (Part("outlines", NETWORKS["sam"].class_name, largest.path),)
    return [replace(own, parts=parts) if own.variant == DINO else own for own in models]


def finders_in(models: Sequence[Model]) -> tuple[str, ...]:
    """Return the names of those that find by themselves, the best first, the larger of two."""

    def order(model: Model) -> tuple[int, int]:
        name = f"{model.variant} with SAM" if model.parts else model.variant
        return _NAMES.index(name), -model.bytes

    finders = [model for model in models if model.variant != SAM]
    return tuple(finder.name for finder in sorted(finders, key=order))
