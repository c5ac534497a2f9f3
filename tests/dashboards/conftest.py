from tests.lab.stack import stack

__all__ = ["stack"]
