"""Text to batches of fixed shapes: text, units, vocabulary, corpus, labels, sentences, widths,
batches; the embedded corpus with known probabilities: grammar, newswire; the paper's texts:
published."""
