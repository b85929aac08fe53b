"""Text to batches of fixed shapes: text, vocabulary, corpus, sentences, widths, batches; and the
embedded corpus with known probabilities: grammar, newswire."""
