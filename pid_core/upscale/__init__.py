"""From a picture or a latent to an enlarged picture, outside ComfyUI: what `upscale` and `batch` do for each."""
