"""Sentences a second: greedy decoding in batches, against a plain loop a sentence at a time.

    python benchmarks/generation.py [--sentences 1280] [--plain 8] [--max_words 80] [--rows 128]

The decoder has the sizes of configs/ptb.yaml and random weights, which seldom end a sentence: every
sentence takes nearly the whole number of words. Both ways must give the same words.
"""

from __future__ import annotations

import argparse
import sys
import time

from mindspore_cvae.config import layers
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import run_command

VOCABULARY_SIZE = 10002


def plain_loop(decoder, z, max_words: int) -> list[int]:
    """One sentence, word by word, each word a call from Python (PyNative mode). z (1, Z)."""
    import mindspore as ms
    import numpy as np

    from mindspore_cvae.data.vocabulary import BEGIN, END, PAD

    latent, word, words = ms.Tensor(z), BEGIN, []
    state = decoder.initial_state(latent)
    while len(words) < max_words:
        log_probabilities, state = decoder.step(ms.Tensor([word], ms.int32), latent, state)
        scores = log_probabilities.asnumpy()[0]
        scores[[PAD, BEGIN]] = -np.inf
        word = int(scores.argmax())
        if word == END:
            break
        words.append(word)
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=1280)
    parser.add_argument("--plain", type=int, default=8, help="sentences of the plain loop")
    parser.add_argument("--max_words", type=int, default=80)
    parser.add_argument("--rows", type=int, default=128, help="sentences of a graph call")
    arguments = parser.parse_args()
    settings = layers.load("ptb")
    choosing.apply_precision(settings.precision)
    import mindspore as ms

    from mindspore_cvae.generation.decoding import SentenceDecoder, prior_codes
    from mindspore_cvae.generation.ways import Decoding
    from mindspore_cvae.model.building import build_model

    device = choosing.choose("auto")
    decoder = build_model(settings.slots, settings.model, VOCABULARY_SIZE, seed=0).decoder
    decoder.set_train(False)
    z = prior_codes(arguments.sentences, settings.model.latent_size, seed=0)
    decode = SentenceDecoder(decoder, arguments.rows)
    way = Decoding("greedy", max_words=arguments.max_words)

    started = time.perf_counter()
    decode(z[:1], way)
    first = time.perf_counter() - started
    started = time.perf_counter()
    texts = decode(z, way)
    seconds = time.perf_counter() - started
    words = sum(map(len, texts))
    print(f"device {device}, {arguments.rows} rows a call, first call (compiles) {first:.1f} s")
    print(
        f"batches: {len(z)} sentences, {words} words in {seconds:.1f} s: "
        f"{len(z) / seconds:.1f} sentences a second"
    )

    ms.set_context(mode=ms.PYNATIVE_MODE)
    plain_loop(decoder, z[:1], 2)
    started = time.perf_counter()
    plain = [plain_loop(decoder, z[i : i + 1], arguments.max_words) for i in range(arguments.plain)]
    seconds = time.perf_counter() - started
    print(
        f"plain loop: {len(plain)} sentences in {seconds:.1f} s: "
        f"{len(plain) / seconds:.1f} sentences a second"
    )
    different = [i for i, words in enumerate(plain) if words != texts[i].tolist()]
    if different:
        sys.exit(f"sentences {different} differ")
    print("the same words")


if __name__ == "__main__":
    sys.exit(run_command(main))
