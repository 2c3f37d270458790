"""The configuration file: one module for each section, and the parser that turns it into values."""
