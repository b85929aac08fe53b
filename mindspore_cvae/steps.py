"""How parameters are updated: cells that run as one compiled graph, or call a few in turn.

Every step is called as ``step(tokens, weight, beta, *noise)`` with ``noise`` the fields of
:class:`mindspore_cvae.noise.StepNoise`, and returns a vector of :data:`STEP_TERMS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from mindspore_cvae.refinement import Descent, ReversedDescent
from mindspore_cvae.scaling import NoScaling

STEP_TERMS = ("loss", "rec", "div", "con", "critic_joint", "critic_marginal")
"""What a step returns, nats a sentence: rec and div are sums over views; the critics' are 0
without critics."""


def adam(
    parameters: list[Parameter], learning_rate: float, prefix: str, kind: type[nn.Adam] = nn.Adam
) -> nn.Adam:
    """Adam with the usual moments (0.9, 0.999), its state named ``<prefix>.<...>``.

    Two optimizers in one graph must not share the names of their own state; the names of the
    network's parameters stay as they are.
    """
    optimizer = kind(parameters, learning_rate=learning_rate)
    network = {parameter.name for parameter in parameters}
    for parameter in optimizer.get_parameters():
        if parameter.name not in network:
            parameter.name = f"{prefix}.{parameter.name}"
    return optimizer


def global_norm(gradients: tuple) -> Tensor:
    """sqrt(sum of squares over all gradients)."""
    squares = 0.0
    for gradient in gradients:
        # Rows first: a single sum of two million squares is off by a thousandth in float32.
        squares = squares + (gradient * gradient).sum(-1).sum()
    return ops.sqrt(squares)


def clip(gradients: tuple, limit: float) -> tuple:
    """Scales the gradients so that their global norm is at most ``limit``."""
    scale = limit / ops.maximum(global_norm(gradients), Tensor(limit))
    clipped = ()
    for gradient in gradients:
        clipped += (gradient * scale,)
    return clipped


def clip_groups(gradients: tuple, groups: list[int], limit: float) -> tuple:
    """Each group of gradients clipped to a norm of its own; ``groups`` are their sizes."""
    result, start = (), 0
    for size in groups:
        result += clip(gradients[start : start + size], limit)
        start += size
    return result


class TrainingStep:
    """What the trainer asks of a step besides the call. These defaults suit a step whose only
    memory is its parameters."""

    def bind(self, random_batch: Callable[[int], tuple]) -> None:
        """Begins a training, and offers batches besides the one that each call brings.

        Args:
            random_batch: from a number >= 1 to the arguments (tokens, weight, *noise) of a batch of
                training sentences drawn at random: a pure function of seed, training step and
                number.
        """

    def after_validation(self, metrics: dict) -> None:
        """Shows the step the metrics of a validation."""

    def state(self) -> dict:
        """What decides, besides parameters, what the step computes next, as JSON can hold it."""
        return {}

    def load_state(self, state: dict) -> None:
        """Takes back what :meth:`state` gave."""

    def counts(self) -> dict[str, int]:
        """What the last call counted, for the log; always the same names."""
        return {}

    def readings(self) -> dict[str, float]:
        """What the log tells of the step as the last call left it; always the same names."""
        return {}

    def skipped_steps(self) -> int:
        """Calls in a row, up to the last one, that did not make all their updates, since gradients
        overflowed; 0 for a step that always makes them."""
        return 0


class JointStep(TrainingStep, nn.TrainOneStepCell):
    """One update of all parameters of the model together.

    Args:
        model: a :class:`mindspore_cvae.model.LatentVariableModel`.
        optimizer: of encoder, posterior and decoder, in this order.
        groups: numbers of parameters whose gradients are clipped together; they add up to all.
        clip_norm: limit of each group's norm; None for none.
        scaling: of the losses whose gradients are taken; see :mod:`mindspore_cvae.scaling`.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        groups: list[int],
        clip_norm: float | None,
        scaling: NoScaling,
    ):
        super().__init__(model, optimizer)
        self.groups = groups
        self.clip_norm = clip_norm
        self.scaling = scaling
        self.value_and_grad = ops.value_and_grad(self.forward, None, self.weights, has_aux=True)

    def forward(self, *batch):
        """The model's terms, and before them what the gradient is taken of."""
        terms = self.network(*batch)
        return (self.scaling.scaled(terms[0]), *terms)

    def construct(
        self,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        encoder_tokens: Tensor,
        posterior_noise,
        prior,
        contrast_prior,
        encoder_bytes,
        embedding_bytes,
        output_bytes,
    ) -> Tensor:
        (_scaled, loss, reconstruction, divergence, contrast), gradients = self.value_and_grad(
            tokens,
            weight,
            beta,
            encoder_tokens,
            posterior_noise,
            contrast_prior,
            encoder_bytes,
            embedding_bytes,
            output_bytes,
        )
        updates = (self.optimizer(self.clipped(gradients)),)
        loss = ops.depend(loss, self.scaling.end_step(updates))
        none = ops.zeros_like(loss)
        return ops.stack((loss, reconstruction, divergence, contrast, none, none))

    def clipped(self, gradients: tuple) -> tuple:
        """Gradients of the scaled loss summed over processes and unscaled, then each group clipped
        to its own norm."""
        gradients = self.scaling.unscaled(self.network.ranks.add(gradients))
        if self.clip_norm is None:
            return gradients
        return clip_groups(gradients, self.groups, self.clip_norm)

    def counts(self) -> dict[str, int]:
        """What the scaling counts."""
        return self.scaling.counts()

    def readings(self) -> dict[str, float]:
        """What the scaling tells."""
        return self.scaling.readings()

    def skipped_steps(self) -> int:
        """See :class:`TrainingStep`."""
        return self.scaling.skipped_steps()


class CriticThenModel(JointStep):
    """Algorithm 1: updates of the critics on fixed codes (it writes one), then one of the model.

    The sentence is encoded once: the critics read its codes as constants, and the encoder's
    gradient is pulled back through the same pass once the model's gradient at the codes is known.

    The critics' updates are a loop of the graph. What stands in a branch or a loop alone, as their
    moments do, does not see a later ``set_data`` in MindSpore 2.10: values are put into parameters
    with ``ops.assign``, which writes in place.

    Args:
        model, optimizer, groups, clip_norm, scaling: see :class:`JointStep`.
        critic_optimizer: of both critics.
        critic_updates: updates of the critics a step.
        decoder_parameters: how many of the optimizer's parameters, at the end, are the decoder's.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        groups: list[int],
        clip_norm: float | None,
        scaling: NoScaling,
        critic_optimizer: nn.Optimizer,
        critic_updates: int,
        decoder_parameters: int,
    ):
        super().__init__(model, optimizer, groups, clip_norm, scaling)
        self.critic_optimizer = critic_optimizer
        self.critic_updates = critic_updates
        self.encoder_weights = ParameterTuple(self.weights[:-decoder_parameters])
        self.decoder_weights = ParameterTuple(self.weights[-decoder_parameters:])
        self.critic_value_and_grad = ops.value_and_grad(
            self.critic_forward, None, critic_optimizer.parameters, has_aux=True
        )
        self.codes_value_and_grad = ops.value_and_grad(
            self.codes_forward, (0, 1, 2), self.decoder_weights, has_aux=True
        )

    def encode(self, tokens, noise):
        """The model's ``encode``; noise may be None in a tuple, but not as an argument of vjp."""
        posterior_noise, encoder_bytes = noise
        return self.network.encode(tokens, posterior_noise, encoder_bytes)

    def critic_forward(self, h, z, prior, weight):
        """Both critics' losses: (their sum, scaled; joint, marginal)."""
        joint, marginal = self.network.divergence.critic_losses(h, z, prior, weight)
        return self.scaling.scaled(joint + marginal), joint, marginal

    def codes_forward(self, h, parameters, z, *batch):
        """The model's terms given the codes, and before them what the gradient is taken of."""
        terms = self.network.objective(h, parameters, z, *batch)
        return (self.scaling.scaled(terms[0]), *terms)

    def construct(
        self,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        encoder_tokens: Tensor,
        posterior_noise,
        prior,
        contrast_prior,
        encoder_bytes,
        embedding_bytes,
        output_bytes,
    ) -> Tensor:
        codes, pull_back = ops.vjp(
            self.encode,
            encoder_tokens,
            (posterior_noise, encoder_bytes),
            weights=self.encoder_weights,
        )
        h, parameters, z = codes
        ranks = self.network.ranks
        every_h, every_z = ranks.gather(ops.stop_gradient(h)), ranks.gather(ops.stop_gradient(z))
        joint, marginal = ops.zeros((), z.dtype), ops.zeros((), z.dtype)
        number, made = Tensor(0, ms.int32), Tensor(True)
        # A loop of the graph: written out, five updates are most of what a width compiles.
        while number < self.critic_updates:
            (_scaled, joint, marginal), gradients = self.critic_value_and_grad(
                every_h, every_z, ops.gather(prior, number, 0), weight
            )
            # Every process computes the same; the mean keeps their last bits from drifting apart.
            gradients = self.scaling.unscaled(ranks.average(gradients))
            made = ops.logical_and(made, self.scaling.made(self.critic_optimizer(gradients)))
            # The next update, and the model's, must see the critics as this one leaves them.
            weight = ops.depend(weight, made)
            number = number + 1
        terms, gradients = self.codes_value_and_grad(
            h,
            parameters,
            z,
            tokens,
            weight,
            beta,
            prior[self.critic_updates],
            contrast_prior,
            embedding_bytes,
            output_bytes,
        )
        at_codes, decoder_gradients = gradients
        encoder_gradients = pull_back(at_codes)[-1]
        updates = made, self.optimizer(self.clipped(encoder_gradients + decoder_gradients))
        _scaled, loss, reconstruction, divergence, contrast = terms
        loss = ops.depend(loss, self.scaling.end_step(updates))
        return ops.stack((loss, reconstruction, divergence, contrast, joint, marginal))


class ModelGradients(nn.Cell):
    """The terms of a batch and the clipped gradients of its loss; nothing is updated.

    Args:
        model: a :class:`mindspore_cvae.model.LatentVariableModel` without critics.
        weights: parameters of encoder, posterior and decoder, in this order.
        groups, clip_norm: see :class:`JointStep`.
    """

    def __init__(
        self, model: nn.Cell, weights: ParameterTuple, groups: list[int], clip_norm: float
    ):
        super().__init__(auto_prefix=False)
        self.groups = groups
        self.clip_norm = clip_norm
        self.ranks = model.ranks
        self.value_and_grad = ops.value_and_grad(model, None, weights, has_aux=True)

    def construct(
        self,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        encoder_tokens: Tensor,
        posterior_noise,
        prior,
        contrast_prior,
        encoder_bytes,
        embedding_bytes,
        output_bytes,
    ) -> tuple:
        """-> (:data:`STEP_TERMS`, a gradient for each parameter ...)."""
        (loss, reconstruction, divergence, contrast), gradients = self.value_and_grad(
            tokens,
            weight,
            beta,
            encoder_tokens,
            posterior_noise,
            contrast_prior,
            encoder_bytes,
            embedding_bytes,
            output_bytes,
        )
        none = ops.zeros_like(loss)
        terms = ops.stack((loss, reconstruction, divergence, contrast, none, none))
        return (terms, *clip_groups(self.ranks.add(gradients), self.groups, self.clip_norm))


class Update(nn.Cell):
    """An optimizer's update by gradients that another graph has computed."""

    def __init__(self, optimizer: nn.Optimizer):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer

    def construct(self, *gradients):
        return self.optimizer(gradients)


class AggressiveStep(TrainingStep, nn.Cell):
    """Updates the encoder on random batches until that helps no more, then the decoder once (He et
    al. 2019, Algorithm 1); both together, once each, as soon as MI has stopped growing.

    It helps no more once the loss a word, over a window of updates, is above that of the window
    before. The aggressive phase ends for good at the first validation whose MI is below that of the
    validation before.

    Args:
        model: a :class:`mindspore_cvae.model.LatentVariableModel` with a Gaussian posterior.
        encoder_optimizer: of encoder and posterior.
        decoder_optimizer: of the decoder.
        groups, clip_norm: see :class:`JointStep`.
        window: updates of the encoder between two looks at its loss (15 in the released code).
        most_updates: of the encoder in one step.
    """

    def __init__(
        self,
        model: nn.Cell,
        encoder_optimizer: nn.Optimizer,
        decoder_optimizer: nn.Optimizer,
        groups: list[int],
        clip_norm: float,
        window: int = 15,
        most_updates: int = 100,
    ):
        super().__init__(auto_prefix=False)
        self.network = model
        encoder, decoder = encoder_optimizer.parameters, decoder_optimizer.parameters
        self.encoder_parameters = len(encoder)
        weights = ParameterTuple((*encoder, *decoder))
        self.gradients = ModelGradients(model, weights, groups, clip_norm)
        self.update_encoder = Update(encoder_optimizer)
        self.update_decoder = Update(decoder_optimizer)
        self.window = window
        self.most_updates = most_updates
        self.bind(None)

    def bind(self, random_batch: Callable[[int], tuple] | None) -> None:
        """See :class:`TrainingStep`; None lets the encoder learn from each step's own batch."""
        self.random_batch = random_batch
        self.aggressive = True
        self.last_mi: float | None = None
        self.encoder_updates = 0

    def after_validation(self, metrics: dict) -> None:
        """Ends the aggressive phase where ``metrics["mi"]`` has fallen."""
        information = metrics["mi"]
        if self.last_mi is not None and information < self.last_mi:
            self.aggressive = False
        self.last_mi = information

    def state(self) -> dict:
        """Whether the phase lasts, and the MI of the last validation (None before the first)."""
        return {"aggressive": self.aggressive, "last_mi": self.last_mi}

    def load_state(self, state: dict) -> None:
        """See :class:`TrainingStep`."""
        self.aggressive, self.last_mi = state["aggressive"], state["last_mi"]

    def counts(self) -> dict[str, int]:
        """Updates of the encoder in the last step."""
        return {"encoder_updates": self.encoder_updates}

    def __call__(self, tokens: Tensor, weight: Tensor, beta: Tensor, *noise) -> Tensor:
        own_batch = (tokens, weight, *noise)
        self.encoder_updates = 1
        if self.aggressive:
            further = self.random_batch or (lambda number: own_batch)
            self.encoder_updates = repeat_while_loss_falls(
                lambda number: self.train_encoder(beta, *further(number)),
                self.window,
                self.most_updates,
            )
        terms, *gradients = self.gradients(tokens, weight, beta, *noise)
        if not self.aggressive:
            self.update_encoder(*gradients[: self.encoder_parameters])
        self.update_decoder(*gradients[self.encoder_parameters :])
        return terms

    def train_encoder(self, beta: Tensor, tokens: Tensor, weight: Tensor, *noise) -> tuple:
        """One update of the encoder by a batch; returns what :func:`loss_per_word` needs."""
        terms, *gradients = self.gradients(tokens, weight, beta, *noise)
        self.update_encoder(*gradients[: self.encoder_parameters])
        return terms, tokens, weight


def repeat_while_loss_falls(update: Callable[[int], tuple], window: int, most: int) -> int:
    """Calls ``update`` until the loss a word of one window is above that of the window before.

    Args:
        update: of a number from 1; returns a batch's (terms, tokens, weight).
        window: updates whose losses are looked at together.
        most: updates after which it ends in any case.

    Returns:
        How many updates there were.
    """
    before, recent = math.inf, []
    for number in range(1, most + 1):
        recent.append(update(number))
        if number % window == 0:
            now, recent = loss_per_word(recent), []
            if now > before:
                break
            before = now
    return number


def loss_per_word(batches: list[tuple[Tensor, Tensor, Tensor]]) -> float:
    """Loss a predicted word over several batches (terms, tokens (N, T + 1), weight (N,))."""
    loss, words = 0.0, 0.0
    for terms, tokens, weight in batches:
        weight = weight.asnumpy()
        loss += float(terms.asnumpy()[0]) * weight.sum()
        words += weight @ (tokens.asnumpy()[:, 1:] != 0).sum(1)
    return loss / words


class EncoderPass(nn.Cell):
    """Encoder inputs (V N, T + 1), bytes of its dropout or None, targets of all processes ->
    h (V N, H), parameters of q(z|x) (V N, P), own targets of every view (V N, T + 1)."""

    def __init__(self, model: nn.Cell):
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, encoder_tokens: Tensor, encoder_bytes, tokens: Tensor) -> tuple:
        h = self.model.encoder(encoder_tokens, encoder_bytes)
        own = self.model.ranks.own(tokens)
        return h, self.model.posterior(h), ops.tile(own, (self.model.views, 1))


class CodesGradients(nn.Cell):
    """The terms of a batch, given h and the parameters of q(z|x), and the gradients of its loss
    with respect to both and to the decoder.

    Args:
        model: a :class:`mindspore_cvae.model.LatentVariableModel` without critics.
        weights: parameters of the decoder.
    """

    def __init__(self, model: nn.Cell, weights: ParameterTuple):
        super().__init__(auto_prefix=False)
        self.model = model
        self.value_and_grad = ops.value_and_grad(self.forward, (0, 1), weights, has_aux=True)

    def forward(self, h, parameters, noise, *batch):
        """The model's objective of z drawn from q(z|x)."""
        z = self.model.posterior.sample(parameters, noise)
        return self.model.objective(h, parameters, z, *batch)

    def construct(
        self,
        h: Tensor,
        parameters: Tensor,
        noise: Tensor,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        contrast_prior,
        embedding_bytes,
        output_bytes,
    ) -> tuple:
        """-> (:data:`STEP_TERMS`, at h, at the parameters of q(z|x), at each of the decoder's)."""
        (loss, reconstruction, divergence, contrast), gradients = self.value_and_grad(
            h,
            parameters,
            noise,
            tokens,
            weight,
            beta,
            None,
            contrast_prior,
            embedding_bytes,
            output_bytes,
        )
        none = ops.zeros_like(loss)
        terms = ops.stack((loss, reconstruction, divergence, contrast, none, none))
        (at_h, at_parameters), at_decoder = gradients
        return (terms, at_h, at_parameters, *self.model.ranks.add(at_decoder))


class EncoderUpdate(nn.Cell):
    """Pulls gradients at h and at the parameters of q(z|x) back through the encoder, and updates
    encoder and decoder.

    Args:
        model: a :class:`mindspore_cvae.model.LatentVariableModel`.
        optimizer, groups, clip_norm: see :class:`JointStep`.
        decoder_parameters: how many of the optimizer's parameters, at the end, are the decoder's.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        groups: list[int],
        clip_norm: float,
        decoder_parameters: int,
    ):
        super().__init__(auto_prefix=False)
        self.model = model
        self.optimizer = optimizer
        self.groups = groups
        self.clip_norm = clip_norm
        self.encoder_weights = ParameterTuple(optimizer.parameters[:-decoder_parameters])

    def encode(self, tokens, noise):
        """h and the parameters of q(z|x); None may stand in a tuple, not as an argument of vjp."""
        (encoder_bytes,) = noise
        h = self.model.encoder(tokens, encoder_bytes)
        return h, self.model.posterior(h)

    def construct(
        self,
        encoder_tokens: Tensor,
        encoder_bytes,
        at_h: Tensor,
        at_parameters: Tensor,
        *at_decoder,
    ):
        _codes, pull_back = ops.vjp(
            self.encode, encoder_tokens, (encoder_bytes,), weights=self.encoder_weights
        )
        at_encoder = self.model.ranks.add(pull_back((at_h, at_parameters))[-1])
        gradients = at_encoder + at_decoder
        return self.optimizer(clip_groups(gradients, self.groups, self.clip_norm))


class SemiAmortizedStep(TrainingStep, nn.Cell):
    """One update of all parameters through the refinement of the posterior (Kim et al. 2018,
    Algorithm 1): the encoder gives the start, SVI refines it, the loss is taken at its end, and the
    gradient comes back through every step of SVI to encoder and decoder.

    Each step of SVI draws z anew, and so does the loss, from the noise of the training step; the
    dropout of the decoder is the same throughout.

    Args:
        model: a :class:`mindspore_cvae.model.LatentVariableModel` with a Gaussian posterior.
        optimizer, groups, clip_norm: see :class:`JointStep`.
        decoder_parameters: how many of the optimizer's parameters, at the end, are the decoder's.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        groups: list[int],
        clip_norm: float,
        decoder_parameters: int,
    ):
        super().__init__(auto_prefix=False)
        self.network = model
        decoder_weights = ParameterTuple(optimizer.parameters[-decoder_parameters:])
        self.encode = EncoderPass(model)
        self.descend = Descent(model)
        self.at_end = CodesGradients(model, decoder_weights)
        self.return_through = ReversedDescent(model, decoder_weights, clip)
        self.update = EncoderUpdate(model, optimizer, groups, clip_norm, decoder_parameters)

    def __call__(
        self,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        encoder_tokens: Tensor,
        posterior_noise: Tensor,
        prior,
        contrast_prior,
        encoder_bytes,
        embedding_bytes,
        output_bytes,
    ) -> Tensor:
        terms, *gradients = self.gradients(
            tokens,
            weight,
            beta,
            encoder_tokens,
            posterior_noise,
            contrast_prior,
            encoder_bytes,
            embedding_bytes,
            output_bytes,
        )
        self.update(encoder_tokens, encoder_bytes, *gradients)
        return terms

    def gradients(
        self,
        tokens: Tensor,
        weight: Tensor,
        beta: Tensor,
        encoder_tokens: Tensor,
        posterior_noise: Tensor,
        contrast_prior,
        encoder_bytes,
        embedding_bytes,
        output_bytes,
    ) -> list[Tensor]:
        """:data:`STEP_TERMS`, then the gradients at h, at the encoder's parameters of q(z|x), and
        at each of the decoder's parameters; posterior_noise is (S + 1, V N, Z)."""
        h, parameters, every_view = self.encode(encoder_tokens, encoder_bytes, tokens)
        shared = (every_view, beta, embedding_bytes, output_bytes)
        *draws, last = (posterior_noise[number] for number in range(len(posterior_noise)))
        velocity, visited = ops.zeros_like(parameters), []
        for draw in draws:
            visited.append((parameters, draw))
            parameters, velocity = self.descend(parameters, velocity, draw, *shared)
        terms, at_h, at_parameters, *at_decoder = self.at_end(
            h,
            parameters,
            last,
            tokens,
            weight,
            beta,
            contrast_prior,
            embedding_bytes,
            output_bytes,
        )
        at_velocity = ops.zeros_like(parameters)
        for parameters, draw in reversed(visited):
            at_parameters, at_velocity, *at_decoder = self.return_through(
                parameters, at_parameters, at_velocity, draw, *shared, *at_decoder
            )
        return [terms, at_h, at_parameters, *at_decoder]


STEPS = {
    "joint": JointStep,
    "critic_then_model": CriticThenModel,
    "aggressive": AggressiveStep,
    "semi_amortized": SemiAmortizedStep,
}
"""The values of the slot ``step``."""
