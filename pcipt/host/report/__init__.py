"""What is sent to somebody else: a recording and what the service says, masked, in one archive."""
