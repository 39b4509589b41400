"""Configurations that several tests measure: the released sizes, and a small network unlike them in every number."""

from pid_core import NANO_PATH, PiDConfig, read_checkpoint
from pid_core.model.config import RELEASED

V1, V15 = RELEASED["v1"], RELEASED["v1.5"]
FLUX2 = PiDConfig(latent_channels=128, latent_down=16)
SMALL = PiDConfig(
    patch_size=8,
    hidden_size=128,
    num_heads=4,
    patch_depth=3,
    mlp_size=340,
    pixel_hidden_size=8,
    pixel_attn_size=96,
    pixel_num_heads=4,
    pixel_depth=1,
    pixel_mlp_size=32,
    caption_width=32,
    caption_length=8,
    latent_channels=12,
    latent_down=2,
    lq_width=96,
    prediction="x0",
)
NANO = read_checkpoint(NANO_PATH).config  # the bundled model
# Every side a multiple of what the formats of `convert --to` want; mlp_size is int8's rotation.
PACKABLE_SIDES = {"hidden_size": 64, "mlp_size": 256, "pixel_attn_size": 32, "lq_width": 32, "caption_width": 32}
PACKABLE = PiDConfig(
    **PACKABLE_SIDES,
    num_heads=2,
    patch_depth=2,
    pixel_hidden_size=4,
    pixel_num_heads=2,
    pixel_mlp_size=16,
    caption_length=8,
    lq_res_blocks=1,
    lq_interval=1,
    pixel_depth=1,
    latent_channels=16,
    latent_down=8,
    family="flux",
)
