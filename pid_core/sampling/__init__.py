"""From noise to pixels: noise levels, predictions, the loop of `decode`. No files, no pictures."""
