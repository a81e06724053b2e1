"""The models in models/, recognised by their names and headers, without torch."""

from picowatch.catalog.catalog import Catalog
from picowatch.catalog.models import FoundModels, Kind, Model, Refused
from picowatch.catalog.scan import EMBEDDED_NAMES, embedded

__all__ = ["EMBEDDED_NAMES", "Catalog", "FoundModels", "Kind", "Model", "Refused", "embedded"]
