"""The rules of each variant of each flow family."""

from picowatch.families import FAMILIES, FLOWS
from picowatch.recipe.inventory import rules_of

FLOW_RULES = {
    (family, variant): rules_of(family, variant)
    for family in FLOWS
    for variant in FAMILIES[family].variants
}
