"""The documentation of the recipe is the schema's own."""

from __future__ import annotations

from pathlib import Path

from dispatcher.recipe.defaults import GUIDE
from dispatcher.recipe.fields import flag
from dispatcher.recipe.lint import CODES
from dispatcher.recipe.reference import reference, with_reference
from dispatcher.recipe.schema import Recipe

DOCS = Path(__file__).parents[3] / "docs"


def test_the_reference_in_the_docs_is_current() -> None:
    document = (DOCS / "recipe.md").read_text(encoding="utf-8")
    assert with_reference(document) == document, "run: python -m dispatcher.recipe.reference docs/recipe.md"


def test_the_reference_has_every_field_and_every_warning() -> None:
    text = reference()
    assert all(f"| `{field}` `{flag(field)}` |" in text for field in Recipe.model_fields)
    assert all(f"| `{code}` |" in text for code in CODES)


def test_the_guide_is_quoted_for_fields_that_exist() -> None:
    assert set(GUIDE) <= set(Recipe.model_fields)
