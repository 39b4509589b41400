"""What PiD decodes: latent families, a latent made ready for the network, latents as files. No network here."""
