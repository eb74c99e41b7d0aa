"""What a test says that is skipped for want of a package."""

NEEDS_ALL = "needs a package of the extra `test-all`: .venv/bin/pip install -e '.[test-all]'"
