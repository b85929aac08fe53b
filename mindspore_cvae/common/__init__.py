"""What any room may use: files that are whole or absent, arrays that others wrote, progress,
randomness, streams (standard ones, whose reader may go away)."""
