"""`gcnet.train`, `predict`, `evaluate`, `compare` and `export`, which the commands of these names call.

`commands/arguments.py` makes the commands' options from the arguments here: types and defaults come from the
signatures, help from the docstrings. A type in quotes can be given in Python alone. Arguments are checked
before anything slow is imported.
"""
