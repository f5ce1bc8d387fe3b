"""Useful tokens a second of our trainer, of transformers' Trainer and of TRL's SFTTrainer.

    .venv/bin/python benchmarks/trainer_throughput.py [--rounds 5] [--rows 200] [--seed 0] [--model FOLDER]

Same model (the demo's), rows, LoRA and precision, one epoch each, in one process. The contestants take turns,
in another order each round; the median round counts. A useful token is one that is no pad. Two tables: the
peers as installed, and the peers level with us, where the held-out loss shows that all learned the same.

    .venv/bin/python benchmarks/trainer_throughput.py --ablate

measures our trainer alone, with its own forward pass of a LoRA layer and with peft's.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from benchmarks.throughput.report import Measured, table, verdict
from benchmarks.throughput.rows import Lengths, Split, make_rows, padded_share, tokens_of
from dispatcher.demo.model import demo_model
from dispatcher.storage.home import open_home
from trainer_image.trainer.batches import order
from trainer_image.trainer.hardware import Hardware, detect

if TYPE_CHECKING:
    from benchmarks.throughput.setting import Contestant, Setting

T = TypeVar("T")
HELD_OUT = 40
LENGTHS = Lengths(median=16, longest=128)
"""Tokens of a row: as skewed as with a median of 64 and at most 512, in a quarter of the time."""
PACKAGES = ("torch", "transformers", "peft", "accelerate", "trl", "datasets")


def main() -> None:
    arguments = parse()
    # Read when the libraries are loaded: waiting threads are not to spin, and nothing is to be fetched.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    folder = arguments.model or demo_model(open_home().cache, lambda line: print(line, file=sys.stderr))

    from benchmarks.throughput.setting import BATCH, Setting, choose_precision
    from trainer_image.trainer.model import load_tokenizer

    hardware = detect()
    with tempfile.TemporaryDirectory() as workspace:
        setting = Setting(folder, choose_precision(hardware), arguments.seed, Path(workspace))
        silence()
        tokenizer = load_tokenizer(setting.spec().model)
        rows = make_rows(
            lambda text: tokenizer(text, add_special_tokens=False)["input_ids"],
            Lengths(arguments.median, arguments.longest),
            train=arguments.rows,
            held_out=HELD_OUT,
            seed=arguments.seed,
        )
        describe(hardware, setting, rows, BATCH)
        if arguments.ablate:
            ablation(setting, rows, arguments.rounds)
        else:
            comparison(setting, rows, arguments.rounds)


def parse(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="compare the throughput of trainers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--median", type=int, default=LENGTHS.median, help="tokens of the median row")
    parser.add_argument("--longest", type=int, default=LENGTHS.longest, help="tokens that a row has at most")
    parser.add_argument("--model", type=Path, help="folder of the base model (default: the demo's)")
    parser.add_argument("--ablate", action="store_true", help="only ours, with and without its forward pass")
    return parser.parse_args(given)


def comparison(setting: Setting, rows: Split, rounds: int) -> None:
    from benchmarks.throughput.ours import Ours
    from benchmarks.throughput.peers import installed, level

    ours, first, second = Ours(), installed(setting.precision), level()
    found = measure([ours, *first.values(), *second.values()], setting, rows, rounds)
    for title, peers, over_trainer, over_trl in (
        ("Peers as installed", first, 2.0, 1.1),
        ("Peers level with us", second, None, 1.0),
    ):
        of = {way: found[peer] for way, peer in peers.items()}
        print()
        for line in table(title, [found[ours], *of.values()], [of["padded"], of["bfd"]]):
            print(line)
        if over_trainer:
            print(verdict(found[ours], over_trainer, [of["padded"]]))
        print(verdict(found[ours], over_trl, [of["bfd"], of["padding-free"]]))


def ablation(setting: Setting, rows: Split, rounds: int) -> None:
    from benchmarks.throughput.ours import Ours

    ours, plain = Ours(), Ours("ftcloud, peft's forward", peft_forward=True)
    found = measure([ours, plain], setting, rows, rounds)
    print()
    for line in table("Our trainer", list(found.values()), [found[plain]]):
        print(line)
    spared = 1 - found[plain].rate / found[ours].rate
    print(f"our forward pass of a LoRA layer spares {spared:.0%} of the time of a training step")


def measure(
    contestants: Iterable[Contestant], setting: Setting, rows: Split, rounds: int
) -> dict[Contestant, Measured]:
    """Every contestant once a round, after a warm-up step each; equal contestants are measured once."""
    from benchmarks.throughput.setting import BATCH, held_out_loss

    found = {one: Measured(one.name) for one in contestants}
    for one, measured in found.items():
        try:
            one.train(setting, rows.train[:BATCH])
        except Exception as error:  # a peer that refuses or breaks stays in the table, with its reason
            measured.failure = f"{type(error).__name__}: {error}"
            note(f"warm-up  {one.name}: {measured.failure}")
    for number in range(rounds):
        for one in rotated(list(found), number):
            measured = found[one]
            if measured.failure:
                continue
            outcome = one.train(setting, rows.train)
            measured.seconds.append(outcome.seconds)
            measured.tokens, measured.steps = outcome.tokens, outcome.steps
            if number == 0:  # equal seeds, equal weights: judged once
                measured.loss = held_out_loss(outcome.model, rows.held_out)
            note(f"round {number + 1}  {one.name:<28} {outcome.seconds:7.1f} s")
            del outcome
            gc.collect()
    return found


def rotated(contestants: Sequence[T], number: int) -> list[T]:
    """Another first one each round."""
    start = number % len(contestants)
    return [*contestants[start:], *contestants[:start]]


def describe(hardware: Hardware, setting: Setting, rows: Split, batch: int) -> None:
    import torch

    lengths = [len(row.ids) for row in rows.train]
    tokens, learned = tokens_of(rows.train), sum(row.loss_tokens for row in rows.train)
    visited = [rows.train[i] for i in order(setting.seed, 0, len(rows.train))]
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    print(f"{hardware.cpu}, {hardware.describe()}, {torch.get_num_threads()} threads")
    print(f"Python {platform.python_version()}, {versions}")
    print(f"{setting.folder.name}, {setting.precision}, LoRA r 16 on all linear layers, {batch} rows a step")
    print(
        f"{len(lengths)} rows, {tokens} tokens, {learned / tokens:.0%} with loss; lengths: median "
        f"{statistics.median(lengths):.0f}, mean {tokens / len(lengths):.0f}, longest {max(lengths)}; "
        f"{padded_share(visited, batch):.0%} pads in padded batches",
        flush=True,
    )


def version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def silence() -> None:
    """Bars and advice of the libraries would hide the rounds."""
    import logging
    import warnings

    import transformers

    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    logging.disable(logging.WARNING)


def note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
