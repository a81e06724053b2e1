"""Settings: what can be set, and where it is read."""

from picowatch.settings.loading import load_settings
from picowatch.settings.settings import (
    DAILY,
    FILE_NAME,
    FOLDERS,
    PREFIX,
    WITH_LOSSLESS,
    Settings,
    settings_text,
)
from picowatch.settings.values import LOSSLESS, Hook, LocalSettings, RaySettings

__all__ = [
    "DAILY",
    "FILE_NAME",
    "FOLDERS",
    "LOSSLESS",
    "PREFIX",
    "WITH_LOSSLESS",
    "Hook",
    "LocalSettings",
    "RaySettings",
    "Settings",
    "load_settings",
    "settings_text",
]
