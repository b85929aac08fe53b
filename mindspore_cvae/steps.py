"""How parameters are updated: TrainOneStep cells, compiled in graph mode.

Every step is called as ``step(tokens, weight, beta, *noise)`` with ``noise`` the fields of
:class:`mindspore_cvae.noise.StepNoise`, and returns a vector of :data:`STEP_TERMS`.
"""

from __future__ import annotations

from mindspore import Parameter, ParameterTuple, Tensor, nn, ops
from mindspore.ops import operations as P

STEP_TERMS = ("loss", "rec", "div", "con", "critic_joint", "critic_marginal")
"""What a step returns, nats a sentence: rec and div are sums over views; the critics' are 0
without critics."""


def adam(parameters: list[Parameter], learning_rate: float, prefix: str) -> nn.Adam:
    """Adam with the usual moments (0.9, 0.999), its state named ``<prefix>.<...>``.

    Two optimizers in one graph must not share the names of their own state; the names of the
    network's parameters stay as they are.
    """
    optimizer = nn.Adam(parameters, learning_rate=learning_rate)
    network = {parameter.name for parameter in parameters}
    for parameter in optimizer.get_parameters():
        if parameter.name not in network:
            parameter.name = f"{prefix}.{parameter.name}"
    return optimizer


def global_norm(gradients: tuple) -> Tensor:
    """sqrt(sum of squares over all gradients)."""
    half_squares = 0.0
    for gradient in gradients:
        half_squares += P.L2Loss()(gradient)
    return ops.sqrt(2.0 * half_squares)


def clip(gradients: tuple, limit: float) -> tuple:
    """Scales the gradients so that their global norm is at most ``limit``."""
    scale = limit / ops.maximum(global_norm(gradients), Tensor(limit))
    clipped = ()
    for gradient in gradients:
        clipped += (gradient * scale,)
    return clipped


class JointStep(nn.TrainOneStepCell):
    """One update of all parameters of the model together.

    Args:
        model: a :class:`mindspore_cvae.model.LatentVariableModel`.
        optimizer: of encoder, posterior and decoder, in this order.
        groups: numbers of parameters whose gradients are clipped together; they add up to all.
        clip_norm: limit of each group's norm.
    """

    def __init__(
        self, model: nn.Cell, optimizer: nn.Optimizer, groups: list[int], clip_norm: float
    ):
        super().__init__(model, optimizer)
        self.groups = groups
        self.clip_norm = clip_norm
        self.value_and_grad = ops.value_and_grad(self.forward, None, self.weights, has_aux=True)

    def forward(
        self,
        tokens,
        weight,
        beta,
        encoder_tokens,
        posterior_noise,
        contrast_prior,
        encoder_bytes,
        embedding_bytes,
        output_bytes,
    ):
        """The objective of a batch: (loss, reconstruction, divergence, contrast)."""
        h, parameters, z = self.network.encode(encoder_tokens, posterior_noise, encoder_bytes)
        return self.network.objective(
            h,
            parameters,
            z,
            tokens,
            weight,
            beta,
            None,
            contrast_prior,
            embedding_bytes,
            output_bytes,
        )

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
        loss = ops.depend(loss, self.optimizer(self.clipped(gradients)))
        none = ops.zeros_like(loss)
        return ops.stack((loss, reconstruction, divergence, contrast, none, none))

    def clipped(self, gradients: tuple) -> tuple:
        """Each group of gradients clipped to its own norm."""
        result, start = (), 0
        for size in self.groups:
            result += clip(gradients[start : start + size], self.clip_norm)
            start += size
        return result


class CriticThenModel(JointStep):
    """Algorithm 1: k updates of the critics on fixed codes, then one of the model against them.

    The sentence is encoded once: the critics read its codes as constants, and the encoder's
        gradient is pulled back through the same pass once the model's gradient at the codes is
        known.

    Args:
        model, optimizer, groups, clip_norm: see :class:`JointStep`; the last group is the
            decoder's.
        critic_optimizer: of both critics.
        critic_updates: k.
        decoder_parameters: how many of the optimizer's parameters, at the end, are the decoder's.
    """

    def __init__(
        self,
        model: nn.Cell,
        optimizer: nn.Optimizer,
        groups: list[int],
        clip_norm: float,
        critic_optimizer: nn.Optimizer,
        critic_updates: int,
        decoder_parameters: int,
    ):
        super().__init__(model, optimizer, groups, clip_norm)
        self.critic_optimizer = critic_optimizer
        self.critic_updates = critic_updates
        self.encoder_weights = ParameterTuple(self.weights[:-decoder_parameters])
        self.decoder_weights = ParameterTuple(self.weights[-decoder_parameters:])
        self.critic_value_and_grad = ops.value_and_grad(
            self.critic_forward, None, critic_optimizer.parameters, has_aux=True
        )
        self.codes_value_and_grad = ops.value_and_grad(
            self.network.objective, (0, 1, 2), self.decoder_weights, has_aux=True
        )

    def encode(self, tokens, noise):
        """The model's ``encode``; noise may be None in a tuple, but not as an argument of vjp."""
        posterior_noise, encoder_bytes = noise
        return self.network.encode(tokens, posterior_noise, encoder_bytes)

    def critic_forward(self, h, z, prior, weight):
        """Both critics' losses: (their sum, joint, marginal)."""
        joint, marginal = self.network.divergence.critic_losses(h, z, prior, weight)
        return joint + marginal, joint, marginal

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
        joint, marginal = ops.zeros((), z.dtype), ops.zeros((), z.dtype)
        for update in range(self.critic_updates):
            (_total, joint, marginal), gradients = self.critic_value_and_grad(
                ops.stop_gradient(h), ops.stop_gradient(z), prior[update], weight
            )
            # The next update, and the model's, must see the critics as this one leaves them.
            weight = ops.depend(weight, self.critic_optimizer(gradients))
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
        updated = self.optimizer(self.clipped(encoder_gradients + decoder_gradients))
        loss, reconstruction, divergence, contrast = terms
        loss = ops.depend(loss, updated)
        return ops.stack((loss, reconstruction, divergence, contrast, joint, marginal))


STEPS = {"joint": JointStep, "critic_then_model": CriticThenModel}
"""The values of the slot ``step``."""
