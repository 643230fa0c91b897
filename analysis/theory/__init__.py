"""Bounds on the images per class, the quantities in them, and their estimators."""
