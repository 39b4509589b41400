"""What ComfyUI runs of ours: the MODEL, its noise levels and windows, and what is shown and known while it runs."""
