"""NAME, NAME:VERSION, NAME@ALIAS."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.recipe.load import build_recipe
from dispatcher.registry.reference import Reference, nearest, parse_reference
from dispatcher.registry.version import NAME, check_name
from trainer_image.trainer.errors import UsageError

names = st.from_regex(NAME, fullmatch=True)


@given(name=names, version=st.integers(1, 10**6), alias=names.filter(lambda alias: alias != "latest"))
def test_what_is_written_is_read_back(name: str, version: int, alias: str) -> None:
    for reference in (Reference(name), Reference(name, version=version), Reference(name, alias=alias)):
        assert parse_reference(str(reference)) == reference


@given(st.text(max_size=80))
def test_a_name_that_passes_is_one_plain_folder(name: str) -> None:
    try:
        check_name(name, "model name")
    except UsageError:
        return
    assert PurePosixPath("models", name).parts == ("models", name)
    assert name == name.lower() and not name.startswith(".") and len(name) <= 64


@given(st.text(alphabet="aZ0.-_/ é\n", min_size=1, max_size=70))
def test_a_recipe_and_the_registry_allow_the_same_names(name: str) -> None:
    def accepts(check: Callable[[], object]) -> bool:
        try:
            check()
        except UsageError:
            return False
        return True

    recipe = {"name": name, "model": "org/model", "data": "rows.jsonl"}
    assert accepts(lambda: build_recipe(recipe)) == accepts(lambda: check_name(name, "model name"))


def test_latest_means_the_newest() -> None:
    assert parse_reference("orders@latest") == Reference("orders")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not a possible model name"),
        ("Orders", "is not a possible model name"),
        ("../x", "is not a possible model name"),
        ("orders:", "'' is not a version number"),
        ("orders:0", "'0' is not a version number"),
        ("orders:v1", "'v1' is not a version number"),
        ("orders:1@x", "'1@x' is not a version number"),
        ("orders:²", "'²' is not a version number"),
        ("orders@", "is not a possible alias"),
        ("orders@a:1", "is not a possible model name"),
    ],
)
def test_each_way_to_write_it_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse_reference(text)


def test_the_nearest_name_is_suggested_and_else_all_are_listed() -> None:
    assert nearest("ordrs", ["orders", "mails"]) == "did you mean orders?"
    assert nearest("xyz", ["orders", "mails"]) == "there is mails, orders"
    assert nearest("xyz", []) == "see: ftcloud models"
