"""Formatting of output: tables, numbers, times, colours, events in words."""
