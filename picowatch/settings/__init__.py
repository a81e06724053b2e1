"""Settings: what can be set, and where it is read."""

from picowatch.settings.loading import load_settings
from picowatch.settings.settings import DAILY, WITH_LOSSLESS, Settings, settings_text
from picowatch.settings.values import LOSSLESS, Hook, LocalSettings, RaySettings
from picowatch.sources import FILE_NAME, FOLDERS, PREFIX

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
