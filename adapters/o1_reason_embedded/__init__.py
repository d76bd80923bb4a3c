"""The embedded reasoner."""
