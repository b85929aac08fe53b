"""The equation and what fills it: objectives, equation, posteriors, divergences, contrasts,
networks, refinement, inference, building."""
