"""Whether a function can be passed through to a guest: rules and verdict."""
