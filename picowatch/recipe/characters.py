"""Characters that nobody can see, which neither recipes nor names may hold."""

import re
import unicodedata

# Controls other than tab and line break, what YAML and Unicode count as further line breaks
# (lines would be counted differently than an editor counts them), and non-characters.
_HIDDEN = "\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff"
FORBIDDEN = re.compile(f"[{_HIDDEN}]")
NEVER_IN_NAMES = re.compile(f"[\t\n{_HIDDEN}]")


def invisible(character: str) -> str:
    """Return the words for a character that cannot be seen."""
    code = f"U+{ord(character):04X}"
    if character == "\0":
        return f"the NUL character ({code})"
    name = unicodedata.name(character, "")
    return f"the invisible character {code}" + (f" ({name.lower()})" if name else "")
