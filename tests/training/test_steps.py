"""Training steps: who is updated, by which gradient, and that a seed decides every bit."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace

import mindspore as ms
import numpy as np
import numpy_twins as twins
import pytest
import tiny
from mindspore import Tensor

from mindspore_cvae.systems import SYSTEMS
from mindspore_cvae.training.steps.updates import global_norm

PLAIN = [
    name for name, row in tiny.COMBINATIONS.items() if row.step in ("joint", "critic_then_model")
]
"""Steps that follow the objective's own gradient, in one graph."""
ALTERNATING = [name for name, row in tiny.COMBINATIONS.items() if row.step == "critic_then_model"]


def fresh(name):
    """The compiled step of a system, back at its start."""
    training = tiny.training(name)
    return training.restore(training.start)


def critics_of(training):
    return {parameter.name for parameter in training.model.divergence.get_parameters()}


def names_of(training):
    return {parameter.name for parameter in training.model.get_parameters()}


def moved_rows(training, name):
    """Indices of the rows of a matrix that differ from the start."""
    now = training.model.parameters_dict()[name].asnumpy()
    return set(np.flatnonzero((now != training.start[name]).any(1)))


@pytest.mark.parametrize("name", tiny.COMBINATIONS)
def test_a_step_moves_all_parameters(name):
    training = fresh(name)
    terms = training.run()
    assert np.isfinite(list(terms.values())).all()
    assert training.moved(training.start) == names_of(training)


@pytest.mark.parametrize("name", tiny.COMBINATIONS)
def test_a_step_leaves_the_vectors_of_absent_words(name):
    """Fillers, padding and words of other batches move no embedding."""
    training = fresh(name)
    training.run()
    read = set(range(4, 14)) | {tiny.START}
    if training.system.posterior != "none":
        assert moved_rows(training, "encoder.embedding.weight") == read | {tiny.END}
    assert moved_rows(training, "decoder.embedding.weight") == read


@pytest.mark.parametrize("name", ALTERNATING)
def test_critic_updates_move_the_critics_only(name):
    training = fresh(name)
    ms.ops.assign(training.step.optimizer.learning_rate, Tensor(np.float32(0)))
    training.run()
    assert training.moved(training.start) == critics_of(training)


@pytest.mark.parametrize("name", ALTERNATING)
def test_the_models_update_leaves_the_critics(name):
    training = fresh(name)
    ms.ops.assign(training.step.critic_optimizer.learning_rate, Tensor(np.float32(0)))
    training.run()
    assert training.moved(training.start) == names_of(training) - critics_of(training)


@pytest.mark.parametrize("name", tiny.COMBINATIONS)
def test_a_seed_decides_every_bit(name):
    outcomes = {}
    for trial, seed in {"first": 1, "again": 1, "other": 2}.items():
        training = fresh(name)
        # More launches than those in which the CPU runtime tries numbers of threads.
        losses = [list(training.run(index, seed=seed).values()) for index in range(12)]
        outcomes[trial] = np.array(losses), training.state()
    first, again, other = (outcomes[trial] for trial in ("first", "again", "other"))
    np.testing.assert_array_equal(first[0], again[0])
    for parameter, values in first[1].items():
        np.testing.assert_array_equal(values, again[1][parameter])
    assert (first[0][:, 0] != other[0][:, 0]).all()


def test_another_model_of_the_same_seed_has_the_same_losses():
    first, second = fresh("cvae_plus_mi"), tiny.Training(SYSTEMS["cvae_plus_mi"])
    for index in range(3):
        assert first.run(index) == second.run(index)


@pytest.mark.parametrize("name", PLAIN)
def test_the_models_gradient_is_that_of_the_whole_objective(name):
    """Against the critics as they are after their updates; Adam's first moment is 0.1 gradient."""
    training, noise = fresh(name), tiny.training(name).noise()
    terms = training.run(noise=noise)
    after = training.state()
    before = {**training.start, **{critic: after[critic] for critic in critics_of(training)}}
    training.restore(before)
    weights, model = list(training.step.optimizer.parameters), training.model
    if noise.prior is not None:
        noise = noise._replace(prior=noise.prior[training.training.critic_updates])
    given = noise._make(tiny.tensors(noise))
    *batch, beta = tiny.tensors([tiny.TOKENS, tiny.WEIGHT, np.float32(0.3)])

    def whole_objective(encoder_tokens):
        codes = model.encode((encoder_tokens, given.encoder_bytes, given.posterior))
        draws = given.contrast, given.embedding_bytes, given.output_bytes
        return model.objective(codes, batch, beta, given.prior, draws)

    with tiny.execution("pynative"):
        plain = ms.value_and_grad(whole_objective, None, weights, has_aux=True)
        expected, gradients = plain(given.encoder_tokens)
        expected = [term.asnumpy() for term in expected]
    reported = [terms[term] for term in ("loss", "rec", "div", "con")]
    np.testing.assert_allclose(reported, expected, rtol=1e-5, atol=1e-6)
    for weight, gradient in zip(weights, gradients, strict=True):
        gradient = gradient.asnumpy()
        moment = after[f"optimizer.model.moment1.{weight.name}"]
        tolerance = 1e-5 * np.abs(gradient).max()
        np.testing.assert_allclose(moment / 0.1, gradient, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("name", ["as printed", "as released"])
def test_what_is_decoded_is_what_the_slot_says(name):
    """z of the posterior, or Eq. 19's draws from the prior."""
    training, noise = fresh(name), tiny.training(name).noise()
    prior = noise.prior[training.training.critic_updates]
    given = noise._make(tiny.tensors(noise))
    tokens, weight, beta = tiny.tensors([tiny.TOKENS, tiny.WEIGHT, np.float32(0.3)])
    with tiny.execution("pynative"):
        model = training.model
        codes = model.encode((given.encoder_tokens, given.encoder_bytes, given.posterior))
        rest = given.contrast, given.embedding_bytes, given.output_bytes
        _, found, *_ = model.objective(codes, (tokens, weight), beta, Tensor(prior), rest)
        z = Tensor(prior) if name == "as printed" else codes[2]
        nll = model.decoder(ms.ops.tile(tokens, (2, 1)), z, *rest[1:]).asnumpy()
    expected = (nll.reshape(2, -1).sum(0) * tiny.WEIGHT).sum() / tiny.WEIGHT.sum()
    assert found.asnumpy() == pytest.approx(expected, rel=1e-5)


def test_swapped_sentences_are_what_the_contrast_pushes_away():
    """The row of the equation against NumPy, from the codes of all three encodings."""
    training, noise = fresh("as printed"), tiny.training("as printed").noise()
    slots, count = training.system, len(tiny.TOKENS)
    given = noise._make(tiny.tensors(noise))
    tokens, weight, beta = tiny.tensors([tiny.TOKENS, tiny.WEIGHT, np.float32(0.3)])
    prior = Tensor(noise.prior[training.training.critic_updates])
    with tiny.execution("pynative"):
        model = training.model
        codes = model.encode((given.encoder_tokens, given.encoder_bytes, given.posterior))
        rest = given.contrast, given.embedding_bytes, given.output_bytes
        *_, contrast = model.objective(codes, (tokens, weight), beta, prior, rest)
    first, second, swapped = np.split(codes[0].asnumpy().astype(float), 3)
    assert len(swapped) == count and not np.allclose(first, swapped)
    expected = twins.info_nce(
        *(first, second, tiny.WEIGHT, slots.temperature, slots.negatives),
        prior_draws=twins.real(swapped, tiny.WEIGHT),
    )
    assert contrast.asnumpy() == pytest.approx(expected, rel=1e-4)


def adam(values, gradients, rate):
    """Adam over a list of gradients, each of which ``gradients(values)`` gives in turn."""
    first = second = 0.0
    for t, gradient in enumerate(gradients, 1):
        slope = gradient(values)
        first, second = 0.9 * first + 0.1 * slope, 0.999 * second + 0.001 * slope**2
        step = rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        values = values - step * first / (np.sqrt(second) + 1e-8)
    return values


@pytest.mark.parametrize("name", ["ivae", "cvae_plus_mi", "as released"])
def test_each_critic_update_sees_the_ones_before(name):
    training, noise = fresh(name), tiny.training(name).noise()
    terms = training.run(noise=noise)
    after = training.state()
    training.restore(training.start)
    critics = list(training.step.critic_optimizer.parameters)
    sizes = [critic.size for critic in critics]
    start = np.concatenate([training.start[critic.name].ravel() for critic in critics])
    inputs = tiny.tensors([noise.encoder_tokens, noise.encoder_bytes, noise.posterior])
    losses = []

    def critic_loss(prior):
        joint, marginal = training.model.divergence.critic_losses(h, z, prior, Tensor(tiny.WEIGHT))
        return joint + marginal, joint, marginal

    def slope(prior, values):
        """The gradient at some values of the critics, for one set of prior draws."""
        parts = np.split(values.astype(np.float32), np.cumsum(sizes)[:-1])
        for critic, part in zip(critics, parts, strict=True):
            ms.ops.assign(critic, Tensor(part.reshape(critic.shape)))
        value, gradients = gradient_of(Tensor(prior))
        losses.append([float(loss.asnumpy()) for loss in value[1:]])
        return np.concatenate([gradient.asnumpy().ravel() for gradient in gradients])

    with tiny.execution("pynative"):
        h, _, z = training.model.encode(inputs)
        gradient_of = ms.value_and_grad(critic_loss, None, critics, has_aux=True)
        updates = noise.prior[: training.training.critic_updates]
        slopes = [lambda values, prior=prior: slope(prior, values) for prior in updates]
        blind = [lambda values, prior=prior: slope(prior, start) for prior in updates]
        seeing = adam(start, slopes, training.training.critic_learning_rate)
        reported = losses[-1]
        blind = adam(start, blind, training.training.critic_learning_rate)
    result = np.concatenate([after[critic.name].ravel() for critic in critics])
    np.testing.assert_allclose(result, seeing, rtol=1e-4, atol=1e-5)
    assert np.abs(result - blind).max() > 2e-4
    np.testing.assert_allclose(
        [terms["critic_joint"], terms["critic_marginal"]], reported, rtol=1e-5
    )


def norm(gradients):
    return np.sqrt(sum((gradient.astype(float) ** 2).sum() for gradient in gradients))


@pytest.mark.parametrize("name", ["vae", "ivae"])
def test_gradients_are_clipped_by_group(name):
    """Adam's first moments are 0.1 gradient: each group's norm is the limit, its direction kept."""
    limit = 0.01
    clipped = tiny.Training(
        tiny.COMBINATIONS[name], training=replace(tiny.TRAINING, clip_norm=limit)
    )
    clipped.run()
    full = fresh(name)
    full.run()
    prefix = "optimizer.model.moment1."
    names = [parameter.name for parameter in full.step.optimizer.parameters]
    encoder = [weight for weight in names if not weight.startswith("decoder.")]
    decoder = [weight for weight in names if weight.startswith("decoder.")]
    together = tiny.COMBINATIONS[name].clipping == "together"
    for group in [encoder + decoder] if together else [encoder, decoder]:
        short = [clipped.state()[prefix + weight] / 0.1 for weight in group]
        long = [full.state()[prefix + weight] / 0.1 for weight in group]
        assert norm(long) > limit
        np.testing.assert_allclose(norm(short), limit, rtol=1e-4)
        for small, large in zip(short, long, strict=True):
            np.testing.assert_allclose(small, large * limit / norm(long), rtol=1e-3, atol=1e-9)


def test_the_norm_of_a_large_gradient_is_exact():
    """The size of PTB's embeddings, where one sum in float32 is off by a thousandth."""
    random = np.random.default_rng(0)
    gradients = [random.normal(size=shape).astype(np.float32) for shape in ((10_002, 256), (1024,))]
    found = global_norm(tuple(tiny.tensors(gradients))).asnumpy()
    np.testing.assert_allclose(found, norm(gradients), rtol=1e-6)


def graphs_of(step):
    """How many graphs the cells of a step have compiled."""
    return sum(len(cell.compile_cache) for _, cell in step.cells_and_names())


@pytest.mark.parametrize("name", {row.step: name for name, row in SYSTEMS.items()}.values())
def test_two_calls_of_a_step_compile_one_graph(name):
    """A struct or tuple as an argument would compile a graph at every call; see by_reader."""
    training = fresh(name)
    training.run()
    graphs = graphs_of(training.step)
    training.run(1)
    training.run(2)
    assert graphs_of(training.step) == graphs > 0


@pytest.mark.parametrize("name", ["vae", "cvae_plus_mi"])
def test_a_step_that_was_made_ready_compiles_nothing_in_its_call(name):
    training = fresh(name)
    with tiny.execution("graph"):
        training.step.ready(*training.arguments())
    graphs = graphs_of(training.step)
    training.run()
    assert graphs_of(training.step) == graphs > 0


def replaced_fillers(noise, sentences):
    """The same noise, but for the rows of fillers, which get other numbers."""

    def fillers(rows):
        return np.flatnonzero(np.tile(tiny.WEIGHT, len(rows) // sentences) == 0)

    changed = {}
    for field, axis in {"posterior": -2, "prior": 1, "encoder_bytes": 1, "output_bytes": 1}.items():
        values = getattr(noise, field)
        if values is not None:
            values = np.moveaxis(values.copy(), axis, 0)
            values[fillers(values)] = 200 if values.dtype == np.uint8 else 9.0
            changed[field] = np.moveaxis(values, 0, axis)
    tokens = noise.encoder_tokens.copy()
    tokens[fillers(tokens)] = tiny.rows([[20, 21]], tiny.WIDTH)
    return noise._replace(encoder_tokens=tokens, **changed)


@pytest.mark.parametrize("name", tiny.COMBINATIONS)
def test_what_stands_in_a_filler_changes_nothing(name):
    training = fresh(name)
    noise = training.noise()
    terms, state = training.run(noise=noise), training.state()
    other = tiny.TOKENS.copy()
    other[-1] = tiny.rows([[20, 21]], tiny.WIDTH)
    training.restore(training.start)
    changed = training.run(tokens=other, noise=replaced_fillers(noise, len(other)))
    assert changed == terms
    for parameter, values in training.state().items():
        np.testing.assert_array_equal(values, state[parameter])


def without_fillers(noise, sentences, views):
    """The noise of the first sentences of each view."""
    kept = np.concatenate([np.arange(sentences) + v * len(tiny.TOKENS) for v in range(views)])
    axes = {
        **{"encoder_tokens": 0, "posterior": 0, "prior": 1},
        **{"encoder_bytes": 1, "embedding_bytes": 1, "output_bytes": 1},
    }
    fields = {
        field: np.take(getattr(noise, field), kept, axis)
        for field, axis in axes.items()
        if getattr(noise, field) is not None
    }
    return noise._replace(**fields)


@pytest.mark.parametrize("name", ["vae", "cvae_plus_mi"])
def test_a_batch_filled_up_trains_like_the_sentences_alone(name):
    training = fresh(name)
    noise = training.noise()
    filled, state = training.run(noise=noise), training.state()
    training.restore(training.start)
    alone = training.run(
        tokens=tiny.TOKENS[:4],
        weight=np.ones(4, np.float32),
        noise=without_fillers(noise, 4, training.system.views),
    )
    np.testing.assert_allclose(list(alone.values()), list(filled.values()), rtol=1e-5)
    for parameter, values in training.state().items():
        if ".moment1." in parameter:
            tolerance = 1e-5 * np.abs(values).max()
            np.testing.assert_allclose(values, state[parameter], rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize("name", ["vae", "cvae_plus_mi"])
def test_graph_mode_equals_pynative(name):
    compiled, eager = fresh(name), tiny.Training(tiny.COMBINATIONS[name], mode="pynative")
    for index in range(2):
        graph, pynative = compiled.run(index), eager.run(index)
        np.testing.assert_allclose(list(graph.values()), list(pynative.values()), rtol=1e-5)
    for parameter, values in eager.state().items():
        if ".moment1." in parameter:
            tolerance = 1e-4 * np.abs(values).max()
            close = compiled.state()[parameter]
            np.testing.assert_allclose(close, values, rtol=1e-3, atol=tolerance)


GOLDEN = {
    "vae": [11.941814, 11.899561, 11.878211],
    "cvae_plus_mi": [42.139183, 37.189880, 37.424919],
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_losses(name):
    """Any change of what a step computes shows here; a wanted one brings new numbers."""
    training = fresh(name)
    losses = [training.run(index)["loss"] for index in range(3)]
    np.testing.assert_allclose(losses, GOLDEN[name], rtol=1e-5)


COMPILE_ONE_STEP = """
import tiny
tiny.training("cvae_plus_mi").run()
"""


@pytest.mark.slow
def test_the_sentence_is_encoded_once_for_both_players(tmp_path):
    """The optimised graph holds two forward LSTMs, the encoder's and the decoder's."""
    environment = {
        **os.environ,
        "MS_DEV_SAVE_GRAPHS": "1",
        "MS_DEV_SAVE_GRAPHS_PATH": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    subprocess.run(
        [sys.executable, "-c", COMPILE_ONE_STEP], env=environment, cwd=tmp_path, check=True
    )
    final = sorted(tmp_path.rglob("*validate*.ir"))
    assert len(final) == 1
    forward = re.findall(r"= LSTM\(.*input_size: I64\((\d+)\)", final[0].read_text())
    sizes = tiny.SIZES
    encoder, decoder = sizes.embedding_size, sizes.embedding_size + sizes.latent_size
    assert sorted(map(int, forward)) == [encoder, decoder]
