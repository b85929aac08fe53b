"""Text to batches of fixed shapes: text, vocabulary, corpus, sentences, batches; and the embedded
corpus with known probabilities: grammar, newswire."""
