"""The models in models/, recognised by their names and headers, without torch."""

from picowatch.catalog.catalog import Catalog
from picowatch.catalog.folder_files import weight_files
from picowatch.catalog.models import FoundModels, Kind, Layout, Model, Refused
from picowatch.catalog.scan import DEMO_CONTROLNET, DEMO_UPSCALER, EMBEDDED_NAMES, embedded
from picowatch.families.row import DEMO

__all__ = [
    "DEMO",
    "DEMO_CONTROLNET",
    "DEMO_UPSCALER",
    "EMBEDDED_NAMES",
    "Catalog",
    "FoundModels",
    "Kind",
    "Layout",
    "Model",
    "Refused",
    "embedded",
    "weight_files",
]
