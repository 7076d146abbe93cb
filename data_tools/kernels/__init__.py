"""Loops that NumPy has no operation for, compiled; callers have a way of their own without them.

The library is built when the distribution is installed, where there is a compiler.
"""

from data_tools.kernels.library import available

__all__ = ["available"]
