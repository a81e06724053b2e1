"""How hypothesis runs here."""

from hypothesis import settings

# A busy machine is no failure: what may take how long is tested where it matters.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
