"""The models in models/: kinds, names and sizes from headers, and hashes."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from hashlib import sha256
from itertools import chain
from pathlib import Path

from pydantic import TypeAdapter

from picowatch.catalog.encoders import families_of
from picowatch.catalog.finders import finders_in, outlined
from picowatch.catalog.folder_files import folder_files, has_index
from picowatch.catalog.hashes import HashCache, OnBlock, unreadable
from picowatch.catalog.headers import GGUF, read_header
from picowatch.catalog.loras import OR_CHROMA
from picowatch.catalog.models import (
    FOLDERS,
    FoundModels,
    Kind,
    Model,
    Recognised,
    Refused,
    folders_of,
)
from picowatch.catalog.parts import completed, files_of, is_transformer
from picowatch.catalog.recognise import UNIONS, recognise
from picowatch.catalog.scan import (
    EMBEDDED,
    SAFETENSORS,
    Candidate,
    Signature,
    candidates,
    embedded,
    entry_of,
    printable,
    without_ending,
)
from picowatch.catalog.wildcards import WildcardFiles
from picowatch.errors import ModelRefused
from picowatch.families import FAMILIES
from picowatch.families.row import DEMO
from picowatch.files.essential import Ended
from picowatch.files.safe_paths import is_file, is_folder
from picowatch.recipe.fields import ZERO_SNR
from picowatch.recipe.inventory import (
    DEMO_RULES,
    Checkpoint,
    ControlNet,
    Inventory,
    KnownWords,
    Upscaler,
    rules_of,
)
from picowatch.recipe.messages.suggestions import listed

_RECOGNISED = TypeAdapter(Recognised)
# Families whose files need not say what they predict: 2.x's weights tell (engine/model/load.py).
_SILENT = ("sd1", "sdxl")


class Catalog:
    """The models folder as recipes see it.

    A scan looks at the names, sizes and times of all files, and reads only the headers of those
    that are new or changed. On a share it may take minutes.
    """

    def __init__(
        self,
        models: Path,
        hash_cache: Path | None = None,  # stores hashes and recognised headers between runs
        *,
        keep_hashes: bool = True,  # the file is written
        must_exist: bool = False,  # somebody has named the folder
        has_ended: Callable[[], bool] = lambda: False,  # then a scan ends with `Ended`
    ) -> None:
        self._models, self._must_exist = models, must_exist
        self._hashes = HashCache(hash_cache, keep=keep_hashes)
        self._has_ended = has_ended
        self._seen: dict[tuple[Kind, Path], tuple[Signature, Model | Refused]] = {}
        self._devices: dict[tuple[Kind, Path], int] = {}  # of the folder of each model
        self._wildcards = WildcardFiles(models)

    def scan(self) -> FoundModels:
        """Return everything that is in models/ now. A missing folder counts as empty."""
        try:
            found = [self._scan_kind(kind) for kind in FOLDERS]
            misplaced = [*self._misplaced()]
        finally:
            self._hashes.write()
        return FoundModels(
            tuple(model for kind in found for model in kind.models),
            (*(refused for kind in found for refused in kind.refused), *misplaced),
        )

    def away(self) -> str:
        """Return that the models folder seems unmounted or may not be read, and why; else "".

        It, or that of checkpoints, is closed or a link to nothing, or it is missing or empty and
        had models, as the stored hashes tell. If it has to exist, it must not be missing.
        """
        for folder in (self._models, self._models / FOLDERS["checkpoint"]):
            if os.path.islink(folder) and not is_folder(folder):  # noqa: PTH114  (never raises)
                return f"the folder {folder} is a link that leads nowhere"
            if is_folder(folder) and not os.access(folder, os.R_OK | os.X_OK):
                return f"the folder {folder} cannot be read"
        had_models = partial(self._hashes.has_below, self._models)
        if not is_folder(self._models):
            is_missed = self._must_exist or had_models()
            return f"the folder {self._models} does not exist" if is_missed else ""
        with suppress(OSError):
            if not any(self._models.iterdir()) and had_models():
                return f"the folder {self._models} is empty, and had models before"
        return ""

    def has_lost(self, kind: Kind) -> bool:
        """Whether models of a kind were there, and were deleted, so far as is known.

        A share that is unmounted leaves an empty folder of another disk, or links to nothing.
        """
        devices = [*self._devices.items()]  # a copy: another thread may scan
        were = {path: device for (own, path), device in devices if own == kind}
        return bool(were) and all(map(self._is_in_place, were, were.values()))

    def _is_in_place(self, path: Path, device: int) -> bool:
        """Whether a file, or what is left above it, is on that disk."""
        while path != self._models and not os.path.lexists(path):
            path = path.parent
        with suppress(OSError):
            return path.stat().st_dev == device
        return False

    def inventory(self, default_checkpoint: str | None = None) -> Inventory:
        """Return what recipes may name, and why other files cannot be used."""
        found, (wildcards, refused_wildcards) = self.scan(), self._wildcards.scan()
        models = {kind: found.of_kind(kind) for kind in FOLDERS}
        names = {kind: tuple(model.name for model in models[kind]) for kind in FOLDERS}
        checkpoints, loras = models["checkpoint"], models["lora"]
        demo = embedded("checkpoint")
        reasons = _reasons_of(found)
        return Inventory(
            demo=replace(_checkpoint_of(demo), rules=DEMO_RULES, known_words=_known_words(demo)),
            checkpoints=tuple(self._checkpoint(own) for own in checkpoints if not own.missing),
            variants={
                model.name: {
                    f"{FAMILIES[model.family].name} {own.variant}".strip(): (
                        own.missing or self._checkpoint(own)
                    )
                    for own in (model, *model.others)
                }
                for model in checkpoints
                if model.others
            },
            vaes=names["vae"],
            loras=names["lora"],
            embeddings=names["embedding"],
            upscalers=tuple(Upscaler(model.name, model.scale) for model in models["upscaler"]),
            cutouts=names["cutout"],
            vae_families={vae.name: families_of(vae.variant) for vae in models["vae"]},
            controlnets=tuple(
                ControlNet(
                    *(own.name, FAMILIES[own.family].name, own.text_width),
                    UNIONS.get(own.variant, 0),
                )
                for own in (*models["controlnet"], embedded("controlnet"))
            ),
            depths=names["depth"],
            segmentations=finders_in(models["segmentation"]),
            lora_families=_trained_for(loras),
            lora_names={lora.name: lora.trained_as for lora in loras if lora.trained_as},
            embedding_families=_trained_for(models["embedding"]),
            findable=_known_words(embedded("segmentation")),
            wildcards=wildcards,
            refused={"wildcard": refused_wildcards, **reasons},
            default_checkpoint=default_checkpoint,
            unusable_checkpoint=self._unusable_checkpoint(reasons),
        )

    def _unusable_checkpoint(self, reasons: Mapping[str, Mapping[str, str]]) -> str:
        """Return the first reason why no checkpoint can be used, or ""."""
        if away := self.away():
            asked, folder = "Is it mounted, and may picowatch read it?", FOLDERS["checkpoint"]
            return f"{away}. {asked} If it is no more, make an empty {self._models / folder}."
        return next(iter(reasons["checkpoint"].values()), "")

    def find(self, kind: Kind, name: str) -> Model:
        """Return the model of that name, ending optional. Raises ModelRefused with the reason."""
        if kind in EMBEDDED and EMBEDDED[kind][0] == name:
            return embedded(kind)
        # Some complete each other, and are few, so all of them are scanned.
        every = kind in ("checkpoint", "segmentation")
        found = self._scan_kind(kind, "" if every else name)
        for model in chain(found.models, *(entry.others for entry in found.models)):
            if name in (model.name, f"{model.name}.safetensors"):
                if model.missing:
                    raise ModelRefused(model.missing)
                return model
        for refused in found.refused:
            if name in (refused.name, without_ending(refused.name)):
                raise ModelRefused(refused.reason)
        folders = [f"models/{folder.name}/" for folder in folders_of(self._models, kind)]
        raise ModelRefused(f"There is no {name!r} in {listed(folders, 'or')}.")

    def known_hash(self, model: Model) -> str:
        """Return `sha256`, but "" if it has to read files for it. Raises ModelRefused."""
        known = {relative: self._hashes.known(path) for relative, path in _files(model).items()}
        return _hash_of(model, known) if all(known.values()) else ""

    def _checkpoint(self, model: Model) -> Checkpoint:
        """Return a checkpoint with its hash, "" if files would have to be read for it."""
        known = ""
        with suppress(ModelRefused):
            known = self.known_hash(model)
        return _checkpoint_of(model, known)

    def size(self, model: Model) -> int:
        """Return the size of all files of the model. Raises ModelRefused if they are gone."""
        try:
            return sum(path.stat().st_size for path in _files(model).values())
        except OSError as error:
            raise unreadable(model.path, error) from error

    def sha256(self, model: Model, on_block: OnBlock = lambda _: None) -> str:
        """Return the model's hash; `on_block` is called for each block that is read.

        For a single file it is its sha256. For a folder it is the sha256 of a text with a line
        "<sha256>  <relative path>" for each config, vocabulary and weight file, sorted by path (as
        `sha256sum` prints them). A transformer's file that other files complete is hashed likewise,
        with a line for each file.
        """
        hashes = partial(self._hashes.sha256, on_block=on_block)
        return _hash_of(model, {relative: hashes(path) for relative, path in _files(model).items()})

    def weights_hash(self, model: Model) -> str:
        """Return A1111's hash of a LoRA: sha256 of the bytes after the safetensors header."""
        return self._hashes.sha256(model.path, weights_only=True)

    def _end_if_asked(self) -> None:
        if self._has_ended():
            raise Ended

    def _scan_kind(self, kind: Kind, name: str = "") -> FoundModels:
        """Return what is there by name; of two models with the same name the second is refused."""
        models, all_refused = list[Model](), list[Refused]()
        taken = {EMBEDDED[kind][0]: EMBEDDED[kind][1]} if kind in EMBEDDED else {}
        roots = folders_of(self._models, kind)
        there = []
        for candidate in chain.from_iterable(candidates(root, kind, name) for root in roots):
            self._end_if_asked()
            there.append(candidate)
        # Files come before folders of the same name; stable: ours first.
        for candidate in sorted(there, key=lambda file: (file.name, file.layout == "folder")):
            entry = self._entry(candidate)
            if isinstance(entry, Refused):
                all_refused.append(entry)
            elif entry.name in taken:
                own, other = candidate.place, taken[entry.name]
                refused = candidate.refused(f"{own} has the same name as {other}: rename it.")
                if candidate.root != roots[0]:  # the other may have the same ending, too
                    refused = replace(refused, name=f"{candidate.root.name}/{refused.name}")
                all_refused.append(refused)
            else:
                taken[entry.name] = candidate.place
                models.append(entry)
        if kind == "segmentation":
            models = outlined(models)
        if kind == "checkpoint" and any(map(is_transformer, models)):
            others = self._scan_kind("text_encoder").models, self._scan_kind("vae").models
            installed = [*models, *chain(*others)]
            models = [completed(own, installed) if is_transformer(own) else own for own in models]
        return FoundModels(tuple(models), tuple(all_refused))

    def _misplaced(self) -> Iterator[Refused]:
        """Refuse, as checkpoints, files and folders in models/ itself that look like models."""
        right = folders_of(self._models, "checkpoint")[0].name
        with suppress(OSError):
            for path in sorted(self._models.iterdir()):
                is_model = path.suffix.lower() in (*SAFETENSORS, GGUF) and is_file(path)
                if is_model or has_index(path):
                    name = printable(path.name)
                    where = f"models/{right}/, or to the folder of its kind"
                    reason = f"{name} is in models/ itself: move it to {where}."
                    yield Refused(name=name, kind="checkpoint", path=path, reason=reason)

    def _entry(self, candidate: Candidate) -> Model | Refused:
        """Return the candidate as a model or a refusal, cached until its files change.

        A folder may have hundreds of LoRAs for other programs, each refused by its header.
        """
        key = (candidate.kind, candidate.path)
        signature, known = self._seen.get(key, (None, None))
        if known is not None and signature == candidate.signature:
            return known
        self._end_if_asked()
        entry = entry_of(candidate, self._recognised)
        if isinstance(entry, Model) or not entry.may_pass:
            self._seen[key] = (candidate.signature, entry)
        if isinstance(entry, Model):
            with suppress(OSError):
                self._devices[entry.kind, candidate.path] = candidate.path.parent.stat().st_dev
        return entry

    def _recognised(self, path: Path) -> Recognised:
        """Recognise a single file; results are cached, since thousands of headers take minutes."""

        def read() -> str:
            return _RECOGNISED.dump_json(recognise(read_header(path))).decode()

        return _RECOGNISED.validate_json(self._hashes.noted(path, _code(), read))


@cache
def _code() -> str:
    """Return a digest of the code that recognises files: another version may differ."""
    package = Path(__file__).parent
    files = [*(package.parent / "families").glob("*.py"), *package.glob("*.py")]
    return sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()


def _hash_of(model: Model, hashes: Mapping[str, str]) -> str:
    """Return a model's hash, made of those of its files by their relative paths."""
    if model.layout == "file" and len(hashes) == 1:
        return next(iter(hashes.values()))
    lines = "".join(f"{digest}  {relative}\n" for relative, digest in hashes.items())
    return sha256(lines.encode()).hexdigest()


def _checkpoint_of(model: Model, known: str = "") -> Checkpoint:
    prediction = "v" if model.velocity_beside else ""
    if model.zero_snr and model.prediction != "epsilon":
        prediction = ZERO_SNR
    return Checkpoint(
        *(model.name, model.native_size, model.text_layers, FAMILIES[model.family].name),
        rules_of(model.family, model.variant),
        prediction,
        says_prediction=bool(model.prediction) or model.family not in _SILENT,
        text_width=model.text_width,
        hash=known,
    )


def _files(model: Model) -> dict[str, Path]:
    """Return the files of a model's hash by name. Raises ModelRefused if they are gone."""
    try:
        if model.layout == "file":
            return files_of(model.parts) if model.parts else {"": model.path}
        return folder_files(model.path) | files_of(model.parts)
    except OSError as error:
        raise unreadable(model.path, error) from error


def _reasons_of(found: FoundModels) -> dict[str, dict[str, str]]:
    """Return the reasons of refused files by kind and name, with and without ending."""
    reasons: dict[str, dict[str, str]] = {kind: {} for kind in FOLDERS}
    for entry in found.refused:
        reasons[entry.kind][entry.name] = entry.reason
        reasons[entry.kind].setdefault(without_ending(entry.name), entry.reason)
    # In prompts endings are no part of their names: another file may have the name without it.
    reasons["embedding"] = {without_ending(name): why for name, why in reasons["embedding"].items()}
    checkpoints = found.of_kind("checkpoint")
    reasons["checkpoint"] |= {model.name: model.missing for model in checkpoints if model.missing}
    return reasons


@cache
def _known_words(demo: Model) -> KnownWords:
    """Return the words that an embedded model knows; training/ writes the file."""
    found = json.loads((demo.path / "known_words.json").read_text("utf-8"))
    subjects = [word for kind in ("subjects", "extras", "colours") for word in found.get(kind, ())]
    return KnownWords(tuple(subjects), frozenset(found["words"]))


def _trained_for(adapters: Sequence[Model]) -> dict[str, tuple[str, ...]]:
    """Return the families' names by adapter; the demo model's width does not tell a family."""
    chroma = FAMILIES["chroma"].name
    return {
        adapter.name: (FAMILIES[adapter.family].name, *[chroma] * (adapter.variant == OR_CHROMA))
        for adapter in adapters
        if adapter.family not in ("", DEMO)
    }
