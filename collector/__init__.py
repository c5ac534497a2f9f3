"""Receives, keeps, judges and publishes records."""
