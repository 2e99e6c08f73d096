"""What the service tells: events, history, journal, log, metrics, announcements."""
