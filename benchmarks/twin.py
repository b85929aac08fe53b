"""The same models in PyTorch, as a careful user would write them: eager, fused Adam, no wrappers.

It covers the rows that are measured, ``vae`` and ``cvae_plus_mi`` with the defaults of the table
of systems. Weights can be taken from a project's model and noise from a project's step, so that
both can be shown to compute the same losses (``tests/whole/test_benchmarks.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

PAD, BEGIN, END = 0, 2, 3
EXPONENT_LIMIT = 30.0


class OwnNoise:
    """Noise as PyTorch's users draw it: in the step, from the global generator."""

    def normal(self, name: str, *shape: int) -> torch.Tensor:
        return torch.randn(shape)

    def dropout(self, name: str, x: torch.Tensor, rate: float) -> torch.Tensor:
        return functional.dropout(x, rate)


@dataclass
class FedNoise:
    """Noise of a project's step, for the comparison of losses.

    Attributes:
        arrays: a ``StepNoise`` as a dictionary, its masks named by the layer that they act on.
    """

    arrays: dict[str, np.ndarray]

    def normal(self, name: str, *shape: int) -> torch.Tensor:
        values = torch.from_numpy(self.arrays[name])
        assert values.shape == shape
        return values

    def dropout(self, name: str, x: torch.Tensor, rate: float) -> torch.Tensor:
        threshold = min(round(rate * 256), 255)
        kept = torch.from_numpy(self.arrays[name] >= threshold).to(x.dtype)
        return x * kept * (256.0 / (256 - threshold))


def perceptron(inputs: int, size: int, layers: int) -> nn.Sequential:
    """The critics' network: hidden layers with LeakyReLU, then one number."""
    cells: list[nn.Module] = []
    for _ in range(layers):
        cells += [nn.Linear(inputs, size), nn.LeakyReLU(0.01)]
        inputs = size
    return nn.Sequential(*cells, nn.Linear(inputs, 1))


class Twin(nn.Module):
    """Encoder, posterior, decoder and critics of a row.

    Args:
        slots: the row, ``vae`` or ``cvae_plus_mi``.
        sizes: a ``config.Model``.
        vocabulary_size: with the four specials.
    """

    def __init__(self, slots, sizes, vocabulary_size: int):
        super().__init__()
        self.slots, self.sizes = slots, sizes
        embedding, hidden, latent = sizes.embedding_size, sizes.hidden_size, sizes.latent_size
        self.encoder_embedding = nn.Embedding(vocabulary_size, embedding)
        self.encoder_lstm = nn.LSTM(embedding, hidden)
        self.is_gaussian = slots.posterior == "gaussian"
        if self.is_gaussian:
            self.mean_and_log_variance = nn.Linear(hidden, 2 * latent)
        else:
            self.from_hidden = nn.Linear(hidden, latent)
            self.from_noise = nn.Linear(sizes.noise_size, latent, bias=False)
            critic = sizes.critic_size, sizes.critic_layers
            self.joint_critic = perceptron(latent + hidden, *critic)
            self.marginal_critic = perceptron(latent, *critic)
        self.decoder_embedding = nn.Embedding(vocabulary_size, embedding)
        self.initial_hidden = nn.Linear(latent, hidden, bias=sizes.first_state_bias)
        self.decoder_lstm = nn.LSTM(embedding + latent, hidden)
        self.output = nn.Linear(hidden, vocabulary_size)

    def groups(self) -> tuple[list, list, list]:
        """Parameters of encoder and posterior, of the decoder, and of the critics."""
        encoder = ("encoder", "mean_and_log_variance", "from_hidden", "from_noise")
        critics = ("joint_critic", "marginal_critic")
        named = list(self.named_parameters())
        return (
            [value for name, value in named if name.startswith(encoder)],
            [value for name, value in named if not name.startswith((*encoder, *critics))],
            [value for name, value in named if name.startswith(critics)],
        )

    def encode(self, tokens: torch.Tensor, noise) -> tuple[torch.Tensor, ...]:
        """tokens (M, T + 1) -> h (M, H), parameters of q(z|x), z (M, Z)."""
        embedded = self.encoder_embedding(tokens.T)
        if self.training and self.slots.encoder_dropout:
            embedded = noise.dropout("encoder_bytes", embedded, self.slots.encoder_dropout)
        states, _ = self.encoder_lstm(embedded)
        last = (tokens != PAD).sum(1) - 1
        h = states[last, torch.arange(len(tokens))]
        if self.is_gaussian:
            parameters = self.mean_and_log_variance(h)
            mean, log_variance = parameters.chunk(2, 1)
            eps = noise.normal("posterior", *mean.shape)
            return h, parameters, mean + (0.5 * log_variance).exp() * eps
        eps = noise.normal("posterior", len(h), self.sizes.noise_size)
        return h, h, self.from_hidden(h) + self.from_noise(eps)

    def critics(self, h: torch.Tensor, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """f(x, z) and g(z) of every row."""
        f = self.joint_critic(torch.cat((z, h.detach()), 1)).squeeze(1)
        return f, self.marginal_critic(z).squeeze(1)

    def negative_log_likelihood(self, tokens: torch.Tensor, z: torch.Tensor, noise) -> torch.Tensor:
        """-log p(x|z): tokens (M, T + 1), z (M, Z) -> (M,)."""
        previous, targets = tokens[:, :-1].T, tokens[:, 1:].T
        embedded = self.decoder_embedding(previous)
        rate = self.sizes.decoder_dropout if self.training else 0.0
        if rate:
            embedded = noise.dropout("embedding_bytes", embedded, rate)
        steps = embedded.shape[0]
        inputs = torch.cat((embedded, z.expand(steps, *z.shape)), 2)
        hidden = self.initial_hidden(z).unsqueeze(0)
        states, _ = self.decoder_lstm(inputs, (hidden, torch.zeros_like(hidden)))
        if rate:
            states = noise.dropout("output_bytes", states, rate)
        losses = functional.cross_entropy(
            self.output(states).flatten(0, 1),
            targets.flatten(),
            ignore_index=PAD,
            reduction="none",
        )
        return losses.view_as(targets).sum(0)

    @torch.no_grad()
    def greedy(self, z: torch.Tensor, most: int) -> list[int]:
        """One sentence, word by word: z (1, Z) -> ids."""
        hidden = self.initial_hidden(z).unsqueeze(0)
        state, word, words = (hidden, torch.zeros_like(hidden)), BEGIN, []
        while len(words) < most:
            embedded = self.decoder_embedding(torch.tensor([[word]]))
            states, state = self.decoder_lstm(torch.cat((embedded, z.unsqueeze(0)), 2), state)
            logits = self.output(states[0, 0])
            logits[PAD] = logits[BEGIN] = -torch.inf
            word = int(logits.argmax())
            if word == END:
                break
            words.append(word)
        return words

    @torch.no_grad()
    def score(self, sentence: torch.Tensor, samples: int) -> tuple[float, ...]:
        """Means over draws of -log p(x|z) and of the critics' values of one sentence (1, T + 1),
        encoded anew for every draw as the released evaluation does."""
        tokens, noise = sentence.expand(samples, -1), OwnNoise()
        h, _parameters, z = self.encode(tokens, noise)
        values = [self.negative_log_likelihood(tokens, z, noise).mean()]
        if not self.is_gaussian:
            f, g = self.critics(h, z)
            f_prior, g_prior = self.critics(h, noise.normal("prior", *z.shape))
            values += [f.mean(), f_prior.exp().mean(), g.mean(), g_prior.exp().mean()]
        return tuple(float(value) for value in values)


def log_one_plus_sum_exp(values: torch.Tensor) -> torch.Tensor:
    """log(1 + sum_i exp v_i) over the last axis."""
    return torch.logsumexp(functional.pad(values, (1, 0)), -1)


def bounded_exp(values: torch.Tensor) -> torch.Tensor:
    return values.clamp(max=EXPONENT_LIMIT).exp()


def circle_loss(posterior: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
    """The pairwise circle loss of a critic, summed over views: (V N,) each."""
    q, p = posterior.view(2, -1), bounded_exp(prior).view(2, -1)
    return (log_one_plus_sum_exp(-q) + log_one_plus_sum_exp(p)).sum()


def info_nce(z: torch.Tensor, temperature: float) -> torch.Tensor:
    """First views against second views: z (2 N, Z) -> a scalar."""
    unit = z * (z.square().sum(1, keepdim=True).clamp(min=1e-12)).rsqrt()
    anchors, positives = unit.chunk(2)
    similarities = anchors @ positives.T / temperature
    return -functional.cross_entropy(similarities, torch.arange(len(anchors)))


class TwinStep:
    """One training step: the critics' updates, then the model's.

    Args:
        model: on whose parameters it works.
        training: a ``config.Train``.
    """

    def __init__(self, model: Twin, training):
        self.model, self.settings = model, training
        self.encoder, self.decoder, self.critics = model.groups()
        self.optimizer = torch.optim.Adam(
            self.encoder + self.decoder, training.learning_rate, fused=True
        )
        if self.critics:
            self.critic_optimizer = torch.optim.Adam(
                self.critics, training.critic_learning_rate, fused=True
            )

    def __call__(self, tokens: torch.Tensor, beta: float, noise) -> tuple[float, ...]:
        """tokens (N, T + 1) -> loss, reconstruction, divergence, contrast, critics' losses."""
        model = self.model
        views = tokens.repeat(model.slots.views, 1)
        h, parameters, z = model.encode(views, noise)
        if model.is_gaussian:
            mean, log_variance = parameters.chunk(2, 1)
            kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)
            divergence, contrast, critic_losses = kl.mean(), torch.zeros(()), (0.0, 0.0)
        else:
            prior = noise.normal("prior", self.settings.critic_updates + 1, *z.shape)
            critic_losses = self.update_critics(h.detach(), z.detach(), prior)
            divergence = self.divergence(z, prior[-1])
            contrast = info_nce(z, model.slots.temperature)
        likelihood = model.negative_log_likelihood(views, z, noise)
        reconstruction = likelihood.view(model.slots.views, -1).sum(0).mean()
        loss = reconstruction + beta * divergence - contrast
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        groups = [self.encoder + self.decoder]
        if model.slots.clipping == "separate":
            groups = [self.encoder, self.decoder]
        for group in groups:
            nn.utils.clip_grad_norm_(group, self.settings.clip_norm)
        self.optimizer.step()
        terms = (loss, reconstruction, divergence, contrast)
        return (*(term.item() for term in terms), *critic_losses)

    def update_critics(self, h: torch.Tensor, z: torch.Tensor, prior: torch.Tensor) -> tuple:
        """All updates of both critics on fixed codes; returns the last losses of f and g."""
        both = torch.cat((h, h))
        for parameter in self.critics:
            parameter.requires_grad_(True)
        for update in range(self.settings.critic_updates):
            f, g = self.model.critics(both, torch.cat((z, prior[update])))
            joint, marginal = circle_loss(*f.chunk(2)), circle_loss(*g.chunk(2))
            first, second = g[: len(z)].chunk(2)
            marginal = marginal + (first - second).square().sum()
            self.critic_optimizer.zero_grad(set_to_none=True)
            (joint + marginal).backward()
            self.critic_optimizer.step()
        # The model's step needs their values, not their gradients.
        for parameter in self.critics:
            parameter.requires_grad_(False)
        return joint.item(), marginal.item()

    def divergence(self, z: torch.Tensor, prior: torch.Tensor) -> torch.Tensor:
        """The dual estimate of KL(q(z) || p(z)) by g, summed over views."""
        values = self.model.marginal_critic(torch.cat((z, prior))).squeeze(1)
        posterior, prior_values = values.chunk(2)
        each = posterior.view(2, -1).mean(1) - bounded_exp(prior_values).view(2, -1).mean(1) + 1
        return each.sum()


def state_of(parameters: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A project's parameters by name, as a state of the twin.

    Both libraries keep an LSTM's gates in one matrix, in the order input, forget, cell, output;
    the project's decoder holds the bias of the words as the last column of their matrix.
    """
    lstm = {
        f"{source}.lstm.{kind}_l0": f"{source}_lstm.{kind}_l0"
        for source in ("encoder", "decoder")
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    }
    others = {
        "encoder.embedding.weight": "encoder_embedding.weight",
        "decoder.embedding.weight": "decoder_embedding.weight",
        "decoder.initial_hidden.weight": "initial_hidden.weight",
        "decoder.initial_hidden.bias": "initial_hidden.bias",
        "posterior.from_noise.weight": "from_noise.weight",
        **{
            f"posterior.{layer}.{part}": f"{layer}.{part}"
            for layer in ("from_hidden", "mean_and_log_variance")
            for part in ("weight", "bias")
        },
    }
    state = {}
    for name, values in parameters.items():
        values = torch.from_numpy(values)
        if name == "decoder.vocabulary_weight":
            state["output.weight"], state["output.bias"] = values[:, :-1], values[:, -1]
        elif name.startswith("divergence."):
            state[name.replace("divergence.", "").replace(".layers.", ".")] = values
        else:
            state[{**lstm, **others}[name]] = values
    return state
