"""Property tests of the store touch the disk: how long an example takes says nothing about the code."""

from hypothesis import settings

settings.register_profile("store", deadline=None)
settings.load_profile("store")
