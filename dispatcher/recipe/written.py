"""What stands in a recipe file: its fields, each with the line it stands on.

YAML here is the core schema of YAML 1.2, not PyYAML's 1.1: `1e-4` is a number, `no` and `off` are
words, a date stays text. The text of a field that is text is taken as it stands, so that the revision
`1e10` or the name `007` is not turned into a number first. A recipe is flat, so only scalars and lists
of scalars are read; tags, and with them every way to construct an object, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from trainer_image.trainer.errors import RecipeError

TAG: Final = "tag:yaml.org,2002:"
PLAIN_TAGS: Final = frozenset(TAG + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map"))


class RecipeLoader(yaml.SafeLoader):
    """Resolves plain scalars by the core schema of YAML 1.2 (and integers may have `_`: 10_000)."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  (pyyaml's own class-level table)


class RecipeDumper(yaml.SafeDumper):
    """Quotes exactly what `RecipeLoader` would not read back as text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  (pyyaml's signature)
        """Write equal lists twice rather than as anchor and alias."""
        return True


def _text_on_one_line(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text that would take more than a line plain or in single quotes goes into double quotes."""
    style = '"' if len(text.splitlines()) > 1 or text[-1:].isspace() else None
    return dumper.represent_scalar(TAG + "str", text, style=style)


RecipeDumper.add_representer(str, _text_on_one_line)

for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9][0-9_]*", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", list("-+.")),
):
    for _class in (RecipeLoader, RecipeDumper):
        _class.add_implicit_resolver(TAG + _kind, re.compile(rf"^(?:{_pattern})$"), _first)


@dataclass(frozen=True, slots=True)
class Written:
    """Fields of a recipe as plain values, and the place (`file:line`) of each."""

    values: Mapping[str, Any]
    places: Mapping[str, str]
    where: str

    def place(self, field: str) -> str:
        """Where `field` stands; the file itself for a field that is missing from it."""
        return self.places.get(field, self.where)


def to_yaml(value: Any) -> str:
    """`value` (text, number, truth value, None, or a list of them) as YAML on a single line."""
    text = str(
        yaml.dump(value, Dumper=RecipeDumper, default_flow_style=True, allow_unicode=True, width=1 << 20)
    )
    return text.removesuffix("\n").removesuffix("\n...")


def parse(text: str, *, where: str, text_fields: frozenset[str]) -> Written:
    """Read YAML. RecipeError names file and line of what is not YAML, not flat, or there twice."""
    root = _compose(text, where)
    if not isinstance(root, yaml.MappingNode):
        raise RecipeError("a recipe is a list of `field: value` lines", where=where, fix="see `ftcloud init`")
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key_node, value_node in root.value:
        place = _place(where, key_node)
        key = _key(key_node, place)
        if key in values:
            raise RecipeError(
                f"{key} is there twice",
                where=place,
                fix=f"remove it here or at {places[key]}, where it was first",
            )
        values[key] = _value(value_node, key, _place(where, value_node), as_text=key in text_fields)
        places[key] = place
    return Written(values, places, where)


def scalar(text: str, *, as_text: bool) -> Any:
    """A plain scalar by the same rules as in the file: what a flag's argument means."""
    if as_text:
        return text
    tag = RecipeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]
    return _scalar(tag, text)


def _compose(text: str, where: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=RecipeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{where}:{mark.line + 1}" if mark else where
        raise RecipeError(
            f"not YAML: {error.problem or error.context}",
            where=place,
            fix="quote a value that holds `: ` or ` #`",
        ) from error
    except yaml.YAMLError as error:
        raise RecipeError(f"not YAML: {' '.join(str(error).split())}", where=where) from error


def _key(node: yaml.Node, place: str) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == TAG + "merge":
        raise RecipeError("a field's name must be a plain word", where=place)
    return str(node.value)


def _value(node: yaml.Node, key: str, place: str, *, as_text: bool) -> Any:
    if node.tag not in PLAIN_TAGS:
        raise RecipeError(
            f"{key}: the tag {node.tag} is not read", where=place, fix=f"write {key} as plain text"
        )
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, key, place, as_text=as_text) for item in node.value]
    if not isinstance(node, yaml.ScalarNode):
        raise RecipeError(
            f"{key} holds fields of its own; a recipe is flat", where=place, fix=f"write `{key}: VALUE`"
        )
    if as_text and node.tag != TAG + "null":
        return str(node.value)
    try:
        return _scalar(node.tag, str(node.value))
    except ValueError as error:  # an explicit tag over text that does not fit: `!!int many`
        raise RecipeError(
            f"{key}: {node.value!r} is not {node.tag.removeprefix(TAG)}", where=place
        ) from error


def _scalar(tag: str, text: str) -> Any:
    match tag.removeprefix(TAG):
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text.replace("_", ""))
        case "float":
            return float(text.replace("_", "").replace(".inf", "inf").replace(".nan", "nan").lower())
        case _:
            return text


def _place(where: str, node: yaml.Node) -> str:
    return f"{where}:{node.start_mark.line + 1}"
