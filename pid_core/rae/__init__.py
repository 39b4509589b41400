"""The RAE families' encoders: what makes latents of DINOv2 and SigLIP 2 from pictures (RAE, arXiv 2510.11690)."""
