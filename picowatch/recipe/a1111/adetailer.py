"""The keys of A1111's extension ADetailer: each pass of it becomes an entry of `detail`."""

import re
from collections.abc import Mapping

from picowatch.recipe.a1111.keys import DETAIL_KEYS
from picowatch.recipe.fields import PROMPTS
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.read.foreign import ForeignSettings, final
from picowatch.recipe.written import switch

NAME = "adetailer "
_KEY = re.compile(rf"{NAME}(?P<name>.+?)(?: (?P<number>\d{{1,2}})(?:nd|rd|th))?")
# What the models of its users find, by a part of their names.
_FINDS = {
    "face": "face", "hand": "hand", "person": "person", "people": "person", "body": "person",
    "eye": "eyes", "hair": "hair", "cloth": "clothes",
}  # fmt: skip
# Keys that are read with another key.
_WITH_OTHERS = ("tab enable", "steps")
_SEVERAL = "[SEP]"  # between prompts for one thing each


def read_details(said: Mapping[str, str], found: ForeignSettings) -> None:
    """Read the passes that a text names, by its keys in lower case, with their warnings."""
    passes: dict[int, dict[str, str]] = {}
    for key, text in said.items():
        if (match := _KEY.fullmatch(key)) and match["name"] != "version":
            passes.setdefault(int(match["number"] or 1), {})[match["name"]] = text
    for _, values in sorted(passes.items()):
        if detail := _detail(values, said, found):
            found.values.setdefault("detail", []).append(detail)


def _detail(
    values: dict[str, str], said: Mapping[str, str], found: ForeignSettings
) -> dict[str, str]:
    """Return a pass; nothing if it is off, or if nobody knows what its model finds."""
    model, words = values.pop("model", ""), values.pop("model classes", "")
    if model in ("", "None") or not _is_on(values, "tab enable", "True"):
        return {}
    words = words or next((finds for part, finds in _FINDS.items() if part in model.casefold()), "")
    if not words:
        found.leave_out("ADetailer model", model)
        return {}
    found.warn(
        f"'{shown(words)}' is found by a model of models/segmentation, not by {shown(model)}: "
        "other places may be redrawn."
    )
    detail = {"find": words, "size": said.get("size", "")}
    if _is_on(values, "use inpaint width height"):
        detail["size"] = f"{values.get('inpaint width')}x{values.get('inpaint height')}"
    for part, key in DETAIL_KEYS.items():
        is_used = part != "steps" or _is_on(values, "use separate steps")
        if is_used and (text := values.pop(key, "")):
            detail[part] = text
    for field in PROMPTS & detail.keys():
        detail[field] = final(_prompt(detail[field], found.values.get(field, ""), found))
    _warn_about(values, found)
    return {part: text for part, text in detail.items() if text}


def _prompt(text: str, own: str, found: ForeignSettings) -> str:
    """Return one prompt for all things, with the picture's own where it is named."""
    first, *others = text.split(_SEVERAL)
    if others:
        found.leave_out("ADetailer prompt", _SEVERAL.join(others).strip())
    return first.replace("[PROMPT]", own).strip()


def _is_on(values: Mapping[str, str], key: str, usual: str = "") -> bool:
    return switch(values.get(key, usual) or "false") is True


def _warn_about(values: Mapping[str, str], found: ForeignSettings) -> None:
    """Name what a recipe cannot say; with a switch that is off, a value changes nothing."""
    for key, text in values.items():
        is_told = key in _WITH_OTHERS or key.startswith(("inpaint ", "use "))
        if key == "inpaint only masked" and switch(text) is False:
            found.warn("ADetailer's whole picture as surroundings: only the part is drawn.")
        elif not is_told:
            found.leave_out(f"ADetailer {key}", text)
