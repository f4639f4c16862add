"""One module for each command of `gcnet`: `run(argv)` takes its arguments and returns the exit code.

Its docstring is what `gcnet COMMAND --help` begins with. A module imports what is slow (torch, OpenCV) inside
`run`, after the arguments have been checked.
"""
