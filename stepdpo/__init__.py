"""Step-level preference optimisation for language models that reason."""

__version__ = "0.1.0"
