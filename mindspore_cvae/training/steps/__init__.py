"""The kinds of update: updates (what all share), joint, critics, aggressive, semi_amortized."""
