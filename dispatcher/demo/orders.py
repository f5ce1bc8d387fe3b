"""The demo's task: an order e-mail in, strict JSON {"name", "city", "item", "quantity"} out.

Rows are chat messages. Training and validation share their words and sentences; the test rows use
others (see `words`), so the score says whether the model learned to read an order, not which orders
it saw. Everything follows from the seed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dispatcher.demo.words import HELD_OUT, TRAINING, Words

SYSTEM_LINE = "Give the order as JSON with name, city, item (singular) and quantity."
"""Short, because every row pays for it; own, because the model's default system text is longer."""

BORROWED_SHARE = 0.5
"""Share of training rows whose name and city are any training words, "Velvet Oviedo" from "Skillet" say:
such a row can only be copied, so the model learns to spell what it reads instead of recalling a name."""

NUMBER_WORDS = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
LARGER_QUANTITIES = (15, 18, 20, 24, 30, 36, 40, 48, 50, 60, 75, 100)


@dataclass(frozen=True, slots=True)
class Rows:
    """How many rows each split gets. The defaults fit the demo's ten minutes on two CPU cores."""

    train: int = 208
    validation: int = 20
    test: int = 100


@dataclass(frozen=True, slots=True)
class Order:
    """One row: the e-mail and the object that it should become."""

    email: str
    name: str
    city: str
    item: str
    quantity: int

    def answer(self) -> str:
        """The object as one line of JSON, keys in the order that the system line names."""
        wanted = {"name": self.name, "city": self.city, "item": self.item, "quantity": self.quantity}
        return json.dumps(wanted, ensure_ascii=False)

    def as_chat(self) -> dict[str, list[dict[str, str]]]:
        return {
            "messages": [
                {"role": "system", "content": SYSTEM_LINE},
                {"role": "user", "content": self.email},
                {"role": "assistant", "content": self.answer()},
            ]
        }


@dataclass(frozen=True, slots=True)
class Orders:
    """The three files that `write` made."""

    train: Path
    validation: Path
    test: Path


def write(folder: Path, seed: int, rows: Rows | None = None) -> Orders:
    """Write train.jsonl, validation.jsonl and test.jsonl into `folder`; equal seeds, equal bytes."""
    rows = rows or Rows()
    folder.mkdir(parents=True, exist_ok=True)
    learned = list(_distinct(training_orders(seed), rows.train + rows.validation))
    return Orders(
        train=_write(folder / "train.jsonl", learned[: rows.train]),
        validation=_write(folder / "validation.jsonl", learned[rows.train :]),
        test=_write(folder / "test.jsonl", list(_distinct(test_orders(seed), rows.test))),
    )


def training_orders(seed: int) -> Iterator[Order]:
    """Endless orders from the training words, some with borrowed names and cities."""
    return _orders(TRAINING, random.Random(f"train {seed}"), BORROWED_SHARE)


def test_orders(seed: int) -> Iterator[Order]:
    """Endless orders from the held-out words alone."""
    return _orders(HELD_OUT, random.Random(f"test {seed}"), 0.0)


def plural(item: str) -> str:
    """Regular English plural; the word lists hold no irregular ones."""
    return item + ("es" if item.endswith(("s", "x", "sh", "ch")) else "s")


def _orders(words: Words, rng: random.Random, borrowed_share: float) -> Iterator[Order]:
    # Each list is dealt out like a pack of cards: every word is seen about equally often.
    first_names, surnames, cities, items, templates = (
        _deal(values, rng)
        for values in (words.first_names, words.surnames, words.cities, words.items, words.templates)
    )
    any_words = _deal(_capitalised_words(words), rng)
    while True:
        name, city, item = f"{next(first_names)} {next(surnames)}", next(cities), next(items)
        if rng.random() < borrowed_share:
            name, city = f"{next(any_words)} {next(any_words)}", next(any_words)
        quantity = _quantity(rng)
        said = str(quantity)
        if quantity <= len(NUMBER_WORDS) and rng.random() < 0.5:
            said = NUMBER_WORDS[quantity - 1]
        things = item if quantity == 1 else plural(item)
        email = next(templates).format(name=name, city=city, quantity=said, item=things)
        yield Order(email, name, city, item, quantity)


def _deal(values: tuple[str, ...], rng: random.Random) -> Iterator[str]:
    while True:
        yield from rng.sample(values, len(values))


def _quantity(rng: random.Random) -> int:
    return rng.randint(1, len(NUMBER_WORDS)) if rng.random() < 0.7 else rng.choice(LARGER_QUANTITIES)


def _capitalised_words(words: Words) -> tuple[str, ...]:
    of_items = (word.capitalize() for item in words.items for word in item.split())
    return tuple(dict.fromkeys((*words.first_names, *words.surnames, *words.cities, *of_items)))


def _distinct(orders: Iterator[Order], count: int) -> Iterator[Order]:
    seen: set[str] = set()
    while len(seen) < count:
        order = next(orders)
        if order.email not in seen:
            seen.add(order.email)
            yield order


def _write(path: Path, orders: list[Order]) -> Path:
    lines = (json.dumps(order.as_chat(), ensure_ascii=False) + "\n" for order in orders)
    path.write_text("".join(lines), encoding="utf-8")
    return path
