"""Asking the Hub."""
