"""Where the arithmetic lives; :mod:`seqnorm.functional` checks arguments and calls in here.

``reference``
    Plain torch operations. Covers every case: both layouts, padding, all axes.
``aten``
    torch's own fused kernels, fed with shifted values. Covers inputs without padding in the
    layouts for which such a kernel exists; same contract, fewer passes over memory.

The rule: ``aten`` where :func:`seqnorm.backends.aten.covers` says so and the input has neither
padding nor zero elements, else ``reference``.
"""
