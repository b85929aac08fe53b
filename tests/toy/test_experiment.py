"""The synthetic clustering experiment: updates against NumPy, exact resume, the command."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from tiny import execution

from mindspore_cvae.commands import toy
from mindspore_cvae.errors import InputError
from mindspore_cvae.runs import checkpoints
from mindspore_cvae.toy import experiment as toy_experiment
from mindspore_cvae.toy.experiment import Experiment, Progress
from mindspore_cvae.toy.systems import CRITIC_UPDATES, TOY_SYSTEMS, draw_batch
from mindspore_cvae.toy.training import ToyTrainer

K, SEED = 3, 5
MODEL, CRITIC = "optimizer.model.moment1.", "optimizer.critics.moment1."


@pytest.fixture(autouse=True)
def graph_mode():
    with execution("graph"):
        yield


class Kept:
    """A trainer that tests share, put back to its start for each."""

    def __init__(self, name, iterations_per_call):
        self.trainer = ToyTrainer(TOY_SYSTEMS[name], K, SEED, iterations_per_call)
        self.start = {key: array.copy() for key, array in self.trainer.state().items()}

    def restored(self):
        self.trainer.load_state(self.start)
        return self.trainer


@pytest.fixture(scope="module")
def contrastive():
    return Kept("cvae_plus", 2)


@pytest.fixture(scope="module")
def gaussian():
    return Kept("vae", 2)


def copied(trainer):
    return {name: array.copy() for name, array in trainer.state().items()}


def equal(first, second):
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


def layers(state, prefix):
    """Weights and biases under a prefix, float64, in order."""
    numbers = sorted({int(n[len(prefix) :].split(".")[0]) for n in state if n.startswith(prefix)})
    return [
        (state[f"{prefix}{i}.weight"].astype(float), state[f"{prefix}{i}.bias"].astype(float))
        for i in numbers
    ]


def leaky(x):
    return np.where(x > 0, x, 0.01 * x)


def forward(parameters, x):
    """Outputs of a perceptron, and what each layer read."""
    read = []
    for index, (weight, bias) in enumerate(parameters):
        read.append(x)
        x = x @ weight.T + bias
        if index < len(parameters) - 1:
            x = leaky(x)
    return x, read


def backward(parameters, read, gradient):
    """Gradients of weights and biases, in order."""
    gradients = []
    for index in reversed(range(len(parameters))):
        gradients.insert(0, (gradient.T @ read[index], gradient.sum(0)))
        if index:
            gradient = (gradient @ parameters[index][0]) * np.where(read[index] > 0, 1.0, 0.01)
    return gradients


def model_loss(state, batch):
    """Two views' reconstruction and E_q f, minus InfoNCE, in NumPy."""
    x = np.concatenate([batch.x, batch.x]).astype(float)
    rows = len(batch.x)
    z, _ = forward(layers(state, "posterior.layers."), np.concatenate([x, batch.posterior], 1))
    logits, _ = forward(layers(state, "decoder.layers."), z)
    likelihood = np.where(x == 1, np.log1p(np.exp(-logits)), np.log1p(np.exp(logits))).sum(1)
    f, _ = forward(layers(state, "divergence.critic.layers."), np.concatenate([z, x], 1))
    unit = z / np.linalg.norm(z, axis=1, keepdims=True)
    exponents = np.exp(unit[:rows] @ unit[rows:].T / 0.05)
    contrast = np.log(np.diag(exponents) / exponents.sum(1)).mean()
    return likelihood.sum() / rows + f.sum() / rows - contrast


def critic_gradients(parameters, x, z, prior):
    """Of the pairwise circle loss, summed over two views."""
    inputs = np.concatenate([np.concatenate([z, prior]), np.concatenate([x, x])], 1)
    f, read = forward(parameters, inputs)
    posterior, prior_values = f.reshape(2, 2, -1)
    down = np.exp(-posterior)
    up = np.exp(np.exp(prior_values))
    at_posterior = -down / (1 + down.sum(1, keepdims=True))
    at_prior = up * np.exp(prior_values) / (1 + up.sum(1, keepdims=True))
    at_values = np.stack([at_posterior, at_prior]).reshape(-1, 1)
    return backward(parameters, read, at_values)


def test_an_iteration_updates_the_critic_as_numpy_does(contrastive):
    trainer = contrastive.restored()
    before, batch = contrastive.start, trainer.batch(0)
    trainer.train(0, 1)
    after = copied(trainer)

    x = np.concatenate([batch.x, batch.x]).astype(float)
    z, _ = forward(layers(before, "posterior.layers."), np.concatenate([x, batch.posterior], 1))
    prefix = "divergence.critic.layers."
    parameters = layers(before, prefix)
    moments = [[np.zeros_like(p) for p in pair] for pair in parameters]
    squares = [[np.zeros_like(p) for p in pair] for pair in parameters]
    for update in range(CRITIC_UPDATES):
        gradients = critic_gradients(parameters, x, z, batch.prior[update])
        for layer, pair in enumerate(gradients):
            for part, g in enumerate(pair):
                moments[layer][part] = 0.9 * moments[layer][part] + 0.1 * g
                squares[layer][part] = 0.999 * squares[layer][part] + 0.001 * g**2
        rate = 1e-5 * np.sqrt(1 - 0.999 ** (update + 1)) / (1 - 0.9 ** (update + 1))
        parameters = [
            tuple(
                p - rate * m / (np.sqrt(v) + 1e-8)
                for p, m, v in zip(pair, moments[layer], squares[layer], strict=True)
            )
            for layer, pair in enumerate(parameters)
        ]
    there = layers(after, prefix)
    there_moments = layers(after, CRITIC + prefix)
    for layer, pair in enumerate(parameters):
        for part in range(2):
            scale = np.abs(moments[layer][part]).max()
            assert np.allclose(
                there_moments[layer][part], moments[layer][part], rtol=0, atol=1e-4 * scale
            )
            moved = there[layer][part] - layers(before, prefix)[layer][part]
            # Of five updates of about 1e-5 each; float32 holds the parameters to about 1e-8.
            expected = pair[part] - layers(before, prefix)[layer][part]
            assert np.quantile(np.abs(moved - expected), 0.99) < 2e-7


def test_an_iteration_moves_the_model_by_the_gradient_of_its_loss(contrastive):
    trainer = contrastive.restored()
    batch = trainer.batch(0)
    terms = trainer.train(0, 1)
    after = copied(trainer)
    # The model's parameters as they were, the critic's as its updates left them.
    state = {name: contrastive.start.get(name) for name in contrastive.start}
    state |= {name: array for name, array in after.items() if name.startswith("divergence.")}
    assert terms[0] == pytest.approx(model_loss(state, batch), rel=1e-5)
    random = np.random.default_rng(0)
    names = [name for name in state if name.startswith(("posterior.", "decoder."))]
    assert len(names) == 16
    for name in names:
        gradient = after[MODEL + name] / 0.1
        for place in random.integers(0, state[name].size, 3):
            # A larger step would cross kinks of the leaky units.
            values = []
            for sign in (1, -1):
                moved = state[name].astype(float)
                moved.flat[place] += sign * 1e-6
                values.append(model_loss({**state, name: moved}, batch))
            expected = (values[0] - values[1]) / 2e-6
            assert gradient.flat[place] == pytest.approx(
                expected, rel=1e-4, abs=1e-6 * np.abs(gradient).max()
            )
        first = np.abs(after[name] - contrastive.start[name])
        assert first[np.abs(gradient) > 1e-3] == pytest.approx(1e-5, rel=0.02)


@pytest.mark.parametrize("name", ["gaussian", pytest.param("contrastive", marks=pytest.mark.slow)])
def test_iterations_in_one_graph_equal_single_ones(name, request):
    kept = request.getfixturevalue(name)
    trainer = kept.restored()
    together = trainer.train(0, 4)
    in_pairs = copied(trainer)
    kept.restored()
    singles = [trainer.train(iteration, 1) for iteration in range(4)]
    assert equal(copied(trainer), in_pairs)
    assert np.array_equal(singles[-1], together)
    assert not equal(in_pairs, kept.start)


def test_the_same_seed_gives_the_same_start_and_another_gives_another(gaussian):
    again = ToyTrainer(TOY_SYSTEMS["vae"], K, SEED, 2)
    assert equal(copied(again), gaussian.start)
    other = ToyTrainer(TOY_SYSTEMS["vae"], K, SEED + 1, 2)
    assert not np.array_equal(
        copied(other)["decoder.layers.0.weight"], gaussian.start["decoder.layers.0.weight"]
    )


def test_systems_share_the_start_of_equal_parts():
    starts = [ToyTrainer(TOY_SYSTEMS[name], K, SEED).state() for name in ("ivae", "cvae_plus")]
    assert equal(*starts)


@pytest.mark.parametrize("name", TOY_SYSTEMS)
def test_batches_are_pure_functions_of_seed_and_iteration(name):
    system = TOY_SYSTEMS[name]
    batch, again = draw_batch(system, 4, 1, 7), draw_batch(system, 4, 1, 7)
    other = draw_batch(system, 4, 1, 8)
    rows = 500 if name == "vae" else 256
    views = 2 if name == "cvae_plus" else 1
    assert batch.x.shape == (rows, 4)
    assert (batch.x.sum(1) == 1).all()
    assert batch.posterior.shape == (views * rows, 2)
    assert (batch.prior is None) == (name == "vae")
    for part, same, different in zip(batch, again, other, strict=True):
        if part is not None:
            assert np.array_equal(part, same)
            assert part is batch.x or not np.array_equal(part, different)
    if name != "vae":
        assert batch.prior.shape == (CRITIC_UPDATES + 1, views * rows, 2)
        assert (batch.x.reshape(4, 64, 4) == batch.x[::64][:, None]).all()


def test_the_papers_batch_has_fewer_noises_of_each_category():
    system = TOY_SYSTEMS["cvae_plus"]
    batch = draw_batch(system, 16, 1, 7, noises=16)
    assert batch.x.shape == (256, 16)
    assert batch.prior.shape == (CRITIC_UPDATES + 1, 512, 2)
    assert (batch.x.reshape(16, 16, 16) == batch.x[::16][:, None]).all()
    # The same categories are drawn, whatever the number of noises.
    assert np.array_equal(batch.x[::16], draw_batch(system, 16, 1, 7).x[::64])
    assert (
        system.batch_size(16, 16) == 256 == Experiment("cvae_plus", 16, 0, 1, None, 16).batch_size
    )


def test_beta_weighs_the_divergence_of_the_loss(contrastive):
    """Two of its values give the divergence, which NumPy computes from the first critic."""
    trainer = contrastive.restored()
    at_one = trainer.train(0, 1)[0]
    half = ToyTrainer(TOY_SYSTEMS["cvae_plus"], K, SEED, 2, beta=0.5)
    at_half, after = half.train(0, 1)[0], copied(half)
    batch = half.batch(0)
    x = np.concatenate([batch.x, batch.x]).astype(float)
    z, _ = forward(
        layers(contrastive.start, "posterior.layers."), np.concatenate([x, batch.posterior], 1)
    )
    f, _ = forward(layers(after, "divergence.critic.layers."), np.concatenate([z, x], 1))
    assert at_one - at_half == pytest.approx(0.5 * f.sum() / len(batch.x), rel=1e-3)


@pytest.fixture
def fine(monkeypatch):
    """Snapshots, points of the curve and checkpoints after few iterations."""
    monkeypatch.setattr(toy_experiment, "SNAPSHOTS", (0, 4, 12))
    monkeypatch.setattr(toy_experiment, "MEASURE_EVERY", 2)
    monkeypatch.setattr(toy_experiment, "CHECKPOINT_EVERY", 4)


class Killed(Exception):
    pass


def test_a_run_that_was_killed_goes_on_to_the_same_numbers(fine, tmp_path, monkeypatch):
    experiment = Experiment("vae", K, SEED, 12)
    whole = toy_experiment.run(experiment, tmp_path / "whole")

    train = ToyTrainer.train

    def killed(self, start, count):
        if start == 6:
            raise Killed
        return train(self, start, count)

    monkeypatch.setattr(ToyTrainer, "train", killed)
    with pytest.raises(Killed):
        toy_experiment.run(experiment, tmp_path / "parts")
    monkeypatch.undo()
    monkeypatch.setattr(toy_experiment, "SNAPSHOTS", (0, 4, 12))
    monkeypatch.setattr(toy_experiment, "MEASURE_EVERY", 2)
    monkeypatch.setattr(toy_experiment, "CHECKPOINT_EVERY", 4)
    folder = tmp_path / "parts" / "checkpoints"
    assert checkpoints.steps(folder) == [4]
    with pytest.raises(InputError, match="--seed 5, not 6"):
        toy_experiment.run(replace(experiment, seed=6), tmp_path / "parts")
    with pytest.raises(InputError, match="--beta 1.0, not 0.5"):
        toy_experiment.run(replace(experiment, beta=0.5), tmp_path / "parts")
    resumed = toy_experiment.run(experiment, tmp_path / "parts")

    ends = [checkpoints.load(tmp_path / name / "checkpoints") for name in ("whole", "parts")]
    assert [end.step for end in ends] == [12, 12]
    assert equal(ends[0].tensors, ends[1].tensors)
    assert {"snapshot.0", "snapshot.4", "snapshot.12"} <= ends[0].tensors.keys()
    assert resumed["curve"] == whole["curve"]
    assert [row["iteration"] for row in whole["curve"]] == [0, 2, 4, 6, 8, 10, 12]

    for name in ("whole", "parts"):
        written = json.loads((tmp_path / name / "toy.json").read_text())
        assert written == {"whole": whole, "parts": resumed}[name]
        arrays = np.load(tmp_path / name / "snapshots.npz")
        assert set(arrays.files) == {"labels", "0", "4", "12"}
        assert arrays["12"].shape == (K * toy_experiment.POINTS_PER_CATEGORY, 2)
        assert (tmp_path / name / "toy.png").read_bytes().startswith(b"\x89PNG")

    picture = tmp_path / "both.png"
    arguments = ["--figure", picture, tmp_path / "whole", tmp_path / "parts"]
    assert toy.toy_main([str(argument) for argument in arguments]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_an_end_between_two_points_is_measured_and_leaves_no_trace(fine, tmp_path):
    short = toy_experiment.run(Experiment("vae", K, SEED, 11), tmp_path)
    assert short["iterations"] == 11
    assert [row["iteration"] for row in short["curve"]] == [0, 2, 4, 6, 8, 10]
    assert short["silhouette"] != short["curve"][-1]["silhouette"]
    longer = toy_experiment.run(Experiment("vae", K, SEED, 12), tmp_path)
    assert [row["iteration"] for row in longer["curve"]] == [0, 2, 4, 6, 8, 10, 12]
    assert longer["silhouette"] == longer["curve"][-1]["silhouette"]


def test_a_run_begun_before_the_batch_could_be_chosen_goes_on(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    old = {"system": "vae", "categories": "4", "seed": "0"}
    checkpoints.save(folder, 1, {"a": np.zeros(1, np.float32)}, {}, old)
    assert toy_experiment.prepare(Experiment("vae", 4), tmp_path).step == 1
    with pytest.raises(InputError, match="--noises_per_category 64, not 16"):
        toy_experiment.prepare(Experiment("vae", 4, noises_per_category=16), tmp_path)


def row(iteration, separability):
    return {"iteration": iteration, "separability": separability}


def test_iterations_to_99_is_the_first_point_of_those_that_stay_above():
    curve = [row(0, 0.3), row(250, 0.99), row(500, 0.991), row(750, 1.0)]
    assert Progress(curve=curve).iterations_to_99() == 500
    assert Progress(curve=curve[:2]).iterations_to_99() is None
    curve += [row(1000, 0.9), row(1250, 1.0), row(1500, 1.0)]
    assert Progress(curve=curve[:5]).iterations_to_99() is None
    assert Progress(curve=curve).iterations_to_99() == 1250


@pytest.mark.parametrize(
    ("reached", "stop_after", "end"),
    [(500, 100, 600), (500, None, 1000), (None, 100, 1000), (500, 2000, 1000)],
)
def test_where_a_run_ends(reached, stop_after, end):
    experiment = Experiment("vae", K, 0, 1000, stop_after)
    curve = [row(0, 0.2)] + ([row(reached, 1.0)] if reached else [])
    assert toy_experiment.last_iteration(experiment, Progress(curve=curve)) == end


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--categories", "1"], "from 2 to 64"),
        (["--iterations", "-1"], "whole number"),
        (["--system", "ae"], "invalid choice"),
        (["--beta", "-1"], "not a number, 0 or more"),
        (["--beta", "nan"], "not a number, 0 or more"),
        (["--noises_per_category", "0"], "whole number"),
        (["--system", "vae", "--noises_per_category", "4"], "draws its own category"),
        (["--figure", "a.png"], "the folder of at least one run"),
        (["--figure", "a.pdf", "."], "a .png to write"),
        (["--figure", "a.png", "."], "holds no finished run"),
        (["--output_dir", "setup.py"], "cannot be created"),
        (["--output_dir", "docs"], "docs is not empty and not a run of the toy"),
    ],
)
def test_bad_input_is_one_sentence(arguments, told, capsys):
    assert toy.toy_main(arguments) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_the_command_answers_before_mindspore_and_scipy_are_loaded():
    check = (
        "import sys, mindspore_cvae.toy.experiment;"
        "print([name for name in ('mindspore', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.slow
def test_the_command_trains_and_stops(tmp_path):
    folder = tmp_path / "run"
    arguments = ["--system", "vae", "--categories", "2", "--output_dir", folder]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mindspore_cvae",
            "toy",
            *map(str, arguments),
            "--iterations",
            "750",
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads((folder / "toy.json").read_text())
    assert [row["iteration"] for row in result["curve"]] == [0, 250, 500, 750]
    assert result["milliseconds_per_iteration"] > 0
    assert f"written to {folder}" in done.stdout
