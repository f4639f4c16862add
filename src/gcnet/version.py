"""The version, where every part can import it without importing the others."""

__version__ = "0.1.0"
