"""The heavy stages on another machine: a folder that is carried there, its results, and how they come back."""
