"""The network itself: its sizes, its blocks, how they run on a device. Nothing of files, latents or samplers."""
