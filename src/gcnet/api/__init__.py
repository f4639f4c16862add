"""What the commands of these names call: `gcnet.train`, `predict`, `evaluate`, `compare` and `export`.

Their arguments are the options of the commands, whose types, defaults and help are read from the signatures
and docstrings here: `commands/arguments.py`. What is in quotes in a signature can be given in Python alone.
What can be wrong is found out before anything slow is imported.
"""
