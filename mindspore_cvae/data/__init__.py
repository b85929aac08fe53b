"""Text to batches of fixed shapes: text, vocabulary, corpus, labels, sentences, widths, batches;
and the embedded corpus with known probabilities: grammar, newswire."""
