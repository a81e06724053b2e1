"""Hashes of the models that recipes name: gigabytes are read for each once."""

from collections.abc import Callable
from typing import cast

from picowatch.catalog import Catalog, Kind
from picowatch.catalog.hashes import Hashing
from picowatch.errors import ControlFlow, ModelRefused
from picowatch.recipe import HashOf

PICTURES = ("image", "mask")  # kinds of what recipes name that are no models


class NotHashed(ControlFlow):
    """An answer needs the hash of a model, which takes long."""

    def __init__(self, kind: Kind, name: str) -> None:
        super().__init__(kind, name)
        self.kind = kind
        self.name = name


class ModelHashes:
    """Looks each up once, until `look_again`."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._found: dict[tuple[Kind, str], str | ModelRefused] = {}

    def look_again(self) -> None:
        """Models may have come and gone."""
        self._found.clear()

    def beside(self, hash_of_picture: Callable[[str], str]) -> HashOf:
        """Gives the hash of anything a recipe names, its pictures by `hash_of_picture`.

        Raises NotHashed if a model would have to be read.
        """

        def hash_of(kind: str, name: str) -> str:
            if kind in PICTURES:
                return hash_of_picture(name)
            return self._of_model(cast(Kind, kind), name)

        return hash_of

    def compute(self, needed: NotHashed, go_on: Callable[[], None]) -> None:
        """Read the model, or find out why it has no hash; `go_on` is called in between."""
        found: str | ModelRefused
        try:
            model = self._catalog.find(needed.kind, needed.name)
            found = Hashing(self._catalog, model).result(go_on)
        except ModelRefused as error:
            found = error
        self._found[needed.kind, needed.name] = found

    def _of_model(self, kind: Kind, name: str) -> str:
        found = self._found.get((kind, name))
        if found is None:
            model = self._catalog.find(kind, name)
            if not self._catalog.is_hashed(model):
                raise NotHashed(kind, name)
            found = self._found[kind, name] = self._catalog.sha256(model)
        if isinstance(found, ModelRefused):
            raise found
        return found
