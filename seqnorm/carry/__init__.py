"""Lengths of padded sequences inside models that do not know of them."""

from seqnorm.carry.block import Carried, carry_lengths

__all__ = ["Carried", "carry_lengths"]
