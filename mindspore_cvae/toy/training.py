"""The networks of the synthetic clustering experiment, and several of its iterations as one graph.

The equation, Algorithm 1, the posteriors and the contrast are those of the text models; encoder,
decoder and critic are small perceptrons on one-hot categories.
"""

from __future__ import annotations

import zlib
from types import SimpleNamespace

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from mindspore_cvae.common import randomness
from mindspore_cvae.errors import TrainingError
from mindspore_cvae.model import objectives
from mindspore_cvae.model.building import put_values
from mindspore_cvae.model.contrasts import CONTRASTS
from mindspore_cvae.model.divergences import GaussianKL
from mindspore_cvae.model.equation import LatentVariableModel
from mindspore_cvae.model.networks import Critic, LeakyReLU, multilayer_perceptron
from mindspore_cvae.model.posteriors import POSTERIORS
from mindspore_cvae.toy import systems as toy
from mindspore_cvae.toy.systems import ToyBatch, ToySystem
from mindspore_cvae.training.scaling import Scaling
from mindspore_cvae.training.steps.critics import CriticThenModel
from mindspore_cvae.training.steps.joint import JointStep
from mindspore_cvae.training.steps.updates import Clipping, adam

ITERATIONS_PER_CALL = 5
"""Iterations in one graph: more compile longer, and save little."""
ACTIVATIONS = {"leaky_relu": LeakyReLU, "elu": nn.ELU}


class Unencoded(nn.Cell):
    """h = x, for a posterior that is a network of [x ; eps] itself."""

    def construct(self, x: Tensor, random_bytes=None) -> Tensor:
        """(N, K) -> (N, K)."""
        return x


class CategoryEncoder(nn.Cell):
    """h = MLP(x), for a posterior whose mean and log-variance are linear in h."""

    def __init__(self, categories: int, activation: type[nn.Cell]):
        super().__init__()
        self.layers = multilayer_perceptron(
            categories, toy.LAYER_SIZE, toy.MODEL_LAYERS - 1, toy.LAYER_SIZE, activation
        )
        self.activation = activation()

    def construct(self, x: Tensor, random_bytes=None) -> Tensor:
        """(N, K) -> (N, 64)."""
        return self.activation(self.layers(x))


class BitDecoder(nn.Cell):
    """-log p(x|z) of K independent bits with logits MLP(z): the binary cross-entropy of Section
    4.1."""

    def __init__(self, categories: int, activation: type[nn.Cell]):
        super().__init__()
        self.layers = multilayer_perceptron(
            toy.LATENT_SIZE, toy.LAYER_SIZE, toy.MODEL_LAYERS, categories, activation
        )

    def construct(self, x: Tensor, z: Tensor, embedding_bytes=None, output_bytes=None) -> Tensor:
        """x (N, K), z (N, 2) -> (N,) nats."""
        return objectives.bernoulli_negative_log_likelihood(self.layers(z), x)


class CategoryDual(nn.Cell):
    """The dual of KL(q(z|x) || p(z)) by f(x, z) alone: the toy reads no MI, which would need g.

    Args:
        slots, sizes: see :class:`model.divergences.Dual`.
    """

    def __init__(self, slots, sizes):
        super().__init__()
        self.views = slots.views
        self.posterior_term, self.prior_term = objectives.CRITIC_LOSSES[slots.critic_loss]
        self.critic = Critic(
            sizes.latent_size + sizes.hidden_size, sizes.critic_size, sizes.critic_layers
        )

    def critic_losses(
        self, h: Tensor, z: Tensor, prior: Tensor, weight: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What f minimises, Eq. 3 or 13, summed over views, and 0 in place of g's loss.

        h (V N, K), z (V N, 2), prior (V N, 2), weight (N,) -> two scalars.
        """
        inputs = ops.concat((ops.concat((z, prior)), ops.concat((h, h))), 1)
        posterior, prior_values = self.critic(inputs).reshape(2, self.views, -1)
        losses = self.posterior_term(posterior, weight) + self.prior_term(prior_values, weight)
        return losses.sum(), ops.zeros((), losses.dtype)

    def construct(self, h: Tensor, statistics, z: Tensor, prior, weight: Tensor) -> Tensor:
        """E_q f, summed over views: all of the dual that moves the model (Eq. 4)."""
        values = self.critic(ops.concat((z, h), 1)).reshape(self.views, -1)
        return -objectives.dual_posterior(values, weight).sum()


DIVERGENCES = {"gaussian_kl": GaussianKL, "joint_dual": CategoryDual}
"""The toy's values of the slot ``divergence``."""


def build_toy(system: ToySystem, categories: int, seed: int) -> LatentVariableModel:
    """The model of a row, every layer initialised as dense layers usually are, from the seed."""
    slots, activation = system.slots, ACTIVATIONS[system.activation]
    is_gaussian = slots.posterior == "gaussian"
    sizes = SimpleNamespace(
        hidden_size=toy.LAYER_SIZE if is_gaussian else categories,
        latent_size=toy.LATENT_SIZE,
        noise_size=toy.NOISE_SIZE,
        posterior_size=toy.LAYER_SIZE,
        posterior_layers=toy.MODEL_LAYERS,
        critic_size=toy.LAYER_SIZE,
        critic_layers=toy.CRITIC_LAYERS,
    )
    model = LatentVariableModel(
        CategoryEncoder(categories, activation) if is_gaussian else Unencoded(),
        POSTERIORS[slots.posterior](sizes),
        BitDecoder(categories, activation),
        DIVERGENCES[slots.divergence](slots, sizes),
        CONTRASTS[slots.contrast](slots),
        slots,
    )
    model.update_parameters_name()
    named = model.parameters_dict()
    for name, parameter in named.items():
        # Uniform +-1/sqrt(inputs), and keyed by name: equal parts of two systems start equal.
        scale = 1.0 / np.sqrt(named[name.rsplit(".", 1)[0] + ".weight"].shape[1])
        key = np.array([seed, zlib.crc32(name.encode())], np.uint64)
        source = np.random.Generator(np.random.Philox(key=key))
        values = source.uniform(-scale, scale, parameter.shape).astype(np.float32)
        parameter.set_data(Tensor(values))
    return model


def build_toy_step(model: LatentVariableModel, system: ToySystem) -> nn.Cell:
    """The training step of a row: Adam for both players, no clipping."""
    encoder = [*model.encoder.trainable_params(), *model.posterior.trainable_params()]
    decoder = list(model.decoder.trainable_params())
    common = {
        "model": model,
        "optimizer": adam(encoder + decoder, system.learning_rate, "optimizer.model"),
        "clipping": Clipping((), None),
        "scaling": Scaling(),
    }
    if system.slots.step == "joint":
        return JointStep(**common).set_train()
    critic = list(model.divergence.trainable_params())
    step = CriticThenModel(
        **common,
        critic_optimizer=adam(critic, system.learning_rate, "optimizer.critics"),
        critic_updates=toy.CRITIC_UPDATES,
    )
    return step.set_train()


class Iterations(nn.Cell):
    """Several iterations in one graph, each on its own batch.

    Args:
        step: the training step.
        count: of iterations.
        views: V.
    """

    def __init__(self, step: nn.Cell, count: int, views: int):
        super().__init__(auto_prefix=False)
        self.step = step
        self.count = count
        self.views = views

    def construct(self, x: Tensor, own: Tensor, prior, weight: Tensor, beta: Tensor) -> Tensor:
        """x (count, N, K), own (count, V N, 2), prior (count, updates + 1, V N, 2) or None,
        weight (N,), beta () -> terms of the last iteration."""
        terms = None
        for index in range(self.count):
            rows = None if prior is None else prior[index]
            encoded = ops.tile(x[index], (self.views, 1))
            noise = (encoded, None, own[index], rows, None, None, None)
            terms = self.step(x[index], weight, beta, *noise)
            # The next iteration must see the parameters as this one leaves them.
            weight = ops.depend(weight, terms)
        return terms


class Codes(nn.Cell):
    """z of given categories and noise."""

    def __init__(self, model: LatentVariableModel):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, x: Tensor, own: Tensor) -> Tensor:
        """(N, K), (N, 2) -> (N, 2)."""
        return self.model.encode((x, None, own))[2]


class ToyTrainer:
    """Trains a row of Table 5 from one iteration to another.

    Args:
        system: the row.
        categories: K.
        seed: of parameters, batches and noise.
        iterations_per_call: of one graph; what is left over runs one by one.
        noises: rows of a batch that share a drawn category.
        beta: weight of the divergence.
    """

    def __init__(
        self,
        system: ToySystem,
        categories: int,
        seed: int,
        iterations_per_call: int = ITERATIONS_PER_CALL,
        noises: int = toy.NOISES_PER_CATEGORY,
        beta: float = toy.BETA,
    ):
        self.system = system
        self.categories = categories
        self.seed = seed
        self.noises = noises
        self.iterations_per_call = iterations_per_call
        self.model = build_toy(system, categories, seed)
        self.step = build_toy_step(self.model, system)
        self.graphs = {
            count: Iterations(self.step, count, system.slots.views).set_train()
            for count in (iterations_per_call, 1)
        }
        self.codes = Codes(self.model).set_train(False)
        self.weight = Tensor(np.ones(system.batch_size(categories, noises), np.float32))
        self.beta = Tensor(beta, ms.float32)

    def batch(self, iteration: int) -> ToyBatch:
        """See :func:`toy.systems.draw_batch`."""
        return toy.draw_batch(self.system, self.categories, self.seed, iteration, self.noises)

    def train(self, start: int, count: int) -> np.ndarray:
        """Iterations start ... start + count - 1.

        Returns:
            The ``STEP_TERMS`` of the last one.

        Raises:
            TrainingError: A term is not finite.
        """
        end = start + count
        while start < end:
            size = self.iterations_per_call if end - start >= self.iterations_per_call else 1
            batches = [self.batch(iteration) for iteration in range(start, start + size)]
            x, own, prior = (
                None if part[0] is None else Tensor(np.stack(part))
                for part in zip(*batches, strict=True)
            )
            terms = self.graphs[size](x, own, prior, self.weight, self.beta)
            start += size
        terms = terms.asnumpy()
        if not np.isfinite(terms).all():
            raise TrainingError(f"a term of the loss is not finite after iteration {end}")
        return terms

    def encode(self, labels: np.ndarray) -> np.ndarray:
        """z of the labels (N,), with the same noise at every iteration: (N, 2)."""
        own = randomness.normal(
            randomness.generator(self.seed, "evaluation", 0), len(labels), toy.NOISE_SIZE
        )
        x = toy.one_hot(labels, self.categories)
        return self.codes(Tensor(x), Tensor(own)).asnumpy()

    def state(self) -> dict[str, np.ndarray]:
        """Parameters and the optimizers' state, by name."""
        return {parameter.name: parameter.asnumpy() for parameter in self.step.get_parameters()}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Takes back what :meth:`state` gave."""
        put_values(self.step, state)
