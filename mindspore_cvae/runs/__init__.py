"""What a run leaves: folder, lock, checkpoints, codes (of the training sentences), loading (a run
read back), events (for TensorBoard), outputs (files that a user names, never over a run's own),
modelarts (buckets)."""
