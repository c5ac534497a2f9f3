"""The labs every test of this folder may use."""

from tests.lab.network import full_lab, lab_link, lab_of

__all__ = ["full_lab", "lab_link", "lab_of"]
