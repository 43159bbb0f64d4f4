"""Many-Worlds: frozen models, a shared space of Gaussians, and what leads from each model into it and out of it again."""
