"""The optional C extension; all else is in pyproject.toml."""

from setuptools import Extension, setup

# Optional: where no compiler is, the build goes on and the Python twin serves.
setup(ext_modules=[Extension("lazyfs._native", ["native/chunker.c"], optional=True)])
