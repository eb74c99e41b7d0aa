"""Real servers that tests start themselves, each in a folder and on a port of its own; where one is absent, tests skip.

The fixtures stand in `tests/conftest.py`: a server lives as long as the test session of its process, and each test gets
a database of its own in it.
"""
