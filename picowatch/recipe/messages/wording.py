"""Messages about wrong values: field, value, limit, remedy."""

import re

from picowatch.recipe import fields
from picowatch.recipe.messages.problems import shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.parts import PREPROCESSORS
from picowatch.recipe.written import SourceValue, number

TEXT = "text"
_RANGE = re.compile(r"[\d.]{1,20}?\.\.[\d.]{1,20}(?: step [\d.]{1,20})?")
EDITED = "Write the words you want."  # the remedy for prompt editing that a family cannot do
MAX_WARNINGS = 50  # of one entry
_NO_UNIT = "{1}, without a unit"
# For values in words that hold the first text: a pattern of what is written, what to write instead.
# Other digits than 0 to 9 match none.
_INSTEAD = (
    ("whole number", r"([1-9]\d?\d?),(\d{3})", "{1}{2}, without a comma"),
    ("a number", r"(\d{1,9}),(\d{1,9})", "{1}.{2}, with a point"),
    ("number", r"(?=\D|.*\D$)x?(\d{1,9}(?:\.\d)?) *(?:px|pixels?|x|steps|images?)?", _NO_UNIT),
    ("number from 0 to 1", r"(\d\d) *%", "0.{1}"),
    ("range", r"(\d{1,10}) *(?:[-–]|to) *(\d{1,10})", "{1}..{2} for a range"),
    ("512x768", r"(\d{2,4}) *(?:px|pixels?)?", "{1}x{1}"),
    ("512x768", r"\D{0,3}(\d{2,4})\D{1,9}(\d{2,4})\D{0,9}", "{1}x{2}"),
    # What spreadsheets write in German, French, Italian, Spanish and Dutch.
    ("true or false", "wahr|vrai|vero|verdadero|waar|ja|oui|sí?|si", "true"),
    ("true or false", "falsch|faux|falso|onwaar|nein|non|nee", "false"),
    ("", "(.{1,60}?) *[,;]", "{1}, without a comma at the end"),
    ("", "[“”„‟‘’‚«»]+(.{1,60}?)[“”„‟‘’‚«»]*", "{1}, without curly quotes"),
)
# For digits in place of a name: `{scale: 1,5}` has a scale of 1, and a 5 without a value.
DECIMAL_POINT = "A comma ends a number here; a decimal number has a point, like 1.5."


def wrong_value(field: str, written: SourceValue, wanted: str | None = None) -> str:
    """Return why a field cannot have this value; `wanted` overrides the field's own words."""
    row = (fields.ROWS | fields.SHORTHANDS | fields.PART_FIELDS).get(field)
    wanted = wanted or (row and row.wanted) or limits_in_words(field)
    name = field if " " in field else field.replace(".", " ")
    if written.value is None:
        value = "a name" if wanted == TEXT else wanted
        value = f"{name}: '' for empty text" if field in fields.PROMPTS else value
        return f"{name} has no value. Write {value}, or delete the field."
    text = str(written.value).strip()
    for part, pattern, words in _INSTEAD if not re.search(r"[^\D0-9]", text) else ():
        if part in wanted and (found := re.fullmatch(pattern, text, re.IGNORECASE)):
            instead = words.format(*map(shown, (found[0], *found.groups())))
            return f"{name} must be {wanted}. Write {instead}."
    value = shown(text)
    if isinstance(written.value, tuple | dict):
        value = shown(written.position.text)
    elif number(value) is None:
        value = f"'{value}'"
    return f"{name} must be {wanted}, not {value}. {_remedy(field, written)}".rstrip()


def _remedy(field: str, written: SourceValue) -> str:
    if isinstance(written.value, tuple | dict):
        return _instead_of_several(field, written)
    text = str(written.value).strip()
    if _RANGE.fullmatch(text) and field in fields.ROWS and field not in fields.NO_SWEEP:
        return _as_sweep(field, written)
    if text.casefold() == "none":
        return f"Leave out {field} for the default."
    value = number(text)
    if field == "cfg_scale" and value is not None and value < 1:
        return "1 switches guidance off."
    if field.startswith("resize_to.") and "megapixels" not in field:
        if "%" in text:
            return "For photos of many sizes, write longest_side or megapixels."
        if re.fullmatch(r"\d{1,3} *: *\d{1,3}", text):
            return "For a shape, write {width: 1600, height: 900, fit: cover}."
    if field == "resize" and value:
        return f"For the size of the result, write resize_to: {shown(text)}."
    if field == "upscale.scale" and value is not None and value < 1:
        return "It only enlarges. To keep the size, remove upscale."
    if field in ("width", "height") and value is not None and value > fields.MAX_SIDE:
        how = "hires: {scale: 2} to redraw it larger, or upscale: {scale: 4} to enlarge it."
        return f"For a larger picture, write a smaller size, and {how}"
    if field == "control" and text in PREPROCESSORS:
        return f"Write control: {{image: photo.png, model: …, preprocess: {text}}}."
    return ""


def _instead_of_several(field: str, written: SourceValue) -> str:
    text = written.position.text
    if field in fields.PROMPTS and any(part.value is not None for _, part in written.pairs):
        return "Write prompt: and negative_prompt: as two fields."
    if field in fields.PROMPTS and len(written.parts) > 1:
        sweep = "" if text.startswith("- ") else f", or sweep: {{{field}: {shown(text, 200)}}}"
        return f"A recipe has one {field}. For several pictures, write a recipe for each{sweep}."
    if field in fields.PROMPTS and text.startswith(("[", "{")):
        return f"For text, put it in quotes: {field}: {shown(quoted(text), 200)}"
    if field in (*fields.PICTURE_FIELDS, *fields.PROMPTS, "from"):
        return "For several pictures, write a recipe for each."
    if field in fields.ROWS and field not in fields.NO_SWEEP and text.startswith("["):
        return _as_sweep(field, written)
    return ""


def _as_sweep(field: str, written: SourceValue) -> str:
    """Return the remedy for several values of a field that a sweep can vary."""
    values = shown(written.position.text, 200)
    return f"For an image with each value, write sweep: {{{field}: {values}}}"


def quoted(text: str) -> str:
    """Return the text as a YAML single-quoted scalar."""
    return "'" + text.replace("'", "''") + "'"


def given_twice(name: str, before: SourceValue, column: str = "") -> str:
    """Return the message about a name whose field has a value already, in a CSV from a `column`."""
    position = before.name_position
    other = column or position.text.strip("-'\"")
    called = f" as '{shown(other)}'" if before.key and other != name.strip("-") else ""
    return f"'{shown(name)}' is given twice: already on line {position.line}{called}. Keep one."


def not_multiple_of(multiple: int, field: str, value: int) -> str:
    """Return the message about a size that is not a multiple, with the nearest that are."""
    below = value - value % multiple
    return f"{field} must be a multiple of {multiple}: {below} or {below + multiple} would do."


def left_out(what: str) -> str:
    """Return the warning about another program's setting that recipes do not have."""
    return f"Recipes have no '{shown(what)}' setting; it was ignored."


def embedding_missing(name: str) -> str:
    """Return the warning about a word of a prompt that should name an embedding."""
    return (
        f"The prompt's '{shown(name)}' is used as plain words, because no embedding of that name "
        "is in models/embeddings. Put its file there, or remove the word."
    )


def cannot_edit(family: str, words: str) -> str:
    """Return the message about prompt editing for a family that reads one prompt for all steps."""
    why = f"{shown(words)} is for Stable Diffusion."
    return f"{family} cannot change words between the steps: {why}"


def limits_in_words(field: str) -> str:
    """Return the values of a field, or of the elements of its list, by its type and limits."""
    schema = fields.json_schemas()[field]
    schema = schema.get("anyOf", [schema])[0]
    kind = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
    if "enum" in schema:
        return listed([word for word in schema["enum"] if word], "or")
    words = kind.get(schema.get("type", ""), TEXT)
    if "minimum" in schema and "maximum" in schema:
        words += f" from {schema['minimum']:.10g} to {schema['maximum']:.10g}"
    elif "exclusiveMinimum" in schema and "maximum" in schema:
        words += f" above {schema['exclusiveMinimum']:.10g}, up to {schema['maximum']:.10g}"
    return words
