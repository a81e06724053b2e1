"""Processors of vision-language encoders, without torchvision.

transformers' processors of Qwen2-VL and Qwen3-VL have a part for videos that needs torchvision when
it is created. Here they have only an image processor, by Pillow, and a tokenizer. The results are
those of the whole processor (docs/design.md).
"""

from pathlib import Path
from typing import Any

import transformers

from picowatch.catalog.folder_files import read_json
from picowatch.engine.model.part_files import own_class

_T: Any = transformers
_MARKS = {"image": "<|image_pad|>", "video": "<|video_pad|>", "vision_start": "<|vision_start|>"}
_MARKS |= {"vision_end": "<|vision_end|>"}


def read_processor(folder: Path, class_name: str) -> Any:
    """Return the processor of a diffusers folder, without videos if it is Qwen's."""
    kind = own_class(class_name, _T.ProcessorMixin)
    if not class_name.startswith("Qwen"):
        return kind.from_pretrained(folder, local_files_only=True)
    pixels = read_image_processor(folder)
    words = _T.Qwen2TokenizerFast.from_pretrained(folder, local_files_only=True)
    template = words.chat_template or read_json(folder / "chat_template.json").get("chat_template")
    return without_videos(kind)(pixels, words, chat_template=template)


def read_image_processor(folder: Path) -> Any:
    """Return the image processor of a diffusers folder, by Pillow."""
    return _T.AutoImageProcessor.from_pretrained(folder, backend="pil", local_files_only=True)


def without_videos(kind: Any) -> Any:
    """Return a subclass without videos: the names of its constructor's arguments are its parts."""

    class Processor(kind):  # type: ignore[misc]
        def __init__(self, image_processor: Any, tokenizer: Any, chat_template: Any = None) -> None:
            for name, mark in _MARKS.items():
                setattr(self, f"{name}_token", mark)
                setattr(self, f"{name}_token_id", tokenizer.convert_tokens_to_ids(mark))
            _T.ProcessorMixin.__init__(
                self, image_processor, tokenizer, chat_template=chat_template
            )

    return Processor


def number_pictures(text_encoder: Any) -> None:
    """Tell Qwen2.5-VL which of its tokens belong to pictures.

    transformers 5 numbers the positions of pictures by `mm_token_type_ids`, which diffusers 0.42
    does not pass (https://github.com/huggingface/diffusers/issues/14194): without them, each
    picture is read as if it were text. Does nothing if they are passed.
    """
    image = text_encoder.config.image_token_id

    def add(_: Any, given: Any, named: dict[str, Any]) -> Any:
        if named.get("image_grid_thw") is not None and named.get("mm_token_type_ids") is None:
            named["mm_token_type_ids"] = (named["input_ids"] == image).int()
        return given, named

    text_encoder.register_forward_pre_hook(add, with_kwargs=True)
