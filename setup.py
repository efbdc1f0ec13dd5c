"""The optional C extension; all else is in pyproject.toml."""

from setuptools import Extension, setup

# Optional: where no compiler is, the build goes on and the Python twin serves.
# It keeps to the stable interface of 3.11: one build serves every later version.
setup(
    ext_modules=[
        Extension("lazyfs._native", ["native/chunker.c"], optional=True, py_limited_api=True)
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
