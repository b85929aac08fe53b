"""A trained model from Python: sentences to latent vectors, and back.

    model = ContrastiveVAE.load("runs/ptb-cvae_plus_mi-0")
    z = model.encode(["the bank said it would sell its shares"])
    texts = model.sample(10)

mindspore is imported when a run is loaded, not with this module.
"""

from __future__ import annotations

import functools
import hashlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mindspore_cvae import __version__
from mindspore_cvae.common.files import write_atomically
from mindspore_cvae.common.progress import silence, tell
from mindspore_cvae.config import layers
from mindspore_cvae.config import options as config_options
from mindspore_cvae.config.keys import flatten
from mindspore_cvae.data.corpus import Corpus, Split, load_corpus
from mindspore_cvae.data.labels import sentences_labelled
from mindspore_cvae.data.sentences import number_sentences
from mindspore_cvae.devices import choosing
from mindspore_cvae.errors import InputError, is_command, warn_user
from mindspore_cvae.runs import codes, events, folder

if TYPE_CHECKING:
    from mindspore_cvae.config.keys import Config
    from mindspore_cvae.evaluation.probe import Probe
    from mindspore_cvae.runs.loading import LoadedRun


DECIDE_CODES = ("seed", "data.max_words")
"""Settings outside of the slots, the model and ``eval`` that a code may depend on."""


class Neighbour(NamedTuple):
    """A training sentence near a point of the latent space."""

    sentence: str
    distance: float
    """Euclidean, between posterior means."""
    line: int
    """Of the training file, counted from 1."""


@dataclass(frozen=True)
class Scores:
    """What the model says of each of N sentences, in nats; means over draws of z."""

    rec: np.ndarray
    """(N,) -log p(x|z)."""
    kl: np.ndarray | None
    """(N,) KL(q(z|x) || p(z)) by the paper's estimator; None where the system has none."""
    neg_elbo: np.ndarray | None
    """(N,) rec + kl; None without kl."""
    tokens: np.ndarray
    """(N,) predicted tokens: words and ``</s>``."""


def interpolation_weights(steps: int) -> np.ndarray:
    """lambda of Section 4.5, the weight of the first sentence, at each step. -> (steps,), 1 ... 0.

    Raises:
        InputError: Fewer than 2 steps.
    """
    if steps < 2:
        raise InputError(f"steps must be 2 or more, not {steps}: the first and the last are given")
    return np.linspace(1.0, 0.0, steps)


_ALONE = threading.RLock()
"""Of all models of a process: MindSpore's graphs end it if two threads call them at once."""
_PROCESS: list[int] = []
"""The process that first loaded a model: in one forked from it MindSpore hangs."""


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method that one thread runs at a time, and a forked process refuses; only commands tell
    what goes on."""

    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:
        _refuse_forked()
        with _ALONE, silence(not is_command()):
            return method(*arguments, **options)

    return call


def _refuse_forked() -> None:
    if _PROCESS and _PROCESS[0] != os.getpid():
        raise InputError(
            "this process was forked from one that uses MindSpore, which hangs in it: start it by "
            'multiprocessing.get_context("spawn"), and load the model there'
        )


def _begin(config: Config) -> None:
    """Imports MindSpore as a configuration wants it."""
    if "mindspore" not in sys.modules:
        choosing.apply_precision(config.precision)
    choosing.choose(config.device_target, config.device_id)


def _refuse_pynative() -> None:
    import mindspore

    if mindspore.get_context("mode") != mindspore.GRAPH_MODE:
        raise InputError(
            "a model computes in graph mode: mindspore.set_context(mode=mindspore.GRAPH_MODE) "
            "first, or load it without configure=False"
        )


def _place_of(text: str | Path | Sequence[str], output_dir: Path) -> Path:
    """Where the sentences lie, or the file beside the run that they are written to."""
    if isinstance(text, (str, Path)):
        return Path(text)
    for number, sentence in enumerate(text, 1):
        if not isinstance(sentence, str) or "\n" in sentence:
            raise InputError(f"sentence {number} must be one line of text, not {sentence!r:.60}")
    path = output_dir.with_name(f"{output_dir.name}.txt")
    content = "".join(f"{sentence}\n" for sentence in text)
    if path.exists():
        if path.read_text(encoding="utf-8") != content:
            raise InputError(f"{path} holds other sentences: choose another output_dir")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return path


class ContrastiveVAE:
    """A trained model with its vocabulary. :meth:`load` makes one.

    Wherever sentences go in, they are texts, read as the training text was: words separated by
    blanks, or what ``data.unit`` says. A sentence without words, or of more than
    ``data.max_words``, is an InputError; one of which the vocabulary has no word is read as
    ``<unk>`` words, with a warning (:class:`errors.UserNotice`, by Python's ``warnings``, as are
    all of a model's).

    Wherever sentences come out, ``options`` are those of :class:`generation.ways.Decoding`:
    ``temperature`` (1), ``top_k`` and ``top_p`` (None), ``beam_size`` (5), ``no_unk`` (False), and
    ``max_words`` (the run's ``data.max_words``). Equal arguments give equal sentences.

    Threads may share a model: they take turns. A process that was forked after a model was loaded
    is refused (MindSpore hangs there); one that was spawned is not.

    Attributes:
        config: the run's configuration.
        vocabulary: its words.
        folder: its folder.
        checkpoint: ``best``, ``best_valid`` or ``last``.
        step: training steps behind the weights.
        latent_size: Z.
    """

    def __init__(self, run: LoadedRun):
        from mindspore_cvae.evaluation.scoring import Scorer
        from mindspore_cvae.generation.decoding import SentenceDecoder
        from mindspore_cvae.generation.encoding import SentenceEncoder, graph_widths

        self._run = run
        self.config = config = run.config
        self.vocabulary = run.vocabulary
        self.folder = run.folder
        self.checkpoint = run.checkpoint
        self.step = run.step
        self.latent_size = config.model.latent_size
        rows, max_words = config.eval.rows, config.data.max_words
        self._model = run.model
        self._encoder = SentenceEncoder(run.model, self.latent_size, max_words, rows)
        self._decoder = SentenceDecoder(run.model.decoder, rows)
        self._evaluator = Scorer(run.model, config, graph_widths(max_words))
        self._training: _Codes | None = None

    @classmethod
    def load(
        cls,
        run: str | Path,
        checkpoint: str = "best",
        *,
        device_target: str | None = None,
        device_id: int | None = None,
        config: Config | None = None,
        configure: bool = True,
    ) -> ContrastiveVAE:
        """A run's model.

        Args:
            run: the run's folder.
            checkpoint: ``best`` on validation by the paper's -ELBO, ``best_valid`` by the bound, or
                ``last``.
            device_target: ``auto``, ``CPU``, ``GPU`` or ``Ascend``; None takes the run's.
            device_id: number of the device.
            config: from :func:`runs.folder.read_config`, instead of the two before.
            configure: whether the process's mode becomes MindSpore's graph mode, and its device the
                one above. False leaves both, and the environment, as they are: the caller has set
                graph mode and a device (``mindspore.set_context(mode=mindspore.GRAPH_MODE)``,
                ``mindspore.set_device("CPU")``), and the run's ``precision`` plays no part.

        Raises:
            InputError: The folder is no run, or its files are damaged or do not fit each other; or,
                without ``configure``, a device is named, or the mode is not graph mode.
            DeviceError: The device is not there.
        """
        _refuse_forked()
        if not configure and (device_target, device_id) != (None, None):
            raise InputError(
                "configure=False leaves the device alone: name none, or let load choose it"
            )
        if config is None:
            config = folder.read_config(run, device_target=device_target, device_id=device_id)
        if configure:
            _begin(config)
        else:
            _refuse_pynative()
        _PROCESS[:] = [os.getpid()]
        from mindspore_cvae.runs.loading import load_run

        with _ALONE:
            return cls(load_run(run, checkpoint, config))

    @classmethod
    def fit(
        cls,
        text: str | Path | Sequence[str] | None,
        output_dir: str | Path,
        system: str | None = None,
        config: str | Path | None = None,
        *,
        progress: bool = True,
        **settings: Any,
    ) -> ContrastiveVAE:
        """Trains a model as the command ``train`` does, and loads its best checkpoint.

        Called again, a training that was interrupted goes on, and one that has ended is loaded.

        Args:
            text: N sentences of words separated by blanks, which are kept beside the run in
                ``OUTPUT_DIR.txt``; or a file of them, or a folder with ``train.txt``,
                ``valid.txt`` and ``test.txt``. None takes what the configuration names.
            output_dir: the run's folder.
            system: a row of the table; None takes the configuration's.
            config: a YAML file or the name of a shipped one; None takes the defaults.
            progress: whether bars and validations are shown on standard error.
            settings: keys of the configuration: ``**{"train.epochs": 3}``.

        Raises:
            InputError: Text or settings are no good, or the folder holds another run.
            DeviceError: The device is not there.
            TrainingError: The loss is not finite.
            KeyboardInterrupt: A signal ended training, after it was saved.
        """
        _refuse_forked()
        place = Path(output_dir)
        overrides = [
            f"{key}={value if isinstance(value, str) else config_options.shown(value)}"
            for key, value in settings.items()
        ]
        data_dir = None if text is None else str(_place_of(text, place))
        chosen: dict[str, Any] = {"system": system, "data_dir": data_dir}
        folder.check(place, resume=True)
        is_begun = folder.is_ours(place)
        if is_begun:
            given = None if config is None else layers.load(config, overrides, **chosen)
            merged = folder.resumed_config(place, given, overrides=overrides, **chosen)
        else:
            merged = layers.load(config, overrides, **chosen)
        if merged.train.tensorboard:
            events.require()
        corpus = folder.corpus_of_run(merged, place)
        _begin(merged)
        _PROCESS[:] = [os.getpid()]
        from mindspore_cvae.training.trainer import train

        with _ALONE, silence(not progress):
            for line in corpus.messages:
                tell(line)
            reason = train(merged, place, resume=is_begun, corpus=corpus)
        if reason in signal.Signals.__members__:
            raise KeyboardInterrupt(f"{reason} ended training; called again, {place} goes on")
        return cls.load(place)

    @_guarded
    def encode(
        self, sentences: Sequence[str], samples: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """Posterior means, E_q(z|x) z.

        Args:
            sentences: N texts.
            samples: mean of so many draws of z. None takes the closed form, which all posteriors
                have but ``mlp``: there it takes ``eval.samples`` draws.
            seed: of the draws.

        Returns:
            (N, Z) float32.
        """
        return self.encode_numbered(self._number(sentences), samples, seed)

    @_guarded
    def encode_numbered(
        self, sentences: list[np.ndarray], samples: int | None = None, seed: int = 0
    ) -> np.ndarray:
        """:meth:`encode` of sentences of a split (:class:`data.corpus.Split`).

        Args:
            sentences: N arrays of numbers of the vocabulary, without ``<s>`` and ``</s>``.
            samples, seed: as for :meth:`encode`.

        Returns:
            (N, Z) float32.
        """
        if samples is not None or not self._encoder.has_closed_form:
            samples = self._samples(samples)
        return self._encoder(sentences, samples, seed)

    @_guarded
    def decode(
        self, z: np.ndarray, decoding: str = "greedy", *, seed: int = 0, **options
    ) -> list[str]:
        """Sentences of latent vectors.

        Args:
            z: (N, Z).
            decoding: ``greedy``, ``sample`` or ``beam``.
            seed: of the draws of words; row i has its own.
            options: see the class.

        Returns:
            N texts.
        """
        from mindspore_cvae.generation.ways import Decoding

        options.setdefault("max_words", self.config.data.max_words)
        z = np.asarray(z, np.float32)
        if z.ndim != 2 or z.shape[1] != self.latent_size:
            raise InputError(f"z must have the shape (N, {self.latent_size}), not {z.shape}")
        texts = self._decoder(z, Decoding(method=decoding, **options), seed)
        return [self.vocabulary.decode(text) for text in texts]

    @_guarded
    def sample(self, n: int, decoding: str = "sample", *, seed: int = 0, **options) -> list[str]:
        """Sentences from the prior: z ~ N(0, I), then words.

        Args:
            n: how many; sentence i depends on the seed and i, not on n.
            decoding: ``sample``, ``greedy`` or ``beam``.
            seed: of z and of the draws of words.
            options: see the class.

        Returns:
            n texts.
        """
        from mindspore_cvae.generation.decoding import prior_codes

        z = prior_codes(n, self.latent_size, seed)
        return self.decode(z, decoding, seed=seed, **options)

    @_guarded
    def reconstruct(
        self, sentences: Sequence[str], decoding: str = "greedy", *, seed: int = 0, **options
    ) -> list[str]:
        """Sentences decoded from their posterior means.

        Args:
            sentences: N texts.
            decoding, seed, options: as for :meth:`decode`.

        Returns:
            N texts.
        """
        return self.decode(self.encode(sentences), decoding, seed=seed, **options)

    @_guarded
    def interpolate(
        self,
        a: str,
        b: str,
        steps: int = 11,
        decoding: str = "greedy",
        *,
        seed: int = 0,
        **options,
    ) -> list[str]:
        """Sentences on the line between two (Section 4.5, Table 6).

        z = lambda z_a + (1 - lambda) z_b, where z_a and z_b are means of ``eval.samples`` draws
        from q(z|a) and q(z|b), and lambda goes from 1 to 0 (:func:`interpolation_weights`).

        Args:
            a, b: two texts.
            steps: at least 2.
            decoding, seed, options: as for :meth:`decode`.

        Returns:
            ``steps`` texts; the first decodes z_a, the last z_b.
        """
        weights = interpolation_weights(steps)[:, None].astype(np.float32)
        z_a, z_b = self.encode([a, b], self.config.eval.samples, seed)
        return self.decode(weights * z_a + (1 - weights) * z_b, decoding, seed=seed, **options)

    @_guarded
    def nearest(self, sentences: Sequence[str], k: int = 5) -> list[list[Neighbour]]:
        """The training sentences whose posterior means are closest.

        The first call reads the run's training text (``data.dir``) and encodes it; the codes are
        kept in the run's folder, and taken from there as long as they are what would be computed.

        Args:
            sentences: N texts.
            k: different sentences for each, at least 1.

        Returns:
            N lists, each in ascending order of distance.
        """
        if k < 1:
            raise InputError(f"k must be 1 or more, not {k}")
        z = self.encode(sentences)
        if self._training is None:
            corpus = self._corpus("neighbours are")
            self._training = _Codes(corpus.train, self._training_codes(corpus))
        return [self._training.nearest(point, k, self.vocabulary) for point in z]

    def _training_codes(self, corpus: Corpus) -> np.ndarray:
        """Posterior means of the training split, (N, Z), computed or kept."""
        decided_by = {
            "version": __version__,
            "machine": choosing.machine(),
            "precision": os.environ.get(choosing.MATRIX_PRECISION),
            "text": corpus.text("train"),
            "weights": self._weights(),
            "settings": {
                key: value
                for key, value in flatten(self.config).items()
                if key.startswith(("slots.", "model.", "eval.")) or key in DECIDE_CODES
            },
        }
        sentences = corpus.train.sentences
        z = codes.read_codes(self.folder, decided_by, (len(sentences), self.latent_size))
        if z is None:
            z = self.encode_numbered(sentences)
            codes.keep_codes(self.folder, decided_by, z)
        return z

    def _weights(self) -> str:
        """SHA-256 of the model's parameters."""
        digest = hashlib.sha256()
        for parameter in sorted(self._model.get_parameters(), key=lambda each: each.name):
            digest.update(parameter.name.encode())
            digest.update(parameter.asnumpy().tobytes())
        return digest.hexdigest()

    @_guarded
    def mean_code(self, label: str) -> tuple[np.ndarray, int]:
        """The mean of the posterior means of the training sentences that bear a label.

        Args:
            label: of the text, where ``data.label_column`` is true; a topic of the embedded corpus.

        Returns:
            (1, Z) float32, and of how many sentences it is the mean.

        Raises:
            InputError: No training sentence has the label; the message lists those that there are.
        """
        sentences = sentences_labelled(self._corpus("labels are").train, label)
        return self.encode_numbered(sentences).mean(0, keepdims=True), len(sentences)

    @_guarded
    def probe(self, corpus: Corpus | None = None, subsets: int = 10, seed: int = 0) -> Probe:
        """How well a linear classifier reads the labels of test sentences from posterior means.

        Args:
            corpus: numbered by the run's vocabulary, with labels; None reads the run's.
            subsets: how many of 100 and of 1,000 training sentences are drawn.
            seed: of the subsets.

        Raises:
            InputError: There are no labels, or scikit-learn is missing.
        """
        from mindspore_cvae.evaluation.probe import check_labels, probe

        corpus = self._corpus("labels are", corpus)
        check_labels(corpus)
        encoded = {split.name: self.encode_numbered(split.sentences) for split in corpus.splits}
        return probe(corpus, encoded, subsets, seed)

    @_guarded
    def score(self, sentences: Sequence[str], samples: int | None = None) -> Scores:
        """How well the model describes each sentence, by the estimators of the paper's tables.

        Args:
            sentences: N texts, at least one.
            samples: draws of z a sentence, keyed by the run's seed; None takes ``eval.samples``.
                Where q(z|x) is a Gaussian or a point, the protocol takes one.

        Returns:
            Arrays of N values.
        """
        from mindspore_cvae.evaluation import estimators
        from mindspore_cvae.evaluation.metrics import kl_columns

        ids = self._number(sentences)
        if not ids:
            raise InputError("no sentence to score")
        split = Split("given", "given sentences", ids, np.arange(1, len(ids) + 1), {})
        samples = self._samples(samples)
        scores = self._evaluator.score(split, samples)
        kl, _ = kl_columns(scores, self.config.slots)
        neg_elbo = None if kl is None else estimators.negative_elbo(scores.reconstruction, kl)
        return Scores(scores.reconstruction, kl, neg_elbo, scores.tokens)

    @_guarded
    def evaluate(
        self,
        split: str = "test",
        samples: int | None = None,
        iw_samples: int | None = None,
        *,
        iw_proposal: str = "auto",
        refit_critic: bool = False,
        write: bool = False,
        progress: bool = True,
    ) -> dict[str, Any]:
        """The metrics of a split of the run's text (``data.dir``), those of the command ``eval``.

        Args:
            split: ``test`` or ``valid``.
            samples: draws of z a sentence; None takes ``eval.samples``.
            iw_samples: draws of the importance-weighted likelihood bound a sentence; None leaves
                the bound out.
            iw_proposal: where these come from: a family of :data:`evaluation.proposals.FAMILIES`,
                or ``auto``, the best of them by another split.
            refit_critic: whether fresh critics are fitted to half of the codes and read on the
                other half.
            write: whether ``metrics-<split>.json`` and ``sentences-<split>.tsv`` are written into
                the run's folder, as by the command; otherwise nothing is.
            progress: whether bars are shown on standard error.

        Returns:
            Values by name, a mean over sentences in nats unless docs/use/metrics.md says otherwise;
            None where the system has none.

        Raises:
            InputError: The text cannot be read, there are too few sentences, the folder cannot be
                written to, or an argument is none of these.
        """
        from mindspore_cvae.evaluation.metrics import Weighing, evaluate_loaded
        from mindspore_cvae.evaluation.proposals import FAMILIES
        from mindspore_cvae.runs.outputs import check_folder

        if split not in ("valid", "test"):
            raise InputError(f"split must be valid or test, not {split!r}")
        if iw_samples is not None and iw_samples < 1:
            raise InputError(f"iw_samples must be 1 or more, not {iw_samples}")
        if iw_proposal not in ("auto", *FAMILIES):
            names = ", ".join(("auto", *FAMILIES))
            raise InputError(f"iw_proposal must be one of {names}, not {iw_proposal!r}")
        if write:
            check_folder(self.folder, "write=True")
        weighing = None
        if iw_samples is not None:
            families = tuple(FAMILIES) if iw_proposal == "auto" else (iw_proposal,)
            weighing = Weighing(iw_samples, families)
        settings = replace(self.config.eval, samples=self._samples(samples))
        config = replace(self.config, eval=settings)
        with silence(not progress):
            metrics, values = evaluate_loaded(
                self._run, config, self._corpus("metrics are"), split, weighing, refit_critic
            )
        if write:
            columns = {name: column.tolist() for name, column in values.items()}
            folder.write_metrics(self.folder, split, metrics, columns)
        return metrics

    def _number(self, sentences: Sequence[str]) -> list[np.ndarray]:
        if isinstance(sentences, str):
            raise TypeError("sentences must be a list of texts, not one text")
        return number_sentences(sentences, self.vocabulary, self.config.data)

    def _samples(self, samples: int | None) -> int:
        if samples is not None and samples < 1:
            raise InputError(f"samples must be 1 or more, not {samples}")
        return self.config.eval.samples if samples is None else samples

    def _corpus(self, these_are: str, corpus: Corpus | None = None) -> Corpus:
        """The run's text, with a warning where it has changed: ``these_are`` of what is there."""
        corpus = corpus or load_corpus(self.config.data, self.vocabulary)
        if folder.trained_on(self.folder) not in (None, corpus.fingerprint()):
            warn_user(
                f"{corpus.train.source} is not the text that {self.folder} was trained with: "
                f"{these_are} of what lies there now"
            )
        return corpus


class _Codes(NamedTuple):
    """A split and the posterior means of its sentences, (N, Z)."""

    split: Split
    z: np.ndarray

    def nearest(self, point: np.ndarray, k: int, vocabulary) -> list[Neighbour]:
        distances = np.sqrt(((self.z.astype(np.float64) - point) ** 2).sum(1))
        found: dict[str, Neighbour] = {}
        for number in np.argsort(distances, kind="stable"):
            text = vocabulary.decode(self.split.sentences[number])
            if text not in found:
                line = int(self.split.lines[number])
                found[text] = Neighbour(text, float(distances[number]), line)
            if len(found) == k:
                break
        return list(found.values())
