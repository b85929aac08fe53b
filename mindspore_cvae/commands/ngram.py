"""Command ngram: forward and reverse perplexity of a run by KenLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mindspore_cvae.api import ContrastiveVAE
from mindspore_cvae.commands.options import SettingsParser, add_run, add_settings, number, settings
from mindspore_cvae.data.corpus import load_corpus
from mindspore_cvae.data.vocabulary import Vocabulary
from mindspore_cvae.errors import typed
from mindspore_cvae.evaluation.ngram import (
    ORDER,
    PROTOCOLS,
    check_kenlm,
    evaluate,
    find_program,
)
from mindspore_cvae.runs import folder as runs_folder
from mindspore_cvae.runs.outputs import check_folder


def main(argv: Sequence[str] | None = None) -> None:
    """The command; see the module's first lines. Raises what :func:`measure` raises."""
    parser = SettingsParser(
        prog=typed("ngram"),
        description="Forward and reverse perplexity by KenLM; writes RUN/ngram.json. "
        "ngram build makes KenLM's programs, once.",
        allow_abbrev=False,
        usable_after_training=True,
    )
    add_run(parser)
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        nargs="+",
        default=list(PROTOCOLS),
        help="released: 1,280 greedy sentences, as in the authors' code; sampled: as many sampled "
        "sentences as the training split has (both; the first one's numbers stand at the top)",
    )
    parser.add_argument(
        "--n", type=number(1), metavar="N", help="generated sentences, for every protocol"
    )
    parser.add_argument(
        "--order", type=int, choices=range(2, 7), default=ORDER, help=f"longest n-gram ({ORDER})"
    )
    parser.add_argument(
        "--seed", type=number(0), default=0, metavar="N", help="of the sentences (0)"
    )
    add_settings(parser)
    arguments = parser.parse_args(argv)
    folder = arguments.run
    config = runs_folder.read_config(folder, **settings(arguments))
    # Minutes of decoding should not end at a missing program.
    check_kenlm()
    find_program("lmplz")
    check_folder(folder, "--run")
    vocabulary = Vocabulary.load(folder / runs_folder.VOCABULARY, config.data.unit)
    corpus = load_corpus(config.data, vocabulary)
    real = {
        split.name: [vocabulary.spaced(vocabulary.decode(ids)) for ids in split.sentences]
        for split in (corpus.train, corpus.test)
    }

    model = ContrastiveVAE.load(folder, arguments.checkpoint, config=config)

    def generate(count: int, decoding: str, max_words: int) -> list[str]:
        texts = model.sample(count, decoding, seed=arguments.seed, max_words=max_words)
        return [vocabulary.spaced(text) for text in texts]

    made_with = {
        "order": arguments.order,
        "seed": arguments.seed,
        "checkpoint": model.checkpoint,
        "step": model.step,
        "n": arguments.n,
        "precision": config.precision,
        "data_dir": config.data.dir,
        "corpus": corpus.fingerprint(),
    }
    results = _kept(folder, made_with)
    for name in arguments.protocol:
        result = evaluate(
            PROTOCOLS[name], real, vocabulary.words, generate, arguments.n, arguments.order
        )
        results[name] = {"protocol": name, **result, **made_with}
        first = results.get(arguments.protocol[0], results[name])
        print(
            "{}: forward {forward_ppl:.2f}; reverse {reverse_ppl_test:.2f} on test and "
            "{reverse_ppl_train:.2f} on train, where the training text instead of generated text "
            "gives {train_to_test_ppl:.2f} on test; {generated_sentences} sentences, "
            "{decoding}".format(name, **result),
            flush=True,
        )
        runs_folder.write_json(folder / runs_folder.NGRAM, {**first, "protocols": results})
    print(f"written to {folder / runs_folder.NGRAM}")


def _kept(folder: Path, made_with: Mapping) -> dict[str, dict]:
    """Results by protocol that were made so before."""
    before = runs_folder.read_metrics(folder, runs_folder.NGRAM).get("protocols")
    if not isinstance(before, dict):
        return {}
    return {
        name: result
        for name, result in before.items()
        if isinstance(result, dict)
        and all(key in result and result[key] == value for key, value in made_with.items())
    }
