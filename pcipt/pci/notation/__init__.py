"""Read addresses as other programs write them, and find the function that a wrong text may have meant."""
