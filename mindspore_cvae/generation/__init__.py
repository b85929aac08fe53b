"""Words from latent vectors and back: ways (how words are chosen), decoding, encoding."""
