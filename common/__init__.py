"""Shared code of the seven scripts, in rooms; a room may also import what its own imports may import."""
