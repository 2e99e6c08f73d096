"""Decides what must be done and does it; opens nothing: host, Xen and store are given by their interfaces."""
