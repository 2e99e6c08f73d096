"""Whatever comes from outside, as bytes that nobody meant to send."""
