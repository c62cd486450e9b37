"""Stage one: a tokenizer and a UMT5 encoder, trained alone to tell apart what prompts ask for, then frozen.

Every token of a prompt is taught the whole answer, so that the transformer, which reads all of them by
cross-attention, finds it anywhere. Padding is zero to it, as in the Wan pipelines. What lies beyond
``LENGTH`` is cut off: it has to hold a long scene with the camera behind it.
"""

from __future__ import annotations

import itertools
import json
import math
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import nn
from torch.nn import functional
from transformers import T5TokenizerFast, UMT5Config, UMT5EncoderModel

from models.tiny_wan.recipe.asked import AXES, KINDS, RATES, THINGS, Asked, with_rate
from models.tiny_wan.recipe.data.camera import PACES
from models.tiny_wan.recipe.data.grammar import all_words
from models.tiny_wan.recipe.prompts import random_prompt

#: Tokens of a prompt the model was trained with, the end and the padding included.
LENGTH = 128
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
IGNORED = -100
#: Answers a prompt has, with the number of classes of each.
ANSWERS: dict[str, int] = {
    **{axis: 3 for axis in AXES},
    "pace": len(PACES),
    "parallax": 2,
    "thing": len(THINGS),
    "rate": len(RATES),
}


@dataclass(frozen=True)
class Budget:
    """How large the text stage is and how long it learns."""

    steps: int = 9000
    batch: int = 192
    vocabulary: int = 1600
    corpus: int = 30_000
    peak_learning_rate: float = 2e-3
    hidden_size: int = 128
    layers: int = 3
    #: So many tokens are any other: no answer may hang on one word of scenery.
    swapped: float = 0.05


def answers(asked: Asked, rate: float) -> list[int]:
    """The class of each of ``ANSWERS``."""
    axes = []
    for ways in AXES.values():
        said = [way for way in ways if way in asked.camera]
        axes.append(0 if not said else 1 + ways.index(said[0]))
    pace = list(PACES).index(asked.pace) if asked.moves else IGNORED
    return [*axes, pace, int(asked.parallax), THINGS.index(asked.thing), RATES.index(rate)]


def write_tokenizer(folder: Path, corpus: list[str], vocabulary: int) -> Any:
    """Train a unigram model (Kudo 2018) on ``corpus`` and write it as a T5 tokenizer's files."""
    tokenizer = Tokenizer(models.Unigram())
    # What transformers gives every T5 tokenizer when it reads one.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace()
    letters = [chr(code) for code in range(33, 127)]
    trainer = trainers.UnigramTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, UNKNOWN],
        unk_token=UNKNOWN,
        initial_alphabet=[*letters, "▁"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, tokenizer.token_to_id(END))]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"pad_token": PAD, "eos_token": END, "unk_token": UNKNOWN}
    settings = {**special, "extra_ids": 0, "model_max_length": 512, "tokenizer_class": "T5TokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return T5TokenizerFast.from_pretrained(folder)


def new_text_encoder(budget: Budget, vocabulary: int) -> UMT5EncoderModel:
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=vocabulary,
            d_model=budget.hidden_size,
            d_kv=32,
            d_ff=2 * budget.hidden_size,
            num_layers=budget.layers,
            num_heads=4,
            dropout_rate=0.0,
            pad_token_id=0,
            eos_token_id=1,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )


class Classifier(nn.Module):
    """The encoder, and a linear head for each answer."""

    def __init__(self, encoder: UMT5EncoderModel) -> None:
        super().__init__()
        self.encoder = encoder
        size = encoder.config.d_model
        self.heads = nn.ModuleDict({name: nn.Linear(size, classes) for name, classes in ANSWERS.items()})

    def forward(self, ids: torch.Tensor) -> list[torch.Tensor]:
        """(B, T) ids to logits (B, T, classes) of each answer."""
        states = self.encoder(ids, ids.gt(0).long()).last_hidden_state
        return [head(states) for head in self.heads.values()]


@dataclass(frozen=True)
class Labelled:
    """Prompts in ids with their answers."""

    ids: list[list[int]]
    answers: list[list[int]]


def draw(rng: random.Random, count: int, tokenizer: Any, *, held_out: bool = False) -> Labelled:
    """Random prompts of all kinds, their rates told."""
    texts, wanted = [], []
    weights = [share**0.5 for _, share in KINDS.values()]
    for _ in range(count):
        asked = rng.choice(rng.choices(list(KINDS.values()), weights)[0][0])
        if rng.random() < 0.08:
            asked = Asked(("still",))
        rate = rng.choice(RATES)
        texts.append(with_rate(random_prompt(rng, asked, held_out=held_out), rate))
        wanted.append(answers(asked, rate))
    return Labelled(tokenizer(texts, truncation=True, max_length=LENGTH).input_ids, wanted)


@dataclass(frozen=True)
class _Draws:
    """What a process needs to draw prompts: called with a number, it draws that many's own batches."""

    tokenizer: Any
    seed: int
    count: int

    def __call__(self, number: int) -> tuple[Any, Any]:
        drawn = draw(random.Random(f"{self.seed} {number}"), self.count, self.tokenizer)
        return padded(drawn.ids, LENGTH).numpy().astype(np.int16), np.array(drawn.answers)


def _drawn(draws: _Draws, workers: int) -> Iterator[tuple[Any, Any]]:
    """Fresh prompts without end, drawn by other processes, or by this one where there are no workers."""
    if workers == 0:
        yield from map(draws, itertools.count())
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        asked = [pool.apply_async(draws, (number,)) for number in range(2 * workers)]
        for number in itertools.count(len(asked)):
            asked.append(pool.apply_async(draws, (number,)))
            yield asked.pop(0).get()


def padded(ids: list[list[int]], length: int) -> torch.Tensor:
    return torch.tensor([row[:length] + [0] * (length - len(row)) for row in ids])


def _loss(logits: list[torch.Tensor], wanted: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Cross entropy of all answers; the tokens of a prompt share its weight."""
    total = share.new_zeros(())
    for place, answer in enumerate(logits):
        target = wanted[:, place, None].expand(-1, answer.shape[1])
        each = functional.cross_entropy(
            answer.flatten(0, 1), target.flatten(), reduction="none", ignore_index=IGNORED
        )
        total = total + (each.view(target.shape) * share).sum()
    return total / len(wanted)


def train(
    tokenizer: Any,
    budget: Budget,
    seed: int,
    *,
    device: str = "cpu",
    workers: int = 0,
    given: UMT5EncoderModel | None = None,
) -> Classifier:
    """Train on fresh prompts; it comes back on the CPU. It goes on from a ``given`` encoder at a fifth of the
    rate, after its new heads have learnt to read that one.
    """
    torch.manual_seed(seed)
    rng, generator = random.Random(seed), torch.Generator(device).manual_seed(seed)
    model = Classifier(given or new_text_encoder(budget, len(tokenizer))).to(device)
    if given is None:
        with torch.no_grad():
            model.encoder.shared.weight.normal_(0, 1)
    frozen_steps = budget.steps // 20 if given else 0
    rates = {model.encoder: budget.peak_learning_rate / (5 if given else 1)}
    rates[model.heads] = budget.peak_learning_rate
    optimizer = torch.optim.AdamW(
        [{"params": part.parameters(), "lr": rate} for part, rate in rates.items()], weight_decay=0.02
    )
    warm = max(1, budget.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / budget.steps) + 1e-3),
    )
    fresh = _drawn(_Draws(tokenizer, seed, 32 * budget.batch), workers)
    began, batches = time.monotonic(), []
    for step in range(budget.steps):
        if not batches:
            ids, right = next(fresh)
            batches = np.split(np.argsort((ids > 0).sum(1), kind="stable"), 32)
            rng.shuffle(batches)
        chosen = batches.pop()
        length = int((ids[chosen] > 0).sum(1).max())
        rows = torch.from_numpy(ids[chosen, :length].astype(np.int64)).to(device)
        wanted = torch.from_numpy(right[chosen]).to(device)
        share = rows.gt(0) / rows.gt(0).sum(1, keepdim=True)
        swap = torch.rand(rows.shape, generator=generator, device=device) < budget.swapped
        swap &= rows.gt(1)
        swap[:, :3] = False  # the rate
        others = torch.randint(3, len(tokenizer), rows.shape, generator=generator, device=device)
        model.encoder.requires_grad_(step >= frozen_steps)
        loss = _loss(model(torch.where(swap, others, rows)), wanted, share)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == budget.steps - 1:
            print(
                f"text step {step:5d}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s", flush=True
            )
    fresh.close()
    return model.cpu().eval()


@torch.no_grad()
def accuracy(model: Classifier, encoder: UMT5EncoderModel, drawn: Labelled) -> dict[str, float]:
    """Shares of prompts whose tokens' mean answer is right, read through ``encoder``; camera: all axes."""
    right: dict[str, list[torch.Tensor]] = {name: [] for name in (*ANSWERS, "camera")}
    for at in range(0, len(drawn.ids), 128):
        rows, wanted = padded(drawn.ids[at : at + 128], LENGTH), torch.tensor(drawn.answers[at : at + 128])
        states = encoder(rows, rows.gt(0).long()).last_hidden_state
        share = (rows.gt(0) / rows.gt(0).sum(1, keepdim=True))[..., None]
        camera = torch.ones(len(rows), dtype=torch.bool)
        for place, (name, head) in enumerate(model.heads.items()):
            told = (head(states).softmax(-1) * share).sum(1).argmax(-1)
            matters = wanted[:, place] != IGNORED
            right[name].append((told == wanted[:, place])[matters])
            if name in AXES:
                camera &= told == wanted[:, place]
        right["camera"].append(camera)
    return {name: float(torch.cat(parts).float().mean()) for name, parts in right.items()}


def make(
    folder: Path,
    budget: Budget,
    seed: int,
    *,
    device: str = "cpu",
    workers: int = 0,
    test_prompts: int = 3000,
    given: Path | None = None,
) -> dict[str, float]:
    """Train tokenizer and text encoder and save both into ``folder``; the accuracy on held-out prompts.

    ``given``: a folder of both; its tokenizer is kept and its encoder trained on.
    """
    if given is not None:
        tokenizer = T5TokenizerFast.from_pretrained(given / "tokenizer")
        shutil.copytree(given / "tokenizer", folder / "tokenizer", dirs_exist_ok=True)
        encoder = UMT5EncoderModel.from_pretrained(given / "text_encoder", dtype=torch.float32)
    else:
        tokenizer, encoder = _new_tokenizer(folder, budget, seed), None
    model = train(tokenizer, budget, seed, device=device, workers=workers, given=encoder)
    model.encoder.half().save_pretrained(folder / "text_encoder")
    saved = UMT5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    result = accuracy(
        model, saved, draw(random.Random(f"held out {seed}"), test_prompts, tokenizer, held_out=True)
    )
    print("held-out prompts:", "  ".join(f"{name} {value:.4f}" for name, value in result.items()), flush=True)
    (folder / "text_figures.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def _new_tokenizer(folder: Path, budget: Budget, seed: int) -> Any:
    rng = random.Random(f"corpus {seed}")
    kinds = [asked for chosen, _ in KINDS.values() for asked in chosen]
    corpus = [
        with_rate(random_prompt(rng, rng.choice(kinds)), rng.choice(RATES)) for _ in range(budget.corpus)
    ]
    tokenizer = write_tokenizer(folder / "tokenizer", corpus + all_words() * 10, budget.vocabulary)
    print(f"tokenizer: {len(tokenizer)} tokens", flush=True)
    return tokenizer
