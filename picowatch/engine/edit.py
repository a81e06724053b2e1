"""Draws from reference pictures, with one call of a pipeline per image.

Most pipelines use all pictures of a call for each of its prompts, so images with references never
share a call (diffusers 0.42; docs/design.md). All prompts of a batch are encoded before its first
step, so that text encoders are loaded once per batch where parts take turns in memory.
"""

from typing import Any, NamedTuple

from PIL import Image

from picowatch.engine.draw import Group, Prompted
from picowatch.engine.families import editor_of, pipeline_class, takes
from picowatch.engine.flow import FlowPasses
from picowatch.engine.references import Frame, read_references
from picowatch.recipe.passes import Pass
from picowatch.recipe.request import ImageRequest


class Edit(NamedTuple):
    """The references of one image in their frame, its texts, and the encoded texts."""

    frame: Frame
    pictures: list[Image.Image]
    texts: dict[str, str]
    read: list[Any]


class EditPasses(FlowPasses):
    """Passes with references: an image's conditions are an `Edit`."""

    def encode(self, request: ImageRequest) -> Prompted:
        """Implement `Passes.encode`; no images share a call."""
        rules = self.loaded.variant.references
        assert rules
        frame, pictures = read_references(self.job.start_images, request, rules)
        hashes = tuple(use.hash for use in request.references)
        texts = self._texts(request)
        read = [self.loaded.read_with(text, pictures, hashes) for text in texts.values()]
        edit = Edit(frame, pictures, texts, read)
        return Prompted(request.digest, edit, warnings=self._warnings(request))

    def run(self, group: Group, one: Pass, before: list[Image.Image] | None) -> list[Image.Image]:
        """Implement `Passes.run`."""
        self.loaded.bring_denoiser()
        (edit,) = group.conditions
        editor = editor_of(self.loaded.row, self.loaded.variant)
        inputs = {"image": edit.pictures if editor.many else edit.pictures[0]}
        inputs |= editor.inputs(edit.frame.size)
        call = pipeline_class(self.loaded.row, self.loaded.variant, "edit").__call__
        inputs |= {name: [text] for name, text in edit.texts.items() if takes(call, name)}
        read = editor.answers(edit.read)
        (drawn,) = self._call("edit", group, one, edit.frame.size, inputs, read)
        return [edit.frame.release(drawn, one.size)]
