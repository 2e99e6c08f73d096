"""Rules that decide whether a function can be passed through to a guest, and the verdict on a function."""
