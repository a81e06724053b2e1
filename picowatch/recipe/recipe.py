"""One entry of a recipe file with everything decided but the random seed."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import chain
from typing import Any, Self

from picowatch.recipe import fields
from picowatch.recipe.converters import RANDOM, SEEDS
from picowatch.recipe.files import PICTURE_KINDS, files_of, with_pictures
from picowatch.recipe.inventory import Checkpoint, Inventory
from picowatch.recipe.messages.problems import Problems, RecipeInvalid, Reporter
from picowatch.recipe.messages.wording import EDITED, cannot_edit
from picowatch.recipe.photo_names import filled
from picowatch.recipe.prompts.drawing import Prompts
from picowatch.recipe.prompts.editing import edits_in
from picowatch.recipe.request import (
    DIGEST_OMITS,
    OF_ENTRIES,
    ControlUse,
    DetailUse,
    EmbeddingUse,
    ImageRequest,
    LoraUse,
    ReferenceUse,
    digest_of,
    plain,
)
from picowatch.recipe.written import NOTE, Layer, Position, find_in

# Returns the sha256 of a file that a recipe names, by its kind, as in files.py, or "lora" or
# "embedding", and its name. Its errors reach the caller.
HashOf = Callable[[str, str], str]


@dataclass(frozen=True, kw_only=True)
class Recipe(fields.RecipeFields):
    """One entry: what it requests, and where it stands in its file.

    As `read_recipes` gives it everything is resolved: `checkpoint` and `vae` are names that are
    installed, `sampler` has no schedule type in its name, `schedule_type` is decided, `width`
    and `height` are set. Only a random seed is still to be drawn.
    """

    # What is known about it besides its values: where and how it was read.
    inventory: Inventory
    checkpoint_used: Checkpoint
    layer: Layer  # its fields as written
    position: Position
    lora_families: Mapping[str, str] = field(default_factory=dict)  # that it gives for its LoRAs
    swept_loras: frozenset[str] = frozenset()  # those whose weights a sweep varies
    combinations: tuple[Any, ...] = ()  # of a sweep
    warnings: tuple[str, ...] = ()  # on what was requested but cannot be honoured
    # Of a picture of which nothing (not `draws`) or only a part is drawn.
    picture_size: tuple[int, int] | None = None
    most_photo_pixels: int = fields.MAX_PHOTO_PIXELS  # the limit of what is enlarged
    is_transparent: bool = False  # that picture is, and stays so
    size_warning: str = ""
    draws: bool = True  # otherwise the start image is only finished
    # The paths of a dropped picture and its mask: their names are not part of the identity, so a
    # renamed picture is still the same request.
    dropped: frozenset[str] = frozenset()
    taken: datetime | None = None  # the dropped picture was, if its result's name tells it

    def known(self, **changes: Any) -> Self:
        """Change what is known about the recipe, and return it."""
        for name, value in changes.items():
            object.__setattr__(self, name, value)
        return self

    def warned(self, *warnings: str) -> Self:
        """Add warnings, without repeating any, and return the recipe."""
        return self.known(warnings=tuple(dict.fromkeys((*self.warnings, *warnings))))

    def with_values(self, **changes: Any) -> Self:
        """Return the same recipe with other values; `replace` would pass 80 others on."""
        return copy(self).known(**changes)

    def with_value(self, field: str, value: Any) -> Self:
        """The same recipe with another value of a field, or of a part like `hires.scale`."""
        field, _, part = field.partition(".")
        if part and field in fields.LISTS:  # another program's are used completely, or not at all
            index, whole = int(part.partition(".")[0]), getattr(self, field)
            value = whole[:index] + whole[index + 1 :]
        elif part:
            value = replace(getattr(self, field), **{part: value})
        return self.with_values(**{field: value})

    def says(self, field: str) -> bool:
        """Return whether its file, or the picture it starts from, sets a field."""
        return find_in(self.layer, field) is not None

    @property
    def size(self) -> str:
        """ "512x768"."""
        return f"{self.width}x{self.height}"

    @property
    def texts(self) -> list[tuple[str, str]]:
        """The prompts, and those of details, each with its field."""
        of = {"": self, **{f"detail.{at}.": detail for at, detail in enumerate(self.detail)}}
        return [(at + name, getattr(of[at], name)) for at in of for name in fields.PROMPTS]

    @property
    def draws_from_files(self) -> bool:
        """Return whether a prompt may name wildcard files, which the `digest` does not cover."""
        return any("__" in text for variant in self.variants for _, text in variant.texts)

    @property
    def given_size(self) -> tuple[int, int] | None:
        """The size of a given picture that its result has, whatever is drawn of it."""
        is_kept = not self.draws or self.only_details or (self.mask and not self.hires)
        is_kept = is_kept or self.mask_padding is not None
        return self.picture_size if is_kept else None

    @property
    def wants_random_seed(self) -> bool:
        """Return whether a seed has to be drawn before its images can be rendered."""
        varied = (v for v in self.variants if v.variation_strength)
        return self.seed == RANDOM or any(v.variation_seed is None for v in varied)

    @property
    def seeds(self) -> list[tuple[int, int | None]]:
        """The seed and variation seed of each image, or of its combinations, if none is random."""
        return [self._seeds(at, None) for at in range(self.image_count // len(self.variants))]

    @property
    def image_count(self) -> int:
        each = len(self.seed) if isinstance(self.seed, tuple) else self.count
        return each * len(self.variants)

    @property
    def variants(self) -> tuple[Self, ...]:
        """The combinations of a sweep, the last axis fastest; without a sweep the recipe itself."""
        return self.combinations or (self,)

    @property
    def notes(self) -> dict[str, str]:
        """The columns of a table that only pictures' metadata have."""
        return {n: w.text for n, w in self.layer.items() if n.startswith(NOTE) and w.text}

    @property
    def wants_sheet(self) -> bool:
        return self.grid or self.grid_seconds or bool(self.sweep)

    @property
    def mask_is_alpha(self) -> bool:
        """Return whether the masked picture is its own mask, by what is transparent in it."""
        return bool(self.mask) and self.mask in (self.image, *self.references[:1])

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """Field and path of the pictures that it and a sweep's combinations name."""
        found = dict[tuple[str, str], None]()
        for variant in self.variants:
            for file in files_of(variant):
                is_twice = (file.field == "mask" and variant.mask_is_alpha) or (
                    file.field.startswith("control") and file.name == variant.image
                )
                if file.kind in PICTURE_KINDS and not is_twice:
                    found[file.field, file.name] = None
        return [*found]

    def problem_at(self, field: str, message: str) -> RecipeInvalid:
        """Return an error at a field's position, for problems that only the caller can find."""
        reporter = Reporter(self.layer, Problems(), self.position)
        reporter.problems.add(reporter.position_of(field), message)
        return RecipeInvalid(reporter.problems.found)

    def digest(self, hash_of: HashOf) -> str:
        """Return the entry's identity: entries of two saves with equal digests are the same.

        The sha256 of all resolved values, of count and seed as written ("random" stays "random"),
        and of the hashes of the files they name. LoRAs and embeddings count if the prompts name
        them as written. Priority, position and the lines of wildcard files do not.
        """
        first, *others = [variant._values() for variant in self.variants]
        files = [[*files_of(variant)] for variant in self.variants]
        named = {(file.kind, file.name) for of_one in files for file in of_one}
        for prompts in chain.from_iterable(variant._prompts_of_all for variant in self.variants):
            named.update(prompts.named())
        own = {file.field: (file.kind, file.name) for file in files[0] if file.field in _MODELS}
        hashes = {name: hash_of(*own[name]) if name in own else "" for name in _MODELS}
        values = first | {f"{name}_hash": hash_ for name, hash_ in hashes.items()}
        if self.sweep:
            # What differs from the first's values; None where only the first has one.
            values["sweep"] = [
                {n: other.get(n) for n in sorted({*first, *other}) if first.get(n) != other.get(n)}
                for other in others
            ]
        if named := named.difference(own.values()):
            dropped = self.dropped
            values["hashes"] = {
                kind if name in dropped else f"{kind}/{name}": hash_of(kind, name)
                for kind, name in sorted(named)
            }
        return digest_of(values)

    def _values(self) -> dict[str, object]:
        """Return the identity's values without those that are off: new fields change no digest."""
        values: dict[str, object] = {name: getattr(self, name) for name in _IDENTITY}
        if dropped := self.dropped:
            values |= with_pictures(self, lambda path: fields.PICTURE if path in dropped else path)
            values |= {name: "" for name in fields.PICTURE_FIELDS if values[name] == fields.PICTURE}
        on = {n: v for n, v in values.items() if n not in DIGEST_OMITS or v != DIGEST_OMITS[n]}
        return {name: plain(name, value, OF_ENTRIES) for name, value in on.items()}

    def image_requests(self, hash_of: HashOf, drawn_seed: int | None = None) -> list[ImageRequest]:
        """Return one request per image: image i has seed+i (wrapping), or the list's i-th seed.

        With a variation strength it has variation_seed+i and the same seed, as in A1111. A sweep
        makes all its combinations with the first seed, then with the next. `drawn_seed` is the seed
        drawn for random seeds. Raises RecipeInvalid if wildcards make a prompt that is unusable.
        """
        variants = [(variant, variant._prompts()) for variant in self.variants]
        requests = []
        for index in range(self.image_count // len(variants)):
            for variant, prompts in variants:
                seeds = variant._seeds(index, drawn_seed)
                requests.append(variant._request(seeds, prompts, hash_of))
        return requests

    def refused_embeddings(self) -> list[str]:
        """Return sentences about unusable embeddings that the prompts seem to name."""
        named = any("embedding:" in text for _, text in self.texts)
        if not named and not self.inventory.refused_as("embedding"):
            return []  # without a search for thousands of names
        return [words for prompts in self._prompts_of_all for words in prompts.refused_embeddings()]

    @property
    def _prompts_of_all(self) -> list[Prompts]:
        """The recipe's prompts, and those of each detail."""
        return [self._prompts(), *map(self._prompts, range(len(self.detail)))]

    def _prompts(self, of_detail: int | None = None) -> Prompts:
        """Return the prompts, or those of a detail, which may have its own."""
        own = {} if of_detail is None else asdict(self.detail[of_detail])
        at = "" if of_detail is None else f"detail.{of_detail}."
        return Prompts(
            {name: own.get(name) or getattr(self, name) for name in fields.PROMPTS},
            self.loras,
            self.inventory,
            self.swept_loras,
            {name: f"{at}{name}" if own.get(name) else name for name in fields.PROMPTS},
            lambda field, message: self.problem_at(f"{at}{field}", message),
        )

    def _detail(self, index: int, seed: int, use: DetailUse, hash_of: HashOf) -> DetailUse:
        """Return what is drawn again; only words of its own are drawn for it."""
        detail = self.detail[index]
        if not detail.prompt and not detail.negative_prompt:
            return use
        texts, loras, embeddings = self._prompts(index).drawn(seed)
        own: dict[str, Any] = {n: text for n, text in texts.items() if getattr(detail, n)}
        return replace(use, **own, **self._uses(loras, embeddings, hash_of))

    def _uses(
        self, loras: Mapping[str, float], embeddings: Sequence[str], hash_of: HashOf
    ) -> dict[str, Any]:
        """Return the LoRAs and embeddings of drawn prompts, as a request has them."""
        of = self.lora_families
        uses = (LoraUse(n, hash_of("lora", n), w, of.get(n, "")) for n, w in loras.items())
        words = (EmbeddingUse(n, hash_of("embedding", n)) for n in embeddings)
        return {"loras": tuple(uses), "embeddings": tuple(words)}

    def _seeds(self, index: int, drawn_seed: int | None) -> tuple[int, int | None]:
        """Return the seed and the variation seed of image `index` of this combination."""
        varies = bool(self.variation_strength)
        if isinstance(self.seed, tuple):
            seed = self.seed[index]
        else:
            first = _drawn(drawn_seed) if self.seed == RANDOM else self.seed
            seed = (first if varies else first + index) % SEEDS
        if not varies:
            return seed, None
        variation = self.variation_seed
        if variation is None:  # half of all seeds away
            variation = _drawn(drawn_seed) + SEEDS // 2
        return seed, (variation + index) % SEEDS

    def _request(
        self, seeds: tuple[int, int | None], prompts: Prompts, hash_of: HashOf
    ) -> ImageRequest:
        seed, variation_seed = seeds
        texts, loras, embeddings = prompts.drawn(seed)
        checkpoint = self.checkpoint_used
        for name in fields.PROMPTS if checkpoint.rules.flow else ():
            for words, _ in edits_in(texts[name]):
                raise self.problem_at(name, f"{cannot_edit(checkpoint.family, words)} {EDITED}")
        values: dict[str, Any] = {name: getattr(self, name) for name in _IMAGE_FIELDS} | texts
        # Of the request itself, under "", and of the entries of its lists.
        hashes = defaultdict[str, dict[str, Any]](dict)
        for file in files_of(self):
            entry, _, name = file.hash_field.rpartition(".")
            hashes[entry][name] = hash_of(file.kind, file.name)
        values |= {"checkpoint_hash": "", **hashes[""]}
        if not self.draws:
            values["width"], values["height"] = self.size_before_upscale
        else:
            values["given_size"] = self.given_size
        values |= {"is_transparent": self.is_transparent, "size_warning": self.size_warning}
        if taken := self.taken:
            values["name"] = filled(self.name, date=taken)
        uses = [DetailUse(**asdict(d), **hashes[f"detail.{i}"]) for i, d in enumerate(self.detail)]
        details = (self._detail(index, seed, use, hash_of) for index, use in enumerate(uses))
        values["detail"] = tuple(details)
        return ImageRequest(
            **values | {"seed": seed, "variation_seed": variation_seed},
            **self._uses(loras, embeddings, hash_of),
            references=tuple(
                ReferenceUse(path, **hashes[f"references.{at}"])
                for at, path in enumerate(self.references)
            ),
            control=tuple(
                ControlUse(**asdict(control), **hashes[f"control.{at}"])
                for at, control in enumerate(self.control)
            ),
            notes=self.notes,
            **{
                f"unexpanded_{field}": before
                for field, text in texts.items()
                if (before := getattr(self, field)) != text
            },
        )


_MODELS = ("checkpoint", "vae")  # whose hashes are in every digest
_IMAGE_FIELDS = tuple(fields.ImageFields.__dataclass_fields__)
_IDENTITY = [name for name in fields.ROWS if name not in ("priority", "replace", "name", "sweep")]


def _drawn(seed: int | None) -> int:
    if seed is None:
        raise ValueError("a recipe with a random seed needs the seed that was drawn")
    return seed


def no_hash(kind: str, name: str) -> str:
    """Return no hash: a `hash_of` for requests that are only shown."""
    return ""
