"""What is typed: one file a command, with options (what several share) and table (all of them)."""
