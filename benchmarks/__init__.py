"""Benchmarks: lazyfs beside the local file system, and beside cvmfs2 where there is one."""
