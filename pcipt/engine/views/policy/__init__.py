"""What administrators decide: functions that are kept for guests, and ports that are policed."""
