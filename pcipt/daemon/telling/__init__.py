"""The output of the service: events, history, journal, log, metrics, announcements."""
