"""The synthetic clustering experiment: systems, training, clusters, experiment, pictures."""
