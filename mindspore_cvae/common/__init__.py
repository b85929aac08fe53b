"""What any room may use: files that are whole or absent, progress, randomness."""
