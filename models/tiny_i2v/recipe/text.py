"""The text stage: a tokenizer and a text encoder, trained alone as a classifier of camera phrases.

The model trained is the first layers of the one saved: an I2VGen-XL reads the last layer but one, through the
final norm, so the saved model has one layer more, which nothing reads. What a UNet reads by cross-attention
is every token, padding too; so every token from the end of the text on is taught the whole answer.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from models.tiny_i2v.recipe.camera import MOTIONS, PACES
from models.tiny_i2v.recipe.prompts import all_words, random_prompt
from nodes.engines.i2vgen_xl.conditioning import PenultimateText

LENGTH = 77
START, END = "<|startoftext|>", "<|endoftext|>"
MOTION_CLASSES = (*MOTIONS, "none")
"""``none`` is the empty prompt: the unconditional row of guidance."""
PACE_CLASSES = tuple(PACES)
NO_PACE = -100


@dataclass(frozen=True)
class Budget:
    """How large the text stage is and how long it learns."""

    steps: int = 1500
    batch: int = 128
    vocabulary: int = 1500
    corpus: int = 30_000
    peak_learning_rate: float = 2e-3
    hidden_size: int = 128
    layers_read: int = 2


# --- tokenizer ---


def write_tokenizer(folder: Path, corpus: list[str], vocabulary: int) -> CLIPTokenizer:
    """Train byte pair merges (Sennrich et al. 2016) on ``corpus`` and write a CLIP tokenizer's files.

    Every byte is a token of its own, so no text is unknown. Ties are broken by spelling: the same corpus
    gives the same files.
    """
    visible = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    symbols = visible + [chr(256 + i) for i in range(256 - len(visible))]
    tokens = [*symbols, *(symbol + "</w>" for symbol in symbols)]
    merges = _merges(_word_counts(corpus, tokens), vocabulary - len(tokens) - 2)
    # Two pairs may spell one token: "ab" + "c" and "a" + "bc".
    tokens += dict.fromkeys("".join(pair) for pair in merges)
    folder.mkdir(parents=True, exist_ok=True)
    numbered = {token: i for i, token in enumerate([*tokens, START, END])}
    (folder / "vocab.json").write_text(json.dumps(numbered, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    settings = {
        **special,
        "model_max_length": LENGTH,
        "tokenizer_class": "CLIPTokenizer",
        "do_lower_case": True,
    }
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    return CLIPTokenizer.from_pretrained(folder)


def _word_counts(corpus: list[str], tokens: list[str]) -> Counter[str]:
    """How often each word of ``corpus`` occurs, cut and spelled in bytes as CLIP does it."""
    spelling = {token: i for i, token in enumerate([*tokens, START, END])}
    backend = CLIPTokenizer(vocab=spelling, merges=[]).backend_tokenizer
    counts: Counter[str] = Counter()
    for text in corpus:
        normal = backend.normalizer.normalize_str(text)
        counts.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal))
    return counts


def _merges(counts: Counter[str], number: int) -> list[tuple[str, str]]:
    spelled = [([*word[:-1], word[-1] + "</w>"], count) for word, count in sorted(counts.items())]
    merges: list[tuple[str, str]] = []
    made: set[str] = set()
    while len(made) < number:
        pairs: Counter[tuple[str, str]] = Counter()
        for parts, count in spelled:
            for pair in pairwise(parts):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        made.add("".join(best))
        for parts, _ in spelled:
            i = 0
            while i < len(parts) - 1:
                if (parts[i], parts[i + 1]) == best:
                    parts[i : i + 2] = ["".join(best)]
                i += 1
    return merges


# --- prompts in numbers ---


@dataclass(frozen=True)
class Labelled:
    """Prompts in token ids (start and end included, no padding) with their classes."""

    ids: list[list[int]]
    motion: torch.Tensor
    pace: torch.Tensor


def draw(rng: random.Random, count: int, tokenizer: CLIPTokenizer, *, held_out: bool = False) -> Labelled:
    """``count`` random prompts; ``still`` a little oftener, since it is said in the most ways."""
    texts, motions, paces = [], [], []
    for _ in range(count):
        motion = rng.choice((*MOTIONS, "still")) if held_out or rng.random() > 0.02 else "none"
        pace = rng.choice(PACE_CLASSES)
        texts.append("" if motion == "none" else random_prompt(rng, motion, pace, held_out=held_out))
        motions.append(MOTION_CLASSES.index(motion))
        paces.append(NO_PACE if motion in {"still", "none"} else PACE_CLASSES.index(pace))
    ids = tokenizer(texts, truncation=True, max_length=LENGTH).input_ids
    return Labelled(ids, torch.tensor(motions), torch.tensor(paces))


def _padded(ids: list[list[int]], length: int, end: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, length) ids, padded with the end token as the pipeline does, and where the answer is read."""
    rows = torch.tensor([row + [end] * (length - len(row)) for row in ids])
    starts = torch.tensor([len(row) - 1 for row in ids])
    return rows, torch.arange(length)[None] >= starts[:, None]


# --- the model ---


class Classifier(nn.Module):
    """The layers that are read, and a linear head for motion and for pace."""

    def __init__(self, config: CLIPTextConfig) -> None:
        super().__init__()
        self.text = CLIPTextModel(config)
        self.motion = nn.Linear(config.hidden_size, len(MOTION_CLASSES))
        self.pace = nn.Linear(config.hidden_size, len(PACE_CLASSES))

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(B, T) ids to states (B, T, D), motion logits (B, T, 10) and pace logits (B, T, 3)."""
        states = self.text(ids).last_hidden_state
        return states, self.motion(states), self.pace(states)


def text_config(budget: Budget, vocabulary: int, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=vocabulary,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
        hidden_size=budget.hidden_size,
        intermediate_size=2 * budget.hidden_size,
        hidden_act="gelu",
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        projection_dim=budget.hidden_size,
    )


def _loss(model: Classifier, rows: torch.Tensor, read: torch.Tensor, labels: Labelled) -> torch.Tensor:
    """Cross entropy of both answers, tokens of a prompt sharing its weight, and the spread within classes.

    The spread term makes paraphrases nearly equal to the UNet that will read them.
    """
    states, motion, pace = model(rows)
    share = read / read.sum(1, keepdim=True)
    tokens = rows.shape[1]
    per_motion = functional.cross_entropy(
        motion.flatten(0, 1), labels.motion.repeat_interleave(tokens), reduction="none", label_smoothing=0.02
    )
    per_pace = functional.cross_entropy(
        pace.flatten(0, 1), labels.pace.repeat_interleave(tokens), reduction="none", ignore_index=NO_PACE
    )
    both = (per_motion + per_pace).view(rows.shape)
    mean_state = (states * share[..., None]).sum(1)
    cell = labels.motion * (len(PACE_CLASSES) + 1) + labels.pace.clamp(min=-1) + 1
    members = functional.one_hot(cell).float()
    centres = (members.T @ mean_state) / members.sum(0).clamp(min=1)[:, None]
    spread = ((states - centres[cell][:, None]) ** 2).mean(-1)
    return ((both + 0.2 * spread) * share).sum() / len(rows)


def _noisy(rows: torch.Tensor, read: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Three tokens in a hundred replaced by any other: no answer may hang on one word of scenery."""
    swap = (torch.rand(rows.shape, generator=generator) < 0.03) & ~read
    swap[:, 0] = False
    others = torch.randint(0, int(rows.max()) - 1, rows.shape, generator=generator)
    return torch.where(swap, others, rows)


def train(tokenizer: CLIPTokenizer, budget: Budget, seed: int) -> Classifier:
    """Train the classifier on fresh prompts; the same seed and thread count give the same weights."""
    torch.manual_seed(seed)
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    vocabulary = len(tokenizer)
    end = vocabulary - 1
    model = Classifier(text_config(budget, vocabulary, budget.layers_read))
    optimizer = torch.optim.AdamW(model.parameters(), lr=budget.peak_learning_rate, weight_decay=0.02)
    warm = max(1, budget.steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / budget.steps) + 1e-3),
    )
    began = time.monotonic()
    batches: list[Labelled] = []
    for step in range(budget.steps):
        if not batches:
            batches = _batches(rng, draw(rng, 32 * budget.batch, tokenizer), budget.batch)
        labels = batches.pop()
        longest = max(map(len, labels.ids))
        # Padding to the full length is what the pipeline does, and costs the most: every sixth step has it.
        length = LENGTH if step % 6 == 0 else min(LENGTH, longest + 2)
        rows, read = _padded(labels.ids, length, end)
        loss = _loss(model, _noisy(rows, read, generator), read, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == budget.steps - 1:
            print(
                f"text step {step:5d}  loss {loss.item():.3f}  {time.monotonic() - began:.0f} s", flush=True
            )
    return model.eval()


def _batches(rng: random.Random, drawn: Labelled, size: int) -> list[Labelled]:
    """Batches of prompts of like length, in random order: little padding to compute."""
    order = sorted(range(len(drawn.ids)), key=lambda i: len(drawn.ids[i]))
    chunks = [order[i : i + size] for i in range(0, len(order), size)]
    rng.shuffle(chunks)
    return [
        Labelled([drawn.ids[i] for i in chunk], drawn.motion[chunk], drawn.pace[chunk]) for chunk in chunks
    ]


# --- results ---


@torch.no_grad()
def accuracy(model: Classifier, encoder: PenultimateText, drawn: Labelled, end: int) -> dict[str, float]:
    """The heads of ``model`` on the states that ``encoder`` gives.

    Shares of tokens from the end of the text on, padded to 77, that answer right; prints errors.

    ``spread`` is the variance of the states within their class over the whole variance.
    """
    right = {"motion": 0.0, "pace": 0.0}
    confusions: Counter[tuple[str, str]] = Counter()
    kept = []
    for at in range(0, len(drawn.ids), 128):
        chosen = slice(at, at + 128)
        rows, read = _padded(drawn.ids[chosen], LENGTH, end)
        states = encoder(rows)
        motion, pace = model.motion(states), model.pace(states)
        share = read / read.sum(1, keepdim=True)
        wanted_motion, wanted_pace = drawn.motion[chosen], drawn.pace[chosen]
        right["motion"] += float(((motion.argmax(-1) == wanted_motion[:, None]) * share).sum())
        right["pace"] += float(((pace.argmax(-1) == wanted_pace[:, None]) * share).sum())
        kept.append((states * share[..., None]).sum(1))
        for want, got in zip(wanted_motion.tolist(), motion[:, -1].argmax(-1).tolist(), strict=True):
            if want != got:
                confusions[MOTION_CLASSES[want], MOTION_CLASSES[got]] += 1
    for (want, got), count in confusions.most_common(6):
        print(f"  {want} taken for {got}: {count}")
    states = torch.cat(kept)
    cells = drawn.motion * 4 + drawn.pace.clamp(min=-1) + 1
    within = sum(
        float(((states[cells == c] - states[cells == c].mean(0)) ** 2).sum()) for c in cells.unique()
    )
    whole = float(((states - states.mean(0)) ** 2).sum())
    return {
        "motion": right["motion"] / len(drawn.ids),
        "pace": right["pace"] / max(1, int((drawn.pace != NO_PACE).sum())),
        "spread": within / whole,
    }


def save_text_encoder(model: Classifier, budget: Budget, folder: Path) -> None:
    """Write the CLIPTextModel whose last layer but one is what was trained, in fp16."""
    trained = model.text.config
    whole = CLIPTextModel(text_config(budget, trained.vocab_size, budget.layers_read + 1))
    whole.load_state_dict(model.text.state_dict(), strict=False)
    folder.mkdir(parents=True, exist_ok=True)
    whole.config.dtype = "float16"
    whole.config.architectures = ["CLIPTextModel"]
    whole.config.save_pretrained(folder)
    # Named as on the hub: every transformers release reads these names.
    weights = {
        f"text_model.{key.removeprefix('text_model.')}": weight.half().contiguous()
        for key, weight in whole.state_dict().items()
        if not key.endswith("position_ids")
    }
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def make(folder: Path, budget: Budget, seed: int, *, test_prompts: int = 4000) -> dict[str, float]:
    """Train tokenizer and text encoder, save both into ``folder``; the accuracy on held-out prompts."""
    rng = random.Random(f"corpus {seed}")
    corpus = [
        random_prompt(rng, rng.choice(list(MOTIONS)), rng.choice(PACE_CLASSES)) for _ in range(budget.corpus)
    ]
    tokenizer = write_tokenizer(folder / "tokenizer", corpus + all_words() * 10, budget.vocabulary)
    print(f"tokenizer: {len(tokenizer)} tokens", flush=True)
    model = train(tokenizer, budget, seed)
    save_text_encoder(model, budget, folder / "text_encoder")
    held_out = draw(random.Random(f"held out {seed}"), test_prompts, tokenizer, held_out=True)
    # As the engine reads it: from the files, the last layer but one.
    saved = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
    result = accuracy(model, PenultimateText(saved), held_out, len(tokenizer) - 1)
    print("held-out prompts:", "  ".join(f"{name} {value:.4f}" for name, value in result.items()), flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the tokenizer and the text encoder.")
    parser.add_argument("--out", type=Path, required=True, help="the model folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Budget.steps)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    make(arguments.out, Budget(steps=arguments.steps), arguments.seed)


if __name__ == "__main__":
    main()
