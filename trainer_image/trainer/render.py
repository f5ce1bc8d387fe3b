"""From a row to tokens: the text a model sees, where its answers lie in it, and which tokens are learned.

The model's own chat template is used where its tokenizer has one (instruction and prompt-completion rows
become a user and an assistant turn), else `### Instruction / ### Input / ### Response` blocks.

Two promises hold for every row. The tokens of the last prompt are exactly those that generation will
be given for it (`encode_prompt(tokenizer, prompt_of(tokenizer, row)[0])`), and a learned token belongs
to an answer or to the marker that ends it.

Some templates rewrite earlier turns once later ones follow (they drop a chain of thought): what an
earlier answer was predicted from is then not in the text. Of such rows only the last answer is learned,
and a warning counts them.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2.exceptions import TemplateError

from trainer_image.trainer.batches import Example
from trainer_image.trainer.data import Row, Turn, read_rows
from trainer_image.trainer.errors import DataError
from trainer_image.trainer.spec import DataSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase as Tokenizer

MAX_DROPPED_SHARE = 0.1
HEADINGS = {"system": "### System", "user": "### Instruction", "assistant": "### Response"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Character offsets in the rendered text: what the model says, then the marker that ends its turn."""

    start: int
    content_end: int
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    text: str
    answers: tuple[Answer, ...]
    rewritten: bool = False
    """The template rewrites earlier turns: `answers` holds the last one only."""


@dataclass(slots=True)
class Split:
    """The examples of one file, and what was lost on the way to them."""

    examples: list[Example] = field(default_factory=list)
    rows: int = 0
    dropped: int = 0
    """Rows left out: too long, or without a token to learn once truncated."""
    truncated: int = 0
    tokens_lost: int = 0
    rewritten: int = 0
    """Rows of which only the last answer is learned."""

    @property
    def tokens(self) -> int:
        return sum(len(example.ids) for example in self.examples)

    @property
    def loss_tokens(self) -> int:
        return sum(example.loss_tokens for example in self.examples)

    def warnings(self, name: str) -> list[str]:
        lost = f" ({self.tokens_lost:,} tokens lost)"
        said = [
            (self.dropped, f"of {self.rows:,} {name} rows are too long and were dropped" + lost),
            (self.truncated, f"of {self.rows:,} {name} rows are too long and were cut" + lost),
            (
                self.rewritten,
                f"of {self.rows:,} {name} rows teach their last answer only: the chat template rewrites the "
                "turns before it",
            ),
        ]
        return [f"{count:,} {text}" for count, text in said if count]


def encode_file(path: Path, tokenizer: Tokenizer, data: DataSpec) -> Split:
    """Render and tokenise every row of `path`.

    Raises DataError for a row that cannot be read or rendered, for a row longer than `data.seq_len`
    where `data.overlong` is `refuse`, when more than a tenth of the rows would be dropped, and when no
    row has a token to learn.
    """
    split = Split()
    for row in read_rows(path, data.format):
        split.rows += 1
        rendered = render(tokenizer, row)
        split.rewritten += rendered.rewritten
        _keep(split, encode(tokenizer, rendered, data), data, row.where)
    if not split.examples:
        raise DataError(
            f"nothing would be learned: none of {split.rows:,} rows has a token that carries loss within "
            f"{data.seq_len} tokens",
            where=path.name,
            fix="raise seq_len, or shorten the prompts",
        )
    if split.dropped > MAX_DROPPED_SHARE * split.rows:
        raise DataError(
            f"{split.dropped:,} of {split.rows:,} rows would be dropped: they teach nothing within "
            f"{data.seq_len} tokens",
            where=path.name,
            fix="raise seq_len" + (", or set overlong: truncate" if data.overlong == "drop" else ""),
        )
    return split


def _keep(split: Split, example: Example, data: DataSpec, where: str) -> None:
    """Add the example to the split, or count what of it is lost."""
    length = len(example.ids)
    if length > data.seq_len:
        if data.overlong == "refuse":
            raise DataError(
                f"the row has {length:,} tokens, seq_len is {data.seq_len:,}",
                where=where,
                fix="raise seq_len, shorten the row, or set overlong to drop or truncate",
            )
        example = Example(example.ids[: data.seq_len], example.target[: data.seq_len])
        split.tokens_lost += length - data.seq_len
        if data.overlong == "drop" or not any(example.target):
            split.tokens_lost += data.seq_len
            split.dropped += 1
            return
        split.truncated += 1
    elif not any(example.target):
        split.dropped += 1
        split.tokens_lost += length
        return
    split.examples.append(example)


def prompts_of_file(path: Path, tokenizer: Tokenizer, data: DataSpec) -> Iterable[tuple[str, str]]:
    """`prompt_of` for every row of a file."""
    return (prompt_of(tokenizer, row) for row in read_rows(path, data.format))


def prompt_of(tokenizer: Tokenizer, row: Row) -> tuple[str, str]:
    """The text that generation starts from, and the answer expected: the last assistant turn."""
    if not row.turns:
        raise DataError(
            "a row of format completion has no prompt and no answer to score",
            where=row.where,
            fix="set the metric to none, or use another format for the test rows",
        )
    *before, answer = row.turns
    return _prompt(tokenizer, before, row.where), answer.content


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """Tokens of a prompt made by `prompt_of`, as in training.

    A chat template writes its own special tokens; before plain text comes what the tokenizer puts
    before any text by itself (a BOS), and never what it puts after.
    """
    return _ids(tokenizer, text) if tokenizer.chat_template else _leading(tokenizer) + _ids(tokenizer, text)


def render(tokenizer: Tokenizer, row: Row) -> Rendered:
    """The whole text of a row and where its answers are; the text ends with the last answer."""
    if not row.turns:
        return Rendered(row.text, (Answer(0, len(row.text), len(row.text)),))
    if tokenizer.chat_template:
        return _by_template(tokenizer, row)
    return _by_headings(tokenizer, row.turns)


def encode(tokenizer: Tokenizer, rendered: Rendered, data: DataSpec) -> Example:
    """Tokens of a rendered row and which of them are learned; not yet cut to `seq_len`."""
    answers = rendered.answers
    ends = [a.end if data.train_on_eos else a.content_end for a in answers]
    spans = [(a.start, end) for a, end in zip(answers, ends, strict=True)]
    plain = not tokenizer.chat_template or rendered.answers[0].start == 0  # no template wrote this text
    lead = _leading(tokenizer, rendered.text) if plain else []
    ids, learned = _tokenise(tokenizer, rendered.text, spans)
    ids, learned = lead + ids, [(start + len(lead), end + len(lead)) for start, end in learned]
    target = bytearray(len(ids))
    for start, end in learned:
        target[start:end] = b"\1" * (end - start)
    eos = tokenizer.eos_token_id
    if data.loss_on == "all":
        target = bytearray(data.train_on_eos or token != eos for token in ids)
    if data.append_eos and eos is not None and ids[-1:] != [eos]:
        ids.append(eos)
        target.append(data.train_on_eos)
    target[:1] = b"\0" * len(target[:1])  # nothing stands before the first token to predict it from
    return Example(array("i", ids), bytes(target))


def _tokenise(
    tokenizer: Tokenizer, text: str, spans: list[tuple[int, int]]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Tokens of `text`, and the spans of characters in it as spans of tokens.

    Where each span's edges are edges of tokens too, the text is tokenised as a whole. Otherwise a token
    would straddle prompt and answer: the text up to the last prompt is then tokenised as generation
    will do it, the answer by itself, and earlier answers are learned only if their edges hold.
    """
    whole = _ids(tokenizer, text)
    edges = [tuple(_edge(tokenizer, text, place, whole) for place in span) for span in spans]
    sound = [(start, end) for start, end in edges if start is not None and end is not None]
    if len(sound) == len(spans):
        return whole, sound
    start, end = spans[-1]
    prompt = _ids(tokenizer, text[:start])
    answer, rest = _ids(tokenizer, text[start:end]), _ids(tokenizer, text[end:])
    earlier = [
        (first, last)
        for a, b in spans[:-1]
        if (first := _edge(tokenizer, text, a, prompt)) is not None
        and (last := _edge(tokenizer, text, b, prompt)) is not None
    ]
    return prompt + answer + rest, [*earlier, (len(prompt), len(prompt) + len(answer))]


def _edge(tokenizer: Tokenizer, text: str, place: int, ids: list[int]) -> int | None:
    """How many of `ids` the text before `place` makes; None where it would be tokenised otherwise alone."""
    if place >= len(text):
        return len(ids)
    before = _ids(tokenizer, text[:place])
    return len(before) if ids[: len(before)] == before else None


def _by_template(tokenizer: Tokenizer, row: Row) -> Rendered:
    turns = row.turns
    full = _apply(tokenizer, turns, row.where)
    answers, rewritten = [], False
    for k, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        prompt = _prompt(tokenizer, turns[:k], row.where)
        closed = full if k == len(turns) - 1 else _apply(tokenizer, turns[: k + 1], row.where)
        if full.startswith(prompt) and full.startswith(closed) and len(prompt) < len(closed):
            answers.append(_answer(full[: len(closed)], len(prompt), turn.content, tokenizer.eos_token or ""))
        elif k < len(turns) - 1:
            rewritten = True
        else:
            raise DataError(
                "the chat template renders the prompt of the last answer differently once the answer "
                "follows: training and generation would see different prompts",
                where=row.where,
                fix="use a base model whose template keeps its generation prompt, or prompt/completion rows "
                "with a model without a chat template",
            )
    last = answers[-1]
    return Rendered(full[: last.end], (last,) if rewritten else tuple(answers), rewritten)


def _answer(text: str, start: int, content: str, eos: str) -> Answer:
    """The answer that begins at `start` and reaches to the end of `text`, white space aside."""
    end = max(start, len(text.rstrip()))
    found = text.rfind(content.strip(), start, end)
    if found >= 0:
        return Answer(start, found + len(content.strip()), end)
    # The template changed the content itself; the marker is then known only if it is the EOS.
    return Answer(start, end - len(eos) if eos and text[:end].endswith(eos) else end, end)


def _by_headings(tokenizer: Tokenizer, turns: tuple[Turn, ...]) -> Rendered:
    text, answers = "", []
    for turn in turns:
        if turn.role == "assistant":
            start = len(text) + len(HEADINGS["assistant"]) + 1
            content_end = start + len(turn.content)
            answers.append(Answer(start, content_end, content_end + len(tokenizer.eos_token or "")))
        text += _block(tokenizer, turn)
    # The marker after the last answer is left to `append_eos`.
    start, end = answers[-1].start, answers[-1].content_end
    return Rendered(text[:end], (*answers[:-1], Answer(start, end, end)))


def _block(tokenizer: Tokenizer, turn: Turn) -> str:
    end = tokenizer.eos_token or "" if turn.role == "assistant" else ""
    material = f"### Input\n{turn.input}\n\n" if turn.input.strip() else ""
    return f"{HEADINGS[turn.role]}\n{turn.content}{end}\n\n{material}"


def _prompt(tokenizer: Tokenizer, turns: Sequence[Turn], where: str) -> str:
    if tokenizer.chat_template:
        return _apply(tokenizer, turns, where, generation=True)
    return "".join(_block(tokenizer, turn) for turn in turns) + f"{HEADINGS['assistant']}\n"


def _apply(tokenizer: Tokenizer, turns: Sequence[Turn], where: str, *, generation: bool = False) -> str:
    messages = [
        {
            "role": turn.role,
            "content": "\n\n".join(part for part in (turn.content, turn.input) if part.strip()),
        }
        for turn in turns
    ]
    try:
        text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generation)
    except TemplateError as error:
        raise DataError(
            f"the model's chat template refuses the conversation: {error}",
            where=where,
            fix="many templates know no system message; move its text into the first user message",
        ) from error
    return text


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def _leading(tokenizer: Tokenizer, text: str = "") -> list[int]:
    """What the tokenizer puts before a text by itself, unless the text begins with it already."""
    bare, dressed = _ids(tokenizer, "a"), tokenizer("a")["input_ids"]
    lead = dressed[: next((i for i in range(len(dressed)) if dressed[i : i + len(bare)] == bare), 0)]
    return [] if lead and _ids(tokenizer, text)[: len(lead)] == lead else lead
