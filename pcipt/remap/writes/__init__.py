"""Shadow registers, and what a write to them changed."""
