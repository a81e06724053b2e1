"""Numbers as texts that recipes, YAML and A1111's readers all read back as the same number."""


def plain_number(value: float) -> str:
    """7.0 as "7", 7.5 as "7.5", 1e-07 as "1.0e-07": without a point that is text to YAML 1.1."""
    text = repr(float(value)).removesuffix(".0")
    mantissa, exponent, power = text.partition("e")
    return text if not exponent or "." in mantissa else f"{mantissa}.0e{power}"
