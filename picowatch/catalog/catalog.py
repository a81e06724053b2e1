"""What is in models/: kinds, names, sizes and hashes, from the headers. Reads no weights."""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from picowatch.catalog.candidates import (
    PART_FOLDERS,
    SAFETENSORS,
    Candidate,
    Stamp,
    by_name,
    candidates,
    check_name,
    place,
    printable,
    without_ending,
)
from picowatch.catalog.configs import says_velocity
from picowatch.catalog.controlnets import UNIONS
from picowatch.catalog.families import variant_by_name
from picowatch.catalog.folder_files import (
    INDEX,
    folder_files,
    is_file,
    is_folder,
)
from picowatch.catalog.folders import is_part_folder, recognise_checkpoint_folder
from picowatch.catalog.gguf import GGUF, read_any_header
from picowatch.catalog.hashes import HashCache, OnBlock, ignore_block
from picowatch.catalog.headers import read_header
from picowatch.catalog.models import (
    FOLDERS,
    FoundModels,
    Kind,
    Model,
    Recognised,
    Refused,
    folders_of,
)
from picowatch.catalog.pipelines import only_lends
from picowatch.catalog.recognise import expect_rendered, expect_usable, recognise
from picowatch.catalog.transformer_files import ASSETS, completed, files_below, files_of
from picowatch.catalog.vaes import families_of, vae_by_name
from picowatch.catalog.wildcards import WildcardFiles
from picowatch.errors import ModelRefused
from picowatch.families import DEMO, FAMILIES, FLOWS, UNETS
from picowatch.recipe.families import DEMO_RULES, rules_of
from picowatch.recipe.inventory import Checkpoint, ControlNet, Inventory, Upscaler
from picowatch.recipe.messages.suggestions import listed
from picowatch.recipe.prompts.known_words import KnownWords

_DEMO_FOLDER = ASSETS / "demo"
DEMO_UPSCALER = "demo-compact"
DEMO_CONTROLNET = "demo-sketch"
# Names, and what messages call them.
_EMBEDDED: dict[Kind, tuple[str, str]] = {
    "checkpoint": (DEMO, "the embedded demo model"),
    "upscaler": (DEMO_UPSCALER, "the embedded upscaler"),
    "controlnet": (DEMO_CONTROLNET, "the embedded ControlNet"),
}


class Catalog:
    """The models folder as recipes see it.

    A scan looks at names, sizes and times of everything and reads the headers of what is new
    or changed, nothing else. `hash_cache` names a file that keeps hashes between runs, and what
    files are; only a process that may write (`keep_hashes`) does.
    """

    def __init__(
        self, models: Path, hash_cache: Path | None = None, *, keep_hashes: bool = True
    ) -> None:
        self._models = models
        self._hashes = HashCache(hash_cache, keep=keep_hashes)
        self._seen: dict[tuple[Kind, Path], tuple[Stamp, Model | Refused]] = {}
        self._wildcards = WildcardFiles(models)

    def scan(self) -> FoundModels:
        """Everything that is in models/ now. A missing folder counts as empty."""
        try:
            found = [entry for kind in FOLDERS for entry in self._scan_kind(kind)]
            found += self._misplaced()
        finally:
            self.keep_hashes()
        return FoundModels(
            models=tuple(_models(found)),
            refused=tuple(entry for entry in found if isinstance(entry, Refused)),
        )

    def keep_hashes(self) -> None:
        """Write the hashes that `sha256` has left for later, if this process may."""
        self._hashes.write()

    def has_models(self) -> bool:
        """Whether any can be used. It looks no further than to the first one."""
        return any(
            isinstance(self._entry(candidate), Model)
            for kind in FOLDERS
            for root in folders_of(self._models, kind)
            for candidate in candidates(root, kind)
        )

    def inventory(
        self,
        default_checkpoint: str | None = None,
        *,
        must_exist: bool = False,
    ) -> Inventory:
        """What recipes may name, and why they may not name the rest.

        `must_exist`: without the folder itself, nothing stands in for a checkpoint.
        A refused file is found by its name with ending, and without, where no model has it.
        """
        found = self.scan()
        wildcards = self._wildcards.scan()
        refused = {"wildcard": wildcards.refused, **_reasons(found)}
        checkpoints = found.of_kind("checkpoint")
        return Inventory(
            demo=replace(_checkpoint(self.demo), rules=DEMO_RULES, known_words=_known_words()),
            checkpoints=tuple(
                replace(_checkpoint(one), hash=self._known_hash(one))
                for one in checkpoints
                if not one.missing
            ),
            vaes=tuple(model.name for model in found.of_kind("vae")),
            loras=tuple(model.name for model in found.of_kind("lora")),
            embeddings=tuple(model.name for model in found.of_kind("embedding")),
            upscalers=tuple(Upscaler(one.name, one.scale) for one in found.of_kind("upscaler")),
            vae_families={one.name: families_of(one.variant) for one in found.of_kind("vae")},
            controlnets=tuple(
                _controlnet(model)
                for model in (*found.of_kind("controlnet"), embedded("controlnet"))
            ),
            depths=tuple(model.name for model in found.of_kind("depth")),
            lora_families=_families(found.of_kind("lora")),
            lora_names={
                one.name: one.trained_as for one in found.of_kind("lora") if one.trained_as
            },
            embedding_families=_families(found.of_kind("embedding")),
            wildcards=wildcards.lines,
            wildcard_packs=wildcards.packs,
            refused=refused,
            refused_embeddings={
                without_ending(entry.name): entry.reason
                for entry in found.refused
                if entry.kind == "embedding"
            },
            default_checkpoint=default_checkpoint,
            unusable_checkpoint=self._unusable_checkpoint(found, must_exist),
        )

    def _unusable_checkpoint(self, found: FoundModels, must_exist: bool) -> str:
        """The first reason why no checkpoint can be used, or ""."""
        reasons = [_dangling(self._models), _dangling(self._models / FOLDERS["checkpoint"])]
        if must_exist and not is_folder(self._models):
            reasons.append(f"the folder {self._models} does not exist.")
        reasons += [one.reason for one in found.refused if one.kind == "checkpoint"]
        reasons += [one.missing for one in found.of_kind("checkpoint")]
        return next(filter(None, reasons), "")

    def find(self, kind: Kind, name: str) -> Model:
        """The model of that name, ending optional; ModelRefused says why it cannot be used."""
        if kind in _EMBEDDED and _EMBEDDED[kind][0] == name:
            return embedded(kind)
        # Checkpoints complete each other, and are few: all are looked at.
        entries = self._scan_kind(kind, "" if kind == "checkpoint" else name)
        for entry in entries:
            if isinstance(entry, Model) and name in (entry.name, f"{entry.name}.safetensors"):
                if entry.missing:
                    raise ModelRefused(entry.missing)
                return entry
        for entry in entries:
            if isinstance(entry, Refused) and name in (entry.name, without_ending(entry.name)):
                raise ModelRefused(entry.reason)
        folders = [f"models/{folder.name}/" for folder in folders_of(self._models, kind)]
        raise ModelRefused(f"There is no {name!r} in {listed(folders, 'or')}.")

    @property
    def demo(self) -> Model:
        """The embedded demo model."""
        return embedded("checkpoint")

    def is_hashed(self, model: Model) -> bool:
        """Whether `sha256` reads none of the model's files; ModelRefused if they are gone."""
        return all(map(self._hashes.known, _files(model).values()))

    def _known_hash(self, model: Model) -> str:
        """Return its hash, "" if files would have to be read for it."""
        with suppress(ModelRefused):
            return self.sha256(model) if self.is_hashed(model) else ""
        return ""

    def size(self, model: Model) -> int:
        """How many bytes `sha256` reads, if it has to: of all files that the model is read from.

        ModelRefused if they are gone.
        """
        try:
            return sum(path.stat().st_size for path in _files(model).values())
        except OSError as error:
            raise _unreadable(model, error) from error

    def sha256(self, model: Model, on_block: OnBlock = ignore_block) -> str:
        """The model's hash: of a file its sha256. `on_block` is called for each block that is read.

        Of a folder it is the sha256 of the text made of one line "<sha256>  <relative path>"
        for each config, vocabulary and weight file, sorted by path (what `sha256sum` prints).
        Of a transformer's file likewise, with a line for each file of the parts that complete it,
        if there are any.
        """
        files = _files(model)
        if model.layout == "file" and len(files) == 1:
            return self._hashes.sha256(model.path, on_block=on_block)
        lines = sha256()
        for relative, path in files.items():
            digest = self._hashes.sha256(path, on_block=on_block)
            lines.update(f"{digest}  {relative}\n".encode())
        return lines.hexdigest()

    def files_below(self, model: Model) -> dict[str, Path]:
        """All files of a model and of what completes it, by their paths below models/."""
        kinds: tuple[Kind, ...] = ("checkpoint", "text_encoder", "vae")
        installed = {one.path: one for kind in kinds for one in _models(self._scan_kind(kind))}
        used = {model.path: model}
        for part in model.parts:
            places = (part.weights, part.folder, part.folder.parent)
            used |= {path: installed[path] for path in places if path and path in installed}
        return files_below(list(used.values()))

    def weights_hash(self, model: Model) -> str:
        """How A1111 identifies a LoRA: sha256 of the bytes after the safetensors header."""
        return self._hashes.sha256(model.path, weights_only=True)

    def _scan_kind(self, kind: Kind, name: str = "") -> list[Model | Refused]:
        """One kind's entries sorted by name; the second of two with one name is refused.

        With a `name` only those that it may mean.
        """
        entries: list[Model | Refused] = []
        taken = dict([_EMBEDDED[kind]]) if kind in _EMBEDDED else {}
        roots = folders_of(self._models, kind)
        found = [candidate for root in roots for candidate in candidates(root, kind, name)]
        for candidate in sorted(found, key=by_name):  # of equal ones those of the first folder
            entry = self._entry(candidate)
            if isinstance(entry, Model):
                if entry.name in taken:
                    own = place(candidate)
                    reason = f"{own} has the same name as {taken[entry.name]}: rename it."
                    entry = _refused(candidate, reason)
                    if candidate.root != roots[0]:  # its name with ending is the other's, too
                        entry = replace(entry, name=f"{candidate.root.name}/{entry.name}")
                else:
                    taken[entry.name] = place(candidate)
            entries.append(entry)
        return self._completed(entries) if kind == "checkpoint" else entries

    def _misplaced(self) -> list[Refused]:
        """Models in models/ itself, which is no kind's folder."""
        refused = []
        with suppress(OSError):
            for path in sorted(self._models.iterdir()):
                kind = self._kind_of(path)
                if kind is None:
                    continue
                name, right = printable(path.name), folders_of(self._models, kind)[0].name
                reason = f"{name} is in models/ itself: move it to models/{right}/."
                refused.append(Refused(name=name, kind=kind, path=path, reason=reason))
        return refused

    def _kind_of(self, path: Path) -> Kind | None:
        """What a file is, or a diffusers folder; None for all others."""
        if is_file(path / INDEX):
            return "checkpoint"
        if path.suffix.lower() not in (*SAFETENSORS, GGUF) or not is_file(path):
            return None
        try:
            return self._recognised(path).kind
        except (ModelRefused, OSError):
            return None

    def _completed(self, entries: list[Model | Refused]) -> list[Model | Refused]:
        """The same, with what completes the transformers among them."""
        if not any(isinstance(entry, Model) and _is_transformer(entry) for entry in entries):
            return entries
        others = [*self._scan_kind("text_encoder"), *self._scan_kind("vae")]
        installed = FoundModels(tuple(_models([*entries, *others])))
        return [
            completed(entry, installed)
            if isinstance(entry, Model) and _is_transformer(entry)
            else entry
            for entry in entries
        ]

    def _entry(self, candidate: Candidate) -> Model | Refused:
        """What a candidate is, from memory if nothing of it has changed."""
        key = (candidate.kind, candidate.path)
        stamp, entry = self._seen.get(key, (None, None))
        if entry is None or stamp != candidate.stamp:
            try:
                entry = _look_at(candidate, self._recognised)
            except (ModelRefused, OSError) as error:
                entry = _refused(candidate, f"{place(candidate)} {_reason(error)}")
                if _may_pass(error):
                    return entry
            self._seen[key] = (candidate.stamp, entry)
        return entry

    def _recognised(self, path: Path) -> Recognised:
        """What a single file is: its header is read once, also where thousands take minutes."""

        def read() -> str:
            return json.dumps(asdict(recognise(read_any_header(path))))

        try:
            return _reader().validate_json(self._hashes.noted(path, _code(), read))
        except ValidationError:  # somebody wrote into the file, or it has half a character
            return recognise(read_any_header(path))


@cache
def _reader() -> TypeAdapter[Recognised]:
    return TypeAdapter(Recognised)


@cache
def _code() -> str:
    """Another version may take a file for something else: a digest of all that recognises files."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return sha256(code).hexdigest()


def _reasons(found: FoundModels) -> dict[str, dict[str, str]]:
    """Why what was refused cannot be used, by kind and name, with and without ending."""
    reasons: dict[str, dict[str, str]] = {kind: {} for kind in FOLDERS}
    for entry in found.refused:
        reasons[entry.kind][entry.name] = entry.reason
        reasons[entry.kind].setdefault(without_ending(entry.name), entry.reason)
    checkpoints = found.of_kind("checkpoint")
    reasons["checkpoint"] |= {one.name: one.missing for one in checkpoints if one.missing}
    return reasons


def _models(entries: list[Model | Refused]) -> list[Model]:
    return [entry for entry in entries if isinstance(entry, Model)]


def _is_transformer(model: Model) -> bool:
    return model.kind == "checkpoint" and model.layout == "file" and model.family in FLOWS


def _files(model: Model) -> dict[str, Path]:
    """The files that take part in a model's hash, by name; ModelRefused if they are gone."""
    try:
        if model.parts:
            return files_of(model.parts)
        if model.layout == "file":
            return {"": model.path}
        return folder_files(model.path)
    except OSError as error:
        raise _unreadable(model, error) from error


def _unreadable(model: Model, error: OSError) -> ModelRefused:
    return ModelRefused(f"{model.path.name} cannot be read: {error.strerror}.")


def _dangling(folder: Path) -> str:
    """What is wrong with a link whose goal is not there, as on a disk that is away; else ""."""
    away = os.path.islink(folder) and not is_folder(folder)  # noqa: PTH114  (never raises)
    return f"the folder {folder} is a link that leads nowhere." if away else ""


def _look_at(candidate: Candidate, recognised: Callable[[Path], Recognised]) -> Model:
    """Recognise a candidate: a model of the kind its folder is for; ModelRefused says why not."""
    check_name(candidate)
    layout = candidate.layout
    if layout == "file":
        found = recognised(candidate.path)
    elif candidate.kind in PART_FOLDERS and is_part_folder(candidate.path):
        found = PART_FOLDERS[candidate.kind](candidate.path)
    else:
        found = recognise_checkpoint_folder(candidate.path)
    right = folders_of(candidate.root.parent, found.kind)[0]
    expect_usable(found, candidate.kind, layout, right.name)
    model = _model(candidate.name, candidate.path, found)
    expect_rendered(model, layout)
    if model.family in UNETS and layout == "file" and not model.prediction:
        return replace(model, velocity_beside=says_velocity(model.path))
    return model


def _reason(error: ModelRefused | OSError) -> str:
    if isinstance(error, ModelRefused):
        return error.message
    return f"cannot be read: {error.strerror or error}."  # whatever was there a moment ago


def _may_pass(error: BaseException | None) -> bool:
    """Whether the system said it: a permission or a disk that is back changes no stamp."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__
    return error is not None


# Families whose files need not say what they predict. Of 2.x the weights do
# (engine/load.py).
_SILENT = ("sd1", "sdxl")


def _checkpoint(model: Model) -> Checkpoint:
    return Checkpoint(
        model.name,
        model.native_size,
        model.text_layers,
        model.zero_snr,
        FAMILIES[model.family].name,
        rules_of(model.family, model.variant),
        "v" if model.velocity_beside else "",
        bool(model.prediction) or model.family not in _SILENT,
        model.text_width,
    )


@cache
def embedded(kind: Kind) -> Model:
    """The model of this kind that is in the package: a checkpoint, an upscaler, a ControlNet."""
    name, _ = _EMBEDDED[kind]
    if kind == "checkpoint":
        return _model(name, _DEMO_FOLDER, recognise_checkpoint_folder(_DEMO_FOLDER))
    path = ASSETS / f"{name}.safetensors"
    return _model(name, path, recognise(read_header(path)))


@cache
def _known_words() -> KnownWords:
    """The demo model's; training/export.py writes the file."""
    found = json.loads((_DEMO_FOLDER / "known_words.json").read_text("utf-8"))
    subjects = found["subjects"] + found["extras"] + found["colours"]
    return KnownWords(tuple(subjects), frozenset(found["words"]))


def _controlnet(model: Model) -> ControlNet:
    family = FAMILIES[model.family].name
    return ControlNet(model.name, family, model.text_width, UNIONS.get(model.variant, 0))


def _families(adapters: tuple[Model, ...]) -> dict[str, str]:
    """The names of their families; the demo model's are Stable Diffusion 1.x of other widths."""
    return {one.name: FAMILIES[one.family].name for one in adapters if one.family not in ("", DEMO)}


def _model(name: str, path: Path, found: Recognised) -> Model:
    folder = is_folder(path)
    variant = (
        vae_by_name(found.variant, name)
        if found.kind == "vae"
        else variant_by_name(found.family, found.variant, name)
    )
    by_name = variant != found.variant
    found = replace(found, variant=variant)
    sizes = [file.stat().st_size for file in folder_files(path).values()] if folder else []
    missing = ""
    if folder and found.kind == "checkpoint" and found.family in FLOWS and only_lends(path):
        missing = (
            f"{path.name}/ has no weights in transformer/: it only completes transformer files. To "
            "render with it, copy the whole folder."
        )
    return Model(
        name=name,
        layout="folder" if folder else "file",
        path=path,
        bytes=sum(sizes) if folder else path.stat().st_size,
        by_name=by_name,
        missing=missing,
        **asdict(found),
    )


def _refused(candidate: Candidate, reason: str) -> Refused:
    """A refused file keeps its ending: "old.ckpt" may be beside a usable "old.safetensors"."""
    name = candidate.name
    if candidate.layout == "file" and not name.endswith(candidate.path.suffix):
        name += candidate.path.suffix
    return Refused(name=printable(name), kind=candidate.kind, path=candidate.path, reason=reason)
