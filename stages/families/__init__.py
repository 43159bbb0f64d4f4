"""How each mixture-of-experts family names its tensors and counts its experts: data, registered by entry point."""

from stages.families.family import Family, Role, find

__all__ = ["Family", "Role", "find"]
