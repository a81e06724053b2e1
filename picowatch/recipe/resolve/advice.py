"""Warnings about recipes that may not do what was meant, and fields that change nothing."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, islice
from operator import attrgetter

from picowatch.families.row import DEMO
from picowatch.recipe import fields
from picowatch.recipe.converters import RANDOM, SAME, seed_in
from picowatch.recipe.installed import is_whole_name
from picowatch.recipe.inventory import DEMO_CUTOUT, DEMO_FIND, Checkpoint, Inventory
from picowatch.recipe.messages.other_programs import probable_mistakes
from picowatch.recipe.messages.problems import Finding, shown
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.messages.wording import MAX_WARNINGS, embedding_missing
from picowatch.recipe.passes import samplings
from picowatch.recipe.prompts import grammar
from picowatch.recipe.prompts.drawing import NEGATIVE
from picowatch.recipe.prompts.editing import edits_in
from picowatch.recipe.recipe import Recipe, no_hash
from picowatch.recipe.resolve.layers import is_about_drawing, only_details
from picowatch.recipe.samplers import WASTED_ON_PURE_NOISE
from picowatch.recipe.written import Entry, Layer, Origin, SourceValue, is_on

_V_PREDICTION = re.compile(r"(?i)v[-_ ]?pred")
_MOST_CHARACTERS = 100_000  # of texts searched for unknown words
_HASH_DIGITS = 10  # of those that pictures have
# In a picture; searching for all that a hostile picture could name would take minutes.
_MOST_EMBEDDINGS = 200
# Without a start image the denoising strength is that of hires.
_NEEDS = fields.NEEDS | {"denoising_strength": ("image", "hires")}
_TOLD = attrgetter("name", "replace", "notes")  # of a recipe, which change no pixel
_OF_GUIDANCE = ("cfg_rescale", "cfg_start", "cfg_end")
_FOR_DRAWINGS = (
    "demo-cutout was trained only on the demo model's drawings, and is of little use for other "
    "pictures. Put a model into models/cutout/ (docs/models.md, Cutout models)."
)


def advice(images: Sequence[Recipe], own: Layer) -> Iterator[str]:
    """Yield warnings about an entry's images; `own` is what the file says."""
    yield from images[0].refused_embeddings()
    yield from islice(_about_prompts(own, images[0].position.source.name), MAX_WARNINGS)
    for field in [name for name, written in own.items() if written.origin is Origin.OWN]:
        whys = [why_idle(image, field) for image in images]
        if all(whys) and getattr(images[0], field) != fields.DEFAULTS[field]:
            yield f"{field} {whys[0]}."
    seed, seeds = own.get("seed"), images[0].seed
    count = (len(seed.parts) or seed.text.count(",") + 1) if seed else 0
    if isinstance(seeds, tuple) and count > len(seeds):
        yield "seed repeats a value: equal seeds make one image."
    for recipe in images:
        yield from recipe.warnings
        if recipe.draws:
            yield from checkpoint_advice(recipe)
            if "colour" in own and recipe.colour == SAME and not recipe.leaves_a_part:
                yield "colour: same has no effect here: what a model draws has the colours of sRGB."
        if recipe.cutout and recipe.cutout.model == DEMO_CUTOUT and recipe.checkpoint != DEMO:
            yield _FOR_DRAWINGS


def why_idle(recipe: Recipe, field: str) -> str:
    """Return why a field changes nothing beside the recipe's other values; "" if it does."""
    able = fields.ROWS[field].samplers if field in fields.ROWS else ()
    if able and recipe.sampler not in able:
        return f"has no effect with the sampler {recipe.sampler}: it is for {listed(able)}"
    if field in _OF_GUIDANCE and recipe.cfg_scale == 1:
        return "has no effect at cfg_scale 1"
    if field in _OF_GUIDANCE and recipe.cfg_start and recipe.cfg_start >= recipe.cfg_end:
        is_rescale = field == "cfg_rescale"
        why = "has no effect without guidance" if is_rescale else "leaves no step with guidance"
        return f"{why}: cfg_start has to be below cfg_end"
    if field == "quality" and recipe.format in ("png", "tiff") and recipe.quality != "lossless":
        return "has no effect in png and tiff: it is for jpeg, webp and avif"
    return ""


def _about_prompts(own: Layer, recipe_file: str) -> Iterator[str]:
    """Yield what is hardly meant in prompts, naming the file beside a picture that has a prompt."""
    for prompt in (own[field] for field in fields.PROMPTS if field in own):
        file = prompt.position.source.name
        where = f" (in {shown(file)})" if file != recipe_file else ""
        yield from (words + where for words in probable_mistakes(prompt.text))


def unlike_the_picture(
    layer: Layer, entry: Entry, checkpoint: Checkpoint, inventory: Inventory
) -> Iterator[str]:
    """Yield warnings about files that another picture was made with, and that are not these."""
    written = layer.get("checkpoint")
    if written and written.origin is Origin.FOREIGN:
        yield from _another_checkpoint(entry.checkpoint_hash.casefold(), written, checkpoint)
    if not checkpoint.rules.flow:
        yield from _missing_embeddings(layer, entry.embeddings, inventory)


def _another_checkpoint(begins: str, written: SourceValue, checkpoint: Checkpoint) -> Iterator[str]:
    # Shorter hashes are from A1111 before 2023, which hashed in another way.
    if checkpoint.hash and len(begins) >= _HASH_DIGITS:
        if not checkpoint.hash.startswith(begins):
            what = f"the checkpoint '{shown(checkpoint.name)}' is another file than the picture's"
            own, other = checkpoint.hash[:_HASH_DIGITS], shown(begins[:_HASH_DIGITS])
            yield f"{what}: its hash begins {own}, the picture's {other}."
    elif checkpoint.name and not is_whole_name(written.text, checkpoint.name):
        what = f"the picture's checkpoint '{shown(written.text)}' is taken for"
        yield f"{what} '{shown(checkpoint.name)}', which may be another one."


def _missing_embeddings(layer: Layer, embeddings: str, inventory: Inventory) -> Iterator[str]:
    entries = embeddings.split(",")[:_MOST_EMBEDDINGS]
    names = [entry.partition(":")[0].strip() for entry in entries]
    here = (*inventory.embeddings, *inventory.refused_as("embedding"))
    words = {name.rpartition("/")[2].casefold() for name in here}
    away = tuple(name for name in names if name.rpartition("/")[2].casefold() not in {"", *words})
    for prompt in [layer[field] for field in fields.PROMPTS if field in layer]:
        text = grammar.without_loras(prompt.text) if prompt.origin is Origin.FOREIGN else ""
        found = {name for *_, name in grammar.embedding_words(text, away)}
        yield from map(embedding_missing, sorted(found))


def with_equal_images(recipes: list[Recipe]) -> list[Recipe]:
    """Add a warning about images for which several entries ask: each is made once."""
    alike = defaultdict[str, list[int]](list)
    for index, recipe in enumerate(recipes if len(recipes) > 1 else ()):
        if not recipe.wants_random_seed:
            # Whatever its seeds, but those of a sweep.
            none = {} if recipe.sweep else {"seed": 0, "count": 1, "variation_seed": None}
            alike[recipe.with_values(**none).digest(no_hash)].append(index)
    for entries in alike.values():
        seeds = {index: set(recipes[index].seeds) for index in entries}
        asked = Counter(chain.from_iterable(seeds.values()))
        if not (again := {seed for seed, times in asked.items() if times > 1}):
            continue
        first, *others = [index for index in entries if not again.isdisjoint(seeds[index])]
        differ = any(_TOLD(recipes[other]) != _TOLD(recipes[first]) for other in others)
        count = len(again) * len(recipes[first].variants)
        what = (
            f"entries {listed([str(index + 1) for index in (first, *others)])} ask for the same "
            f"{'image, which is' if count == 1 else f'{count:,} images, which are'} made once"
            f"{f', with the name and notes of entry {first + 1}' * differ}."
        )
        recipes[others[0]].warned(what)
    return recipes


def with_unknown_words(recipes: list[Recipe], inventory: Inventory) -> list[Recipe]:
    """Warn of words that each of the demo's models was not taught, unless LoRAs may teach them."""
    variants = [variant for recipe in recipes for variant in recipe.variants]
    demo, taught = inventory.demo, inventory.demo.known_words
    drawn = [v for v in variants if v.draws and v.checkpoint == demo.name]
    texts_of = {text: v for v in drawn for field, text in v.texts if not field.endswith(NEGATIVE)}
    prompts = [text for text, of in texts_of.items() if not (of.loras or grammar.lora_tags(text))]
    finders = (part for v in variants for part in (v.found_mask, *v.detail, v.cutout))
    looked_for = [part.find for part in finders if part and part.find and part.model == DEMO_FIND]
    for name, known, texts in (
        (demo.name, taught and taught.and_names(inventory.embeddings), prompts),
        (DEMO_FIND, inventory.findable, [*dict.fromkeys(looked_for)]),
    ):
        before = accumulate(map(len, texts), initial=0)
        few = [text for text, size in zip(texts, before, strict=False) if size < _MOST_CHARACTERS]
        unknown = [word for text in few for word in known.unknown_in(text)] if known else []
        if known and unknown:
            words = listed([f"'{shown(word, 30)}'" for word in dict.fromkeys(unknown)], most=5)
            subjects = listed(known.subjects, most=len(known.subjects))
            what = f"the {shown(name)} model does not know {words}; it knows {subjects}."
            recipes[0].warned(what)
    return recipes


def checkpoint_advice(recipe: Recipe) -> Iterator[str]:
    """Yield warnings about what its checkpoint ignores in a recipe that it can render."""
    checkpoint = recipe.checkpoint_used
    name = shown(checkpoint.name)
    texts = (grammar.without_loras(text) for _, text in recipe.texts)
    pieces = chain.from_iterable(map(grammar.parse_attention, texts))
    if checkpoint.rules.flow and any(weight != 1 for _, weight in pieces):
        yield f"{checkpoint.family} reads prompts as plain text: weights and BREAK were ignored."
    drawn = [sampling for sampling in samplings(recipe) if sampling.evaluations]
    late = (
        written
        for _, text in recipe.texts
        if drawn and not recipe.detail  # details have steps of their own
        for written, edit in edits_in(text)
        if edit.when and not any(edit.option(each.evaluations - 1, each) for each in drawn)
    )
    for written in islice(late, MAX_WARNINGS):
        what = f"the words of '{shown(written)}' never change: the picture is finished before."
        yield f"{what} Write an earlier step, or a smaller share of the steps."
    if recipe.cfg_scale == 1 and recipe.negative_prompt:
        yield "The negative prompt was ignored: it has no effect at cfg_scale 1."
    if not checkpoint.rules.guided and recipe.cfg_scale > 1:
        what = f"The checkpoint '{name}' was trained for cfg_scale 1: a higher one takes longer"
        yield f"{what}, and may change nothing or make pictures worse."
    if recipe.prediction == fields.ZERO_SNR and recipe.schedule_type in WASTED_ON_PURE_NOISE:
        what = f"The schedule type '{recipe.schedule_type}' spends most steps near pure noise"
        yield f"{what}, where '{name}' draws little: sgm_uniform suits it."
    is_said = recipe.prediction or checkpoint.says_prediction
    if not is_said and _V_PREDICTION.search(checkpoint.name):
        what = f"only the name of the checkpoint '{name}' says v-prediction."
        remedy = "write 'prediction: v_zero_snr' or 'prediction: v'."
        yield f"{what} If its pictures are noise, {remedy}"


def idle_findings(layer: Layer, images: Sequence[Recipe]) -> Iterator[Finding]:
    """Find fields that change no image of an entry; a folder's defaults may be for others."""
    is_repaired = only_details(layer)
    layer = {name: w for name, w in layer.items() if w.origin is not Origin.FOLDER}
    if is_repaired or not images[0].draws:
        for field in layer:
            if is_about_drawing(field, layer[field]) and (field in fields.WHOLE or not is_repaired):
                yield _without(field, ("prompt",), layer)
        return
    switched_off = {name for name in layer if layer[name].origin is Origin.OWN}
    for field, needs in _NEEDS.items():
        said = layer.get(field)
        # Other programs write a random seed where they use no variation.
        if not said or said.is_none or (field == "variation_seed" and seed_in(said) == RANDOM):
            continue
        # If the needed field is set but wrong, or off on purpose, nothing has to be added.
        if any(is_on(layer, need) or any(getattr(i, need) for i in images) for need in needs):
            continue
        if said.origin is Origin.FOREIGN and not switched_off.isdisjoint(needs):
            switched_off.add(field)  # the recipe itself turned it off
        else:
            yield _without(field, needs, layer)


def _without(field: str, needs: Sequence[str], layer: Layer) -> Finding:
    places = [layer[side].position for side in ("width", "height") if side in layer]
    name = "size" if field in ("width", "height") and len(places) > len({*places}) else field
    what = f"{name} has no effect without {' or '.join(needs)}."
    inside = "prompt" in needs and name in fields.PARTS["detail"] and "detail" in layer
    remedy = f"Add it, or {f'write {name} inside detail' if inside else f'remove {name}'}."
    return Finding(field, what, remedy, "", position=layer[field].name_position)
