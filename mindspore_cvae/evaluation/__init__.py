"""How good a model is: scoring, estimators, bounds, importance (with proposals), annealing,
fresh_critics, ngram, probe, metrics, columns (what each number means and bounds)."""
