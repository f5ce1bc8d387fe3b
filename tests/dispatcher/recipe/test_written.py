"""YAML values on a line of their own."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.recipe.written import parse, to_yaml

AWKWARD = st.text("ab \n\t\r\x85\u2028'\"#:{}")
VALUES = st.one_of(st.text(), AWKWARD, st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False))


@given(VALUES | st.lists(VALUES))
@example("a\nb")
@example(["a", "b\n"])
def test_any_value_takes_one_line_and_reads_back_as_itself(value: object) -> None:
    """One line, because a default in the recipe that `init` writes is commented out by one `#`."""
    line = to_yaml(value)
    assert "\n" not in line
    assert parse(f"field: {line}\n", where="", text_fields=frozenset()).values == {"field": value}
