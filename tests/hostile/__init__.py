"""Hostile and broken inputs, each made in a folder of its own, given to a public door, and judged by what is said.

``python -m tests.hostile`` makes the table; ``tests/test_hostile.py`` holds every case of it. A case is a function in
one of the modules beside this one: it makes its input and returns the call that a user would make.
"""
