"""Conversion of networks to other number formats: typed graphs for strongly typed compilers, int8."""
