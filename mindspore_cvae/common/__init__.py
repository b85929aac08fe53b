"""What any room may use: files that are whole or absent, progress, randomness,
streams (standard ones, whose reader may go away)."""
