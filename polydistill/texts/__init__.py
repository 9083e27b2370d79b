"""Text of a language, from files and from the Hub."""
