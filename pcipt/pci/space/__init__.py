"""Compare addresses with what Linux believes, and find where windows have room."""
