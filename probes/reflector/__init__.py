"""The STAMP Session-Reflector: :class:`Reflector` answers, the files beside it decide."""

from probes.reflector.counters import ReflectorCounters
from probes.reflector.service import Reflector
from probes.reflector.settings import ReflectorSettings, StampSection

__all__ = ["Reflector", "ReflectorCounters", "ReflectorSettings", "StampSection"]
