"""docs/security.md promises nothing that no test holds."""

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs/security.md").read_text()
TESTS = {
    name
    for path in HERE.parent.rglob("test_*.py")
    for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
}


def test_every_test_named_in_the_page_exists() -> None:
    """The page has its whole name."""
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 20
    assert named - TESTS == set()


def test_every_claim_of_the_table_names_a_test() -> None:
    """In its second column."""
    (table,) = re.findall(r"^\| claim \|.*?\n\n", PAGE, re.DOTALL | re.MULTILINE)
    rows = table.strip().splitlines()[2:]
    assert len(rows) > 20
    assert [row for row in rows if not re.search(r"\| `test_\w+`", row)] == []
