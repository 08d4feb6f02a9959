"""Colour and size conversions of planes: L*a*b*, profiles, resampling."""
