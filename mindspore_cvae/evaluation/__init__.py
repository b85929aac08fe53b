"""How good a model is: scoring, estimators, bounds, importance (with proposals), annealing,
fresh_critics, ngram, metrics, columns (what each number means and bounds)."""
