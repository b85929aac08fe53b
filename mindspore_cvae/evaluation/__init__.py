"""How good a model is: scoring, estimators, bounds, importance (with proposals), annealing,
fresh_critics, ngram (with kenlm_building), probe, metrics, columns (what each number means and
bounds)."""
