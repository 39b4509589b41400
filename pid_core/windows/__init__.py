"""A canvas in parts: which windows, how they are run and fused. Nothing of schedules, latents or files."""
