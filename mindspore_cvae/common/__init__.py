"""What any room may use: files that are whole or absent, arrays and numbers that others wrote,
memory, progress, randomness, streams (standard ones, whose reader may go away)."""
