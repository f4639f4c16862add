"""One module for each command of `gcnet`: `run(argv)` takes the words after its name, returns the exit code.

A module imports what is slow (torch, OpenCV) inside `run`, once the words are known to be good.
"""
