"""How the property tests run."""

from hypothesis import settings

# A slow example says something about the machine, not about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
