"""What can be set: keys, options (what an option is), contradictions, layers (defaults, system,
file and command line, merged), schema (for editors)."""
