"""Images in, objects or classes out, written as they are found."""
