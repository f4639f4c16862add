"""Predicts many images or a video, and writes the detections or classes as they are found."""
