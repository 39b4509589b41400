"""The example workflows that make_workflows.py writes: which nodes, how connected, and the note on the canvas."""

from __future__ import annotations

from workflow_format import App, Graph, Node, Out
from workflow_models import bundled_steps, by_hand, fetched

MAKE, PID = "1. Make a latent", "2. PiD draws it at four times the size"
PROMPT = "A lighthouse on a rocky coast at dawn, waves breaking, gulls in the air, warm light in the windows."
# The fixed negative text of NVIDIA's code.
NEGATIVE = (
    "low quality, worst quality, over-saturated, three legs, six fingers, cartoon, anime, cgi, low res, blurry, "
    "deformed, distortion, duplicated limbs, plastic skin, jpeg artifacts, watermark"
)
GEMMA = "gemma_2_2b_it_elm_bf16.safetensors"
FLUX_PID = "pid_1.5_flux1_1024_to_4096_4step_bf16.safetensors"
# Example pictures of this folder; the server puts them into the input folder when they are asked for.
PHOTO, BLURRED, NOISY = "pidkit_photo.png", "pidkit_photo_blurred.png", "pidkit_photo_noisy.png"
PAINTED = "pidkit_painted.png"  # noise on one eye alone, and the mask editor's paint there
EXAMPLE_FOLDER = "pidkit_photos"  # with the three photos
FLUX_VAE = "ae.safetensors"
Z_IMAGE, QWEN_3 = "z_image_turbo_bf16.safetensors", "qwen_3_4b.safetensors"

LICENCE = (
    "**Licence.** NVIDIA's PiD and PixelDiT weights are for non-commercial use only (NSCLv1, see "
    "[nvidia/PiD](https://huggingface.co/nvidia/PiD)); Gemma has "
    "[terms of use](https://ai.google.dev/gemma/terms). When you have read them, switch accept_licence on, in PiD "
    "Loader and PiD Download."
)
GEMMA_LINE = fetched(GEMMA, ", PiD's own text encoder")
MEMORY = (
    "- Short of memory, or above 4096 pixels: window_mode on PiD Decode is on auto and cuts the picture into windows "
    "where they are needed. manual with window_size 2048 needs the least."
)

SIGMA = (
    "**degrade_sigma**: 0 keeps to the picture, flaws and all. Higher values trust it less and invent more. PiD was "
    "trained up to 0.8. The bundled model is small: it draws noise away (0.1 to 0.3), but cannot invent what a blur "
    "took, so the suggestion for a blurred photo is 0. With NVIDIA's models blur counts too. latent_noise is on scale: "
    "a picture's own noise counts, none is added."
)
OTHER_PID = (
    "NVIDIA's PiD: choose it in PiD Loader, put VAE Encode in the place of PiD RGB Latent and set latent_noise to add, "
    "as NVIDIA's code does. Its weights are for non-commercial use only (NSCLv1)."
)


def note(title: str, getting: list[str], change: list[str], about: str, yours: tuple[str, ...] = ()) -> str:
    """The text on the canvas. getting: lines of files that the nodes fetch. yours: of files they do not."""
    parts = [
        f"## {title}",
        about,
        "**Fetched the first time**, by PiD Loader and PiD Download, into ComfyUI's **models** folder:\n\n"
        + "\n".join(getting),
        LICENCE,
        *(["**You need as well**; ComfyUI offers what is missing:\n\n" + "\n".join(yours)] if yours else []),
        "**To change:**\n\n" + "\n".join(change),
        "**python custom_nodes/pidkit doctor**, run in ComfyUI's folder, says what is missing (**ComfyUI-PiDKit** for "
        "**pidkit** where git brought the pack).",
    ]
    return "\n\n".join(parts)


def prompt_node(graph: Graph, column: int = 0) -> Node:
    return graph.add(
        "PrimitiveStringMultiline", column, MAKE, title="What the picture shows", value=PROMPT, height_=160
    )


def text_encoder(
    graph: Graph,
    column: int,
    group: str,
    name: str = GEMMA,
    kind: str = "pixeldit",
    *,
    title: str | None = None,
    accept_licence: bool | Out = False,
) -> Out:
    """PiD Download and CLIPLoader: a text encoder that fetches itself."""
    getting = {"file": name, "accept_licence": accept_licence, "width_": 420}
    file = graph.add("PiDKitDownload", column, group, title="Get the text encoder", **getting)
    return graph.add("CLIPLoader", column, group, title=title, clip_name=file[0], type=kind, width_=420)[0]


def flux_vae(graph: Graph, column: int, group: str) -> Out:
    """PiD Download and VAELoader: FLUX.1's VAE, which fetches itself."""
    file = graph.add("PiDKitDownload", column, group, title="Get FLUX.1's VAE", file=FLUX_VAE)
    return graph.add("VAELoader", column, group, title="FLUX.1's VAE", vae_name=file[0])[0]


def decode(graph: Graph, latent: Out, prompt: Out, pid: str, column: int, **options) -> None:
    """PiD Loader, the text encoder, PiD Decode, SaveImage."""
    model = graph.add("PiDKitLoader", column, PID, model_name=f"fetch: {pid}", width_=420)
    clip = text_encoder(graph, column, PID)
    image = graph.add(
        "PiDKitDecode", column + 1, PID, model=model[0], latent=latent, clip=clip, text=prompt, **options
    )  # fmt: skip
    graph.add("SaveImage", column + 2, PID, images=image[0], filename_prefix=f"PiDKit/{graph.name}", height_=480)


def flux_models(graph: Graph) -> tuple[Out, Out, Out]:
    """FLUX.1 dev, its text with guidance, and the prompt."""
    prompt = prompt_node(graph)
    unet = graph.add("UNETLoader", 0, MAKE, unet_name="flux1-dev.safetensors")
    clip = graph.add(
        "DualCLIPLoader", 0, MAKE, clip_name1="clip_l.safetensors", clip_name2="t5xxl_fp16.safetensors", type="flux"
    )  # fmt: skip
    text = graph.add("CLIPTextEncode", 1, MAKE, clip=clip[0], text=prompt[0])
    guided = graph.add("FluxGuidance", 1, MAKE, conditioning=text[0], guidance=3.5)
    return unet[0], guided[0], prompt[0]


def compared(graph: Graph, column: int, group: str, before: Out, after: Out) -> None:
    """ComfyUI's own node to drag a line over two pictures. In the classic rendering it only names itself."""
    graph.add(
        "ImageCompare", column, group,
        title="Before and after (Nodes 2.0)",
        image_a=before, image_b=after, width_=420, height_=350,
    )  # fmt: skip


FLUX_MODELS = tuple(by_hand(name) for name in ("flux1-dev.safetensors", "clip_l.safetensors", "t5xxl_fp16.safetensors"))


def bundled(graph: Graph, *, windows: bool) -> Graph:
    """The bundled model on a picture, node by node; with windows, through Context Window."""
    load, draw = "1. The picture", "2. Enlarge"
    image = graph.add("LoadImage", 0, load, title="Picture to enlarge", image=PHOTO, height_=380)
    model = graph.add("PiDKitLoader", 0, load)[0]
    latent = graph.add("PiDKitRGBLatent", 1, draw, image=image[0])
    pid = graph.add("PiDKitConditioning", 1, draw, latent=latent[0], model=model)
    if windows:
        model = graph.add("PiDKitContextWindow", 1, draw, model=model, canvas=pid[2], height_=240)[0]
    sampled = graph.add(
        "KSampler", 2, draw,
        model=model, positive=pid[0], negative=pid[1], latent_image=pid[2],
        steps=bundled_steps(), cfg=1.0, sampler_name="lcm", scheduler="simple",
    )  # fmt: skip
    vae = graph.add("PiDKitPixelVAE", 2, draw)
    decoded = graph.add("VAEDecode", 3, draw, samples=sampled[0], vae=vae[0])
    graph.add(
        "SaveImage", 3, draw,
        title="Four times as large",
        images=decoded[0], filename_prefix=f"PiDKit/{graph.name}", width_=420, height_=400,
    )  # fmt: skip
    return graph


TRY = "Press Run: an example picture is there already."
CHOOSE = "Choose your own picture, of any size."


def pid_upscale() -> Graph:
    graph = Graph(
        "pid_upscale",
        "## Make a picture larger\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        "1. Press Run: an example picture is there already.\n2. Choose your own picture, of any size and shape.\n\n"
        "**To change**, on PiD Upscale:\n\n"
        "- target: 2K or 4K, or factor for a multiple of the picture.\n"
        "- strength: faithful stays with the picture, repair and rebuild draw more of it anew.\n"
        "- Before and after needs Nodes 2.0: switch it on in ComfyUI's menu, then move the mouse over the pictures.\n"
        "- model_set: NVIDIA's models draw detail that the small one cannot. They are fetched on the first run (8 GB), "
        "once you have read their licence, for non-commercial use only (NSCLv1), and switched accept_licence on. "
        "Then **text** says what the picture shows.",
    )
    load, draw = "1. The picture", "2. Enlarge"
    image = graph.add("LoadImage", 0, load, title="Picture to enlarge", image=PHOTO, height_=380)
    upscaled = graph.add(
        "PiDKitUpscale", 1, draw, image=image[0], target="factor", factor=4.0, width_=380, height_=440
    )  # fmt: skip
    saved = graph.add(
        "SaveImage", 2, draw,
        title="The larger picture",
        images=upscaled[0], filename_prefix=f"PiDKit/{graph.name}", width_=420, height_=400,
    )  # fmt: skip
    compared(graph, 2, draw, image[0], upscaled[0])
    graph.app = App(
        (
            (image, "image", "Picture to enlarge"),
            (upscaled, "target", "Size of the result"),
            (upscaled, "factor", "With factor: how many times"),
            (upscaled, "strength", "How much is drawn anew"),
            (upscaled, "model_set", "bundled needs no download"),
            (upscaled, "text", "What it shows; not for bundled"),
            (upscaled, "accept_licence", "NVIDIA's: non-commercial only"),
        ),
        (saved,),
    )
    return graph


def pid_upscale_demo() -> Graph:
    text = (
        "## Enlarge a picture four times\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        f"1. {TRY}\n2. {CHOOSE}\n\n"
        "Leave the sampler as it is: lcm, simple and cfg 1 are the noise levels the model was trained at, and it "
        "is best at that number of steps.\n\nA noisy or compressed picture: raise degrade_sigma a little (0.1 to 0.4)."
    )
    return bundled(Graph("pid_upscale_demo", text), windows=False)


def pid_upscale_and_check() -> Graph:
    graph = Graph(
        "pid_upscale_and_check",
        "## Enlarge a picture, and see what became of it\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        f"1. {TRY} PiD Check shows figures and a heat picture.\n2. {CHOOSE}\n\n"
        "**What PiD Check says:**\n\n"
        "- dB from the source: above 40 the result shows what the picture showed.\n"
        "- cast: below 1 nobody sees it.\n"
        "- edges: how many times as steep as in the picture, enlarged plainly.\n"
        "- structure changed: in red what is another thing now, not merely finer.\n\n"
        "The figures are saved in the PNG as well, as **pid_check**.\n\n**To change:**\n\n"
        "- degrade_sigma on PiD Decode: at 0.4 you see what the model makes up or loses.\n"
        "- remove_speckles on PiD Check: takes out single bright pixels, which NVIDIA's models draw on skin.\n"
        f"- {OTHER_PID}",
    )
    load, draw, look = "1. The picture", "2. Four times as large", "3. What became of it"
    image = graph.add("LoadImage", 0, load, title="Picture to enlarge", image=PHOTO, height_=380)
    model = graph.add("PiDKitLoader", 0, load)
    latent = graph.add("PiDKitRGBLatent", 0, load, image=image[0])
    decoded = graph.add("PiDKitDecode", 1, draw, model=model[0], latent=latent[0], height_=620)
    checked = graph.add(
        "PiDKitCheck", 2, look, image=decoded[0], source=image[0], model=model[0], width_=420, height_=520
    )  # fmt: skip
    graph.add(
        "SaveImage", 3, look,
        title="The larger picture, with its figures",
        images=checked[0], filename_prefix=f"PiDKit/{graph.name}", width_=420, height_=400,
    )  # fmt: skip
    compared(graph, 3, look, image[0], checked[0])
    return graph


def pid_context_window_demo() -> Graph:
    text = (
        "## Enlarge a picture in windows\n\n"
        "Overlapping windows need far less memory than the whole frame. The model that comes with this pack was "
        "trained on small pictures, so its windows are small and this runs anywhere, also on a large picture. Nothing "
        "to download.\n\n"
        f"1. {TRY} Context Window (PiD) shows the windows, their memory and their work.\n2. {CHOOSE}\n\n"
        "NVIDIA's models: take this node into your own graph, between PiD Loader and the sampler. PiD Decode has "
        "windows of its own (window_mode)."
    )
    return bundled(Graph("pid_context_window_demo", text), windows=True)


def upscaled(graph: Graph, group: str, image, framing, latent, model, *, title: str) -> Graph:
    """What follows a prepared picture and its latent: the text, PiD Decode, the file and picture beside result."""
    clip = text_encoder(graph, 2, group, title="PiD's text encoder")
    decoded = graph.add(
        "PiDKitDecode", 3, group,
        model=model, latent=latent, clip=clip, framing=framing,
        colour_hold="low_frequencies",
    )  # fmt: skip
    graph.add(
        "SaveImage", 4, group,
        title=title,
        images=decoded[0], filename_prefix=f"PiDKit/{graph.name}", width_=420, height_=400,
    )  # fmt: skip
    compared(graph, 4, group, image, decoded[0])
    return graph


def pid_with_flux_upscale_picture() -> Graph:
    graph = Graph(
        "pid_with_flux_upscale_picture",
        note(
            "Upscale any picture to about 2048 x 2048",
            [fetched(FLUX_PID), GEMMA_LINE, fetched(FLUX_VAE, ", FLUX.1's")],
            [
                "- target: 4K, or factor for a multiple of the picture. A sharp picture: factor 4.",
                "- text: what the picture shows.",
                "- degrade_sigma: 0 stays with the picture; 0.3 to 0.7 repairs a blurred or damaged one and invents "
                "more.",
                "- colour_hold and fidelity: colours and detail of the picture, where PiD drifts from it.",
            ],
            "In its own shape, with NVIDIA's PiD for FLUX.1's VAE. PiD Prepare Image shows the sizes. Parts that had "
            "to be added to fit are cut off again by PiD Decode.",
        ),
    )
    load, draw = "1. The picture as a latent", PID
    image = graph.add("LoadImage", 0, load, title="Picture to upscale", image=PHOTO, height_=380)
    prepared = graph.add("PiDKitPrepareImage", 1, load, image=image[0], height_=220)
    vae = flux_vae(graph, 1, load)
    latent = graph.add("VAEEncode", 1, load, pixels=prepared[0], vae=vae)
    model = graph.add("PiDKitLoader", 2, draw, model_name=f"fetch: {FLUX_PID}", width_=420)
    return upscaled(graph, draw, image[0], prepared[1], latent[0], model[0], title="The picture, about 2048 x 2048")


def pid_with_flux_to_4k() -> Graph:
    graph = Graph(
        "pid_with_flux_to_4k",
        note(
            "FLUX.1 to 4096 x 4096",
            [fetched(FLUX_PID), GEMMA_LINE],
            [
                "- Size: set it on the empty latent. PiD's picture is four times as large each way: 1024 gives 4096, "
                "512 gives 2048.",
                MEMORY,
                "- Less time: the workflow pid_with_flux_early_stop leaves the generator's last steps to PiD.",
            ],
            "FLUX.1 makes a latent of 1024 x 1024 pixels; PiD decodes it to 4096 x 4096 in four. No VAE is needed.",
            FLUX_MODELS,
        ),
    )
    unet, text, prompt = flux_models(graph)
    none = graph.add("ConditioningZeroOut", 1, MAKE, conditioning=text)
    empty = graph.add("EmptySD3LatentImage", 1, MAKE, width=1024, height=1024)
    latent = graph.add(
        "KSampler", 2, MAKE,
        model=unet, positive=text, negative=none[0], latent_image=empty[0],
        steps=28, cfg=1.0, sampler_name="euler", scheduler="simple",
    )  # fmt: skip
    decode(graph, latent[0], prompt, FLUX_PID, 3)
    return graph


def pid_with_flux_early_stop() -> Graph:
    graph = Graph(
        "pid_with_flux_early_stop",
        note(
            "FLUX.1, stopped early",
            [fetched(FLUX_PID), GEMMA_LINE],
            [
                "- Where to stop: stop **at step** and stop_step on PiD Early Stop. Fewer steps save more time and "
                "leave more to PiD.",
                "- Another generator: choose it on PiD Early Stop, and its latent_format on PiD Latent From Noisy.",
                "- latent_noise on PiD Decode stays on keep: the latent carries its noise already.",
                MEMORY,
            ],
            "PiD was trained on latents that still carry noise. So FLUX.1 runs 24 of its 28 steps only; PiD takes the "
            "latent with the noise that is left in it (degrade_sigma) and finishes the picture at 4096 x 4096.",
            FLUX_MODELS,
        ),
    )
    unet, text, prompt = flux_models(graph)
    empty = graph.add("EmptySD3LatentImage", 1, MAKE, width=1024, height=1024)
    schedule = graph.add("BasicScheduler", 2, MAKE, model=unet, scheduler="simple", steps=28)
    stop = graph.add("PiDKitEarlyStop", 2, MAKE, sigmas=schedule[0], generator="flux")
    sampler = graph.add("KSamplerSelect", 2, MAKE, sampler_name="euler")
    sampled = graph.add(
        "SamplerCustom", 3, MAKE,
        model=unet, positive=text, negative=text, cfg=1.0, latent_image=empty[0],
        sampler=sampler[0], sigmas=stop[0],
    )  # fmt: skip
    noisy = graph.add("PiDKitLatentFromNoisy", 3, MAKE, latent=sampled[0], latent_format="flux", degrade_sigma=stop[1])
    decode(graph, noisy[0], prompt, FLUX_PID, 4, degrade_sigma=stop[1], latent_noise="keep")
    return graph


def pid_with_flux2_klein_to_4k() -> Graph:
    pid = "pid_1.5_flux2_1024_to_4096_4step_bf16.safetensors"
    graph = Graph(
        "pid_with_flux2_klein_to_4k",
        note(
            "FLUX.2 Klein to 4096 x 4096",
            [fetched(pid), GEMMA_LINE, fetched(QWEN_3, ", FLUX.2 Klein's text encoder")],
            [
                "- Size: set it on the empty latent and on Flux2Scheduler. PiD's picture is four times as large.",
                "- FLUX.2 dev: load its files instead, 50 steps, and put PiD Early Stop (flux2) after Flux2Scheduler.",
                MEMORY,
            ],
            "FLUX.2 Klein makes a latent of 1024 x 1024 pixels in four steps, too few to leave any out; PiD decodes it "
            "to 4096 x 4096 in four more.",
            (by_hand("flux-2-klein-4b.safetensors"),),
        ),
    )
    prompt = prompt_node(graph)
    unet = graph.add("UNETLoader", 0, MAKE, unet_name="flux-2-klein-4b.safetensors")
    clip = text_encoder(graph, 0, MAKE, QWEN_3, "flux2")
    text = graph.add("CLIPTextEncode", 1, MAKE, clip=clip, text=prompt[0])
    none = graph.add("ConditioningZeroOut", 1, MAKE, conditioning=text[0])
    empty = graph.add("EmptyFlux2LatentImage", 1, MAKE, width=1024, height=1024)
    schedule = graph.add("Flux2Scheduler", 2, MAKE, steps=4, width=1024, height=1024)
    sampler = graph.add("KSamplerSelect", 2, MAKE, sampler_name="euler")
    sampled = graph.add(
        "SamplerCustom", 2, MAKE,
        model=unet[0], positive=text[0], negative=none[0], cfg=1.0, latent_image=empty[0],
        sampler=sampler[0], sigmas=schedule[0],
    )  # fmt: skip
    decode(graph, sampled[0], prompt[0], pid, 3)
    return graph


def pid_with_z_image_turbo_to_4k() -> Graph:
    graph = Graph(
        "pid_with_z_image_turbo_to_4k",
        note(
            "Z-Image-Turbo to 4096 x 4096",
            [
                fetched(Z_IMAGE),
                fetched(QWEN_3, ", Z-Image's text encoder"),
                fetched(FLUX_PID, ": Z-Image shares FLUX.1's latents"),
                GEMMA_LINE,
            ],
            [
                "- Size: set it on the empty latent. PiD's picture is four times as large each way.",
                "- Z-Image (not Turbo) runs 50 steps; put PiD Early Stop (zimage) into its schedule as in "
                "pid_with_flux_early_stop. Turbo runs to the end.",
                MEMORY,
            ],
            "Z-Image-Turbo makes a latent of 1024 x 1024 pixels in eight steps; PiD decodes it to 4096 x 4096 in four.",
        ),
    )
    prompt = prompt_node(graph)
    file = graph.add("PiDKitDownload", 0, MAKE, title="Get Z-Image-Turbo", file=Z_IMAGE, width_=420)
    unet = graph.add("UNETLoader", 0, MAKE, unet_name=file[0], width_=420)
    clip = text_encoder(graph, 0, MAKE, QWEN_3, "lumina2")
    shifted = graph.add("ModelSamplingAuraFlow", 1, MAKE, model=unet[0], shift=3.0)
    text = graph.add("CLIPTextEncode", 1, MAKE, clip=clip, text=prompt[0])
    none = graph.add("ConditioningZeroOut", 1, MAKE, conditioning=text[0])
    empty = graph.add("EmptySD3LatentImage", 1, MAKE, width=1024, height=1024)
    latent = graph.add(
        "KSampler", 2, MAKE,
        model=shifted[0], positive=text[0], negative=none[0], latent_image=empty[0],
        steps=8, cfg=1.0, sampler_name="res_multistep", scheduler="simple",
    )  # fmt: skip
    decode(graph, latent[0], prompt[0], FLUX_PID, 3)
    return graph


def checkpoint_graph(graph: Graph, checkpoint: str, empty: str, **sampling) -> tuple[Out, Out]:
    """An all-in-one checkpoint with positive and negative text: latent and prompt."""
    prompt = prompt_node(graph)
    loaded = graph.add("CheckpointLoaderSimple", 0, MAKE, ckpt_name=checkpoint)
    text = graph.add("CLIPTextEncode", 1, MAKE, clip=loaded[1], text=prompt[0])
    negative = graph.add(
        "CLIPTextEncode", 1, MAKE, title="Negative text", clip=loaded[1], text="blurry, low quality", height_=140
    )
    size = graph.add(empty, 1, MAKE, width=1024, height=1024)
    latent = graph.add(
        "KSampler", 2, MAKE,
        model=loaded[0], positive=text[0], negative=negative[0], latent_image=size[0],
        **sampling,
    )  # fmt: skip
    return latent[0], prompt[0]


def pid_with_sd3_to_4k() -> Graph:
    pid = "pid_sd3_1024_to_4096_4step_bf16.safetensors"
    graph = Graph(
        "pid_with_sd3_to_4k",
        note(
            "Stable Diffusion 3.5 to 4096 x 4096",
            [fetched(pid), GEMMA_LINE],
            [
                "- Size: set it on the empty latent. PiD's picture is four times as large each way.",
                "- Less time: PiD Early Stop (sd3), as in the workflow pid_with_flux_early_stop.",
                MEMORY,
            ],
            "SD 3.5 makes a latent of 1024 x 1024 pixels; PiD's v1 checkpoint for SD3 decodes it to 4096 x 4096.",
            (by_hand("sd3.5_large_fp8_scaled.safetensors"),),
        ),
    )
    latent, prompt = checkpoint_graph(
        graph,
        "sd3.5_large_fp8_scaled.safetensors",
        "EmptySD3LatentImage",
        steps=28, cfg=4.0, sampler_name="euler", scheduler="sgm_uniform",
    )  # fmt: skip
    decode(graph, latent, prompt, pid, 3)
    return graph


def pid_with_sdxl_to_4k() -> Graph:
    pid = "pid_sdxl_1024_to_4096_4step_bf16.safetensors"
    graph = Graph(
        "pid_with_sdxl_to_4k",
        note(
            "SDXL to 4096 x 4096",
            [fetched(pid), GEMMA_LINE],
            [
                "- Size: set it on the empty latent. PiD's picture is four times as large each way.",
                "- Less time: PiD Early Stop (sdxl, 26 of 30 steps), as in the workflow pid_with_flux_early_stop, with "
                "latent_format sdxl on PiD Latent From Noisy.",
                MEMORY,
            ],
            "SDXL makes a latent of 1024 x 1024 pixels; PiD's v1 checkpoint for SDXL decodes it to 4096 x 4096.",
            (by_hand("sd_xl_base_1.0.safetensors", ", or any SDXL model"),),
        ),
    )
    latent, prompt = checkpoint_graph(
        graph,
        "sd_xl_base_1.0.safetensors",
        "EmptyLatentImage",
        steps=30, cfg=7.0, sampler_name="euler", scheduler="normal",
    )  # fmt: skip
    decode(graph, latent, prompt, pid, 3)
    return graph


def pid_with_qwen_image_to_4k() -> Graph:
    pid = "pid_1.5_qwenimage_1024_to_4096_4step_bf16.safetensors"
    graph = Graph(
        "pid_with_qwen_image_to_4k",
        note(
            "Qwen-Image to 4096 x 4096",
            [fetched(pid), GEMMA_LINE],
            [
                "- Size: set it on the empty latent. PiD's picture is four times as large each way.",
                "- Krea 2 and Anima share Qwen-Image's latents: put them in its place.",
                "- Less time: PiD Early Stop (qwenimage), as in the workflow pid_with_flux_early_stop.",
                MEMORY,
            ],
            "Qwen-Image makes a latent of 1024 x 1024 pixels; PiD decodes it to 4096 x 4096 in four steps.",
            (by_hand("qwen_image_fp8_e4m3fn.safetensors"), by_hand("qwen_2.5_vl_7b_fp8_scaled.safetensors")),
        ),
    )
    prompt = prompt_node(graph)
    unet = graph.add("UNETLoader", 0, MAKE, unet_name="qwen_image_fp8_e4m3fn.safetensors")
    clip = graph.add("CLIPLoader", 0, MAKE, clip_name="qwen_2.5_vl_7b_fp8_scaled.safetensors", type="qwen_image")
    shifted = graph.add("ModelSamplingAuraFlow", 1, MAKE, model=unet[0], shift=3.1)
    text = graph.add("CLIPTextEncode", 1, MAKE, clip=clip[0], text=prompt[0])
    negative = graph.add("CLIPTextEncode", 1, MAKE, title="Negative text", clip=clip[0], text="", height_=100)
    empty = graph.add("EmptySD3LatentImage", 1, MAKE, width=1024, height=1024)
    latent = graph.add(
        "KSampler", 2, MAKE,
        model=shifted[0], positive=text[0], negative=negative[0], latent_image=empty[0],
        steps=20, cfg=4.0, sampler_name="euler", scheduler="simple",
    )  # fmt: skip
    decode(graph, latent[0], prompt[0], pid, 3)
    return graph


def rae_graph(name: str, encoder: str, pid: str, statistics: str, about: str) -> Graph:
    """A picture through an RAE family's encoder. statistics: a file's name, or nothing."""
    graph = Graph(
        name,
        note(
            "A picture through DINOv2 to 2048 x 2048" if statistics else "A picture through SigLIP 2 to 2048 x 2048",
            [
                fetched(pid),
                GEMMA_LINE,
                fetched(encoder, ", the encoder (Apache-2.0)"),
                *([fetched(statistics, ", what its latents are normalised by (NSCLv1)")] if statistics else []),
            ],
            [
                "- fit on PiD Prepare Image: pad fits the whole picture into the square, crop its middle at full size.",
                "- text: what the picture shows.",
                "- degrade_sigma: 0 stays with the picture; higher values invent more.",
                "- colour_hold and fidelity: colours and detail of the picture, where PiD drifts from it.",
            ],
            about,
        ),
    )
    load, draw = "1. The picture as a latent", "2. PiD draws it at 2048 x 2048"
    image = graph.add("LoadImage", 0, load, title="Picture to upscale", image=PHOTO, height_=380)
    family = "dinov2" if statistics else "siglip"
    prepared = graph.add("PiDKitPrepareImage", 1, load, image=image[0], family=family, height_=220)
    normed = {"statistics": f"fetch: {statistics}"} if statistics else {}
    latent = graph.add(
        "PiDKitRAEEncode", 1, load, image=prepared[0], encoder=f"fetch: {encoder}", **normed, width_=420
    )  # fmt: skip
    model = graph.add("PiDKitLoader", 2, draw, model_name=f"fetch: {pid}", width_=460)
    return upscaled(graph, draw, image[0], prepared[1], latent[0], model[0], title="The picture, 2048 pixels long")


def pid_with_dinov2_to_2k() -> Graph:
    return rae_graph(
        "pid_with_dinov2_to_2k",
        "dinov2_with_registers_base.safetensors",
        "PiD_res2k_sr4x_official_dinov2_distill_4step.pth",
        "rae_dinov2_stat.pt",
        "DINOv2 sees 512 x 512 pixels and keeps what they show, not every pixel: PiD draws them at four times the "
        "size. The picture keeps its aspect: PiD Prepare Image pads it to the square, and PiD Decode cuts that off.",
    )


def pid_with_siglip_to_2k() -> Graph:
    return rae_graph(
        "pid_with_siglip_to_2k",
        "siglip2_so400m_patch14_224.safetensors",
        "PiD_res2k_sr8x_official_siglip_distill_4step.pth",
        "",
        "SigLIP 2 sees 256 x 256 pixels and keeps what they show, not every pixel: PiD draws them at eight times the "
        "size. The picture keeps its aspect: PiD Prepare Image pads it to the square, and PiD Decode cuts that off.",
    )


def pid_with_cfg_undistilled_flux() -> Graph:
    pid = "PiD_v1pt5_res2kto4k_sr4x_official_flux_undistilled.pth"
    graph = Graph(
        "pid_with_cfg_undistilled_flux",
        note(
            "The undistilled PiD: 25 steps with guidance",
            [fetched(pid), GEMMA_LINE, fetched(FLUX_VAE, ", FLUX.1's")],
            [
                "- The picture: 512 to 1024 pixels a side is what PiD was trained for. Describe it in the first text.",
                "- degrade_sigma on PiD Latent Conditioning: 0 keeps to the picture, 0.1 to 0.4 draws small flaws "
                "anew.",
                "- cfg: 5 is NVIDIA's; lower is calmer, 1 is fastest and ignores the negative text.",
                "- The sampler is NVIDIA's own solver: SamplerDPMPP_2M_SDE with eta 0. KSampler with dpmpp_2m, simple, "
                "25 steps and cfg 5 is nearly the same.",
            ],
            "The checkpoint that the four-step ones were taught by. It takes six times as many steps, twice, and can "
            "be steered: by cfg, by a negative text, by any of ComfyUI's samplers. Its noise levels fit the canvas by "
            "themselves.",
        ),
    )
    picture, teacher = "1. The picture as a latent", "2. The teacher draws it at four times the size"
    image = graph.add("LoadImage", 0, picture, image=PHOTO, height_=380)
    vae = flux_vae(graph, 0, picture)
    latent = graph.add("VAEEncode", 0, picture, pixels=image[0], vae=vae)
    model = graph.add("PiDKitLoader", 1, teacher, model_name=f"fetch: {pid}", width_=460)
    clip = text_encoder(graph, 1, teacher)
    captions = [
        graph.add("PiDKitCaption", 1, teacher, title=title, text=text, clip=clip, width_=460, height_=190)
        for title, text in (("What the picture shows", "A photo, sharp and detailed."), ("Negative text", NEGATIVE))
    ]  # fmt: skip
    pid_conditioning = graph.add(
        "PiDKitConditioning", 2, teacher,
        latent=latent[0], latent_format="flux", model=model[0],
        positive=captions[0][0], negative=captions[1][0],
    )  # fmt: skip
    sigmas = graph.add("PiDKitSigmas", 2, teacher, model=model[0], steps=25)
    solver = graph.add(
        "SamplerDPMPP_2M_SDE", 2, teacher, solver_type="midpoint", eta=0.0, s_noise=0.0, noise_device="cpu"
    )  # fmt: skip
    sampled = graph.add(
        "SamplerCustom", 3, teacher,
        model=model[0], positive=pid_conditioning[0], negative=pid_conditioning[1], cfg=5.0,
        sampler=solver[0], sigmas=sigmas[0], latent_image=pid_conditioning[2],
    )  # fmt: skip
    pixels = graph.add("PiDKitPixelVAE", 3, teacher)
    decoded = graph.add("VAEDecode", 3, teacher, samples=sampled[0], vae=pixels[0])
    graph.add("SaveImage", 4, teacher, images=decoded[0], filename_prefix=f"PiDKit/{graph.name}", height_=480)
    compared(graph, 4, teacher, image[0], decoded[0])
    return graph


def pid_with_pixeldit_text_to_image() -> Graph:
    name = "pixeldit_1300m_1024px_bf16.safetensors"
    graph = Graph(
        "pid_with_pixeldit_text_to_image",
        note(
            "PixelDiT: text straight to pixels",
            [fetched(name), GEMMA_LINE],
            [
                "- Size: 1024 x 1024 is what it was trained for. For 512 x 512 put ModelSamplingSD3 with shift 2 after "
                "PiD Loader.",
                "- cfg 4 and 30 steps of er_sde are usual; fewer steps are softer.",
                "- Larger: send the picture through the workflow pid_with_cfg_undistilled_flux, or VAE Encode and PiD "
                "Decode.",
            ],
            "The text-to-image model that PiD grew out of: the same network without a latent, and no VAE at all. It "
            "draws 1024 x 1024 pixels directly.",
        ),
    )
    load, draw = "1. Model and text", "2. Draw"
    model = graph.add("PiDKitLoader", 0, load, model_name=f"fetch: {name}", width_=420)
    clip = text_encoder(graph, 0, load)
    texts = [
        graph.add("PiDKitCaption", 1, load, title=title, text=text, clip=clip, width_=400, height_=190)
        for title, text in (("What the picture shows", PROMPT), ("Negative text", NEGATIVE))
    ]
    canvas = graph.add("EmptyChromaRadianceLatentImage", 2, draw, width=1024, height=1024)
    sampled = graph.add(
        "KSampler", 2, draw,
        model=model[0], positive=texts[0][0], negative=texts[1][0], latent_image=canvas[0],
        steps=30, cfg=4.0, sampler_name="er_sde", scheduler="simple",
    )  # fmt: skip
    pixels = graph.add("PiDKitPixelVAE", 3, draw)
    decoded = graph.add("VAEDecode", 3, draw, samples=sampled[0], vae=pixels[0])
    graph.add("SaveImage", 3, draw, images=decoded[0], filename_prefix=f"PiDKit/{graph.name}", height_=480)
    return graph


def pid_tune_per_image() -> Graph:
    graph = Graph(
        "pid_tune_per_image",
        "## Restore several pictures, each as much as it needs\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        "1. Three example pictures are there already. Your own must be of one size.\n"
        "2. In PiD Sigma Tuner press **Load pictures**. The orange mark on a slider is a suggestion, from how noisy "
        "the picture is, and how blurred where the model can invent. Click its number to take it, or move the slider.\n"
        "3. Press Run. Click a picture in the tuner to see it before and after.\n"
        "4. Move one slider and run again: only that picture is decoded.\n\n"
        f"{SIGMA}\n\n**To change:**\n\n"
        "- More pictures: Batch Images has room for 50.\n"
        f"- {OTHER_PID}",
    )
    load, tune, draw = "1. The pictures", "2. How much to restore each", "3. Four times as large"
    photos = (PHOTO, BLURRED, NOISY)
    images = [graph.add("LoadImage", 0, load, image=name, width_=270, height_=330) for name in photos]
    inputs = {f"images.image{i}": image[0] for i, image in enumerate(images)}
    batch = graph.add("BatchImagesNode", 1, load, width_=240, **inputs)
    model = graph.add("PiDKitLoader", 1, load)
    latent = graph.add("PiDKitRGBLatent", 1, load, image=batch[0])
    tuner = graph.add("PiDKitSigmaTuner", 2, tune, image=batch[0], model=model[0], width_=520, height_=600)
    image = graph.add(
        "PiDKitDecode", 3, draw,
        model=model[0], latent=latent[0], sigma_list=tuner[0], latent_noise="scale", height_=620,
    )  # fmt: skip
    saved = graph.add("SaveImage", 3, draw, images=image[0], filename_prefix=f"PiDKit/{graph.name}", height_=330)
    pictures = [(node, "image", f"Picture {i}") for i, node in enumerate(images, 1)]
    graph.app = App(((tuner, "sigmas", "How much to restore each"), *pictures), (saved,))
    return graph


def pid_paint_sigma() -> Graph:
    graph = Graph(
        "pid_paint_sigma",
        "## Restore one part of a picture, leave the rest alone\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        "1. An example is there already: a photo with noise on one eye, and paint on it. For your own, right click on "
        "Load Image, choose **Open in MaskEditor**, and paint on what is damaged.\n"
        "2. Press Run. PiD Sigma Map shows where degrade_sigma is what.\n"
        "3. Compare: the eye is restored, all else is drawn as with degrade_sigma 0.\n\n"
        f"{SIGMA}\n\n**To change:**\n\n"
        "- sigma_inside: how much to restore what is painted. base_sigma: the rest.\n"
        "- feather: how wide the step between them is, in pixels of the result.\n"
        "- Another PiD Sigma Map, connected to sigma_list, adds a second mask with a value of its own.\n"
        f"- {OTHER_PID}",
    )
    load, paint, draw = "1. The picture, painted on", "2. How much to restore it there", "3. Four times as large"
    image = graph.add("LoadImage", 0, load, title="Picture to restore", image=PAINTED, height_=380)
    model = graph.add("PiDKitLoader", 0, load)
    latent = graph.add("PiDKitRGBLatent", 0, load, image=image[0])
    sigma_map = graph.add(
        "PiDKitSigmaMap", 1, paint,
        mask=image[1], image=image[0], sigma_inside=0.14, feather=32, width_=420, height_=520,
    )  # fmt: skip
    decoded = graph.add(
        "PiDKitDecode", 2, draw,
        model=model[0], latent=latent[0], sigma_list=sigma_map[0], latent_noise="scale", height_=620,
    )  # fmt: skip
    graph.add("SaveImage", 2, draw, images=decoded[0], filename_prefix=f"PiDKit/{graph.name}", height_=330)
    compared(graph, 3, draw, image[0], decoded[0])
    return graph


def pid_touch_up() -> Graph:
    graph = Graph(
        "pid_touch_up",
        "## Draw a part of a finished picture again\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        "1. An example is there already: a photo with noise on one eye, and paint on it. For your own, right click on "
        "Load Image, choose **Open in MaskEditor**, and paint on what is to be drawn again.\n"
        "2. Press Run. PiD Decode draws the whole picture, PiD Touch Up the painted part, three times.\n"
        "3. Click the variation you like and press Run again: nothing is drawn anew.\n\n"
        f"{SIGMA}\n\n**To change:**\n\n"
        "- degrade_sigma, seed, steps or text of PiD Touch Up: the picture around the paint stays as it is, to the "
        "bit.\n"
        "- variations: up to 16. With the bundled model they differ little, because it does not invent.\n"
        f"- {OTHER_PID}",
    )
    load, draw, touch = "1. The picture, painted on", "2. Four times as large", "3. The painted part again"
    image = graph.add("LoadImage", 0, load, title="Picture to enlarge", image=PAINTED, height_=380)
    model = graph.add("PiDKitLoader", 0, load)
    latent = graph.add("PiDKitRGBLatent", 0, load, image=image[0])
    decoded = graph.add("PiDKitDecode", 1, draw, model=model[0], latent=latent[0], height_=620)
    touched = graph.add(
        "PiDKitTouchUp", 2, touch,
        image=decoded[0], model=model[0], latent=latent[0], mask=image[1], degrade_sigma=0.14, seed=1, variations=3,
        latent_noise="scale", width_=520, height_=860,
    )  # fmt: skip
    graph.add("SaveImage", 2, touch, images=touched[0], filename_prefix=f"PiDKit/{graph.name}", height_=330)
    compared(graph, 3, touch, decoded[0], touched[0])
    return graph


def pid_sigma_sweep() -> Graph:
    graph = Graph(
        "pid_sigma_sweep",
        "## Try several strengths on one picture, keep the best\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        "1. An example picture is there already. Choose your own when you like.\n"
        "2. Press Run. PiD Sigma Sweep shows the picture decoded at each of its sigmas.\n"
        "3. Click the one you like: PiD Sigma Tuner takes its value.\n"
        "4. Press Run again. PiD Decode saves that one; the sweep is not drawn again.\n\n"
        f"{SIGMA}\n\n**To change:**\n\n"
        "- sigmas: any values from 0 to 1, for a closer look around the best one.\n"
        "- seeds: several make a row each.\n"
        "- The contact sheet is saved too; press Ctrl+B on its node to leave it out.\n"
        f"- {OTHER_PID}",
    )
    load, choose, draw = "1. The picture", "2. Try and choose", "3. The one you chose"
    image = graph.add("LoadImage", 0, load, title="Picture to restore", image=NOISY, height_=380)
    model = graph.add("PiDKitLoader", 0, load)
    latent = graph.add("PiDKitRGBLatent", 0, load, image=image[0])
    tuner = graph.add("PiDKitSigmaTuner", 1, choose, image=image[0], model=model[0], width_=500, height_=600)
    sweep = graph.add(
        "PiDKitSigmaSweep", 2, choose,
        model=model[0], latent=latent[0], sigma_list=tuner[0], sigmas="0, 0.1, 0.2, 0.3, 0.5",
        latent_noise="scale", width_=720, height_=520,
    )  # fmt: skip
    sheet = graph.add(
        "SaveImage", 2, choose,
        title="Contact sheet",
        images=sweep[1], filename_prefix=f"PiDKit/{graph.name}_sheet", width_=720, height_=260,
    )  # fmt: skip
    decoded = graph.add(
        "PiDKitDecode", 3, draw,
        model=model[0], latent=latent[0], sigma_list=tuner[0], latent_noise="scale", height_=620,
    )  # fmt: skip
    saved = graph.add("SaveImage", 3, draw, images=decoded[0], filename_prefix=f"PiDKit/{graph.name}", height_=330)
    graph.app = App(
        (
            (image, "image", "Picture to restore"),
            (sweep, "sigmas", "Strengths to try"),
            (sweep, "results", "Click the best one"),
            (tuner, "sigmas", "The one to keep"),
        ),
        (saved, sheet),
    )
    return graph


def folder_graph(name: str, text: str, **upscale) -> Graph:
    """PiD Next Picture, PiD Upscale, SaveImage with the picture's own name."""
    graph = Graph(name, text)
    load, draw = "1. The next picture", "2. Enlarge, and save under its name"
    picture = graph.add(
        "PiDKitNextPicture", 0, load,
        folder=EXAMPLE_FOLDER, output_folder=f"PiDKit/{name}", width_=380, height_=420,
    )  # fmt: skip
    upscaled = graph.add("PiDKitUpscale", 1, draw, image=picture[0], width_=380, height_=440, **upscale)
    graph.add(
        "SaveImage", 2, draw,
        title="The larger picture",
        images=upscaled[0], filename_prefix=picture[1], width_=420, height_=400,
    )  # fmt: skip
    compared(graph, 2, draw, picture[0], upscaled[0])
    return graph


FOLDER_STEPS = (
    "1. Press Run: three example pictures are there already, and every run takes the next one.\n"
    "2. For all of them, set the number beside Run to 3, or more; or choose **Run (Instant)** in the menu of Run: it "
    "stops when nothing is left.\n"
    "3. Type your own folder into PiD Next Picture: its name in ComfyUI's input folder, or its whole path. And another "
    "output_folder.\n\n"
    "The results lie in ComfyUI's output folder, under the names of the pictures. **What is there is done**: close "
    "ComfyUI, open it again, and it goes on with what is missing. Delete a result to get it made again. A picture that "
    "cannot be read is skipped, and named on the node.\n\n"
)


def pid_folder_to_4k() -> Graph:
    return folder_graph(
        "pid_folder_to_4k",
        "## A folder to 4K\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        f"{FOLDER_STEPS}**To change**, on PiD Upscale:\n\n"
        "- target: 4K takes minutes a picture without a graphics card. 2K takes a quarter of that.\n"
        "- model_set: NVIDIA's models draw detail that the small one cannot. They are fetched on the first run (8 GB), "
        "once you have read their licence, for non-commercial use only (NSCLv1), and switched accept_licence on.",
        target="4K",
    )


def pid_folder_auto_strength() -> Graph:
    return folder_graph(
        "pid_folder_auto_strength",
        "## A folder, each picture with its own strength\n\n"
        "With the model that comes with this pack. Nothing to download.\n\n"
        f"{FOLDER_STEPS}**strength** of PiD Upscale is on auto: it is measured for every picture, as PiD Sigma Tuner "
        "suggests it, and the node shows what it took. The bundled model is small: it draws noise away, but cannot "
        "invent what a blur took, so for it only noise counts. With NVIDIA's models blur counts too.\n\n"
        "**To change:** target, on PiD Upscale: 2K or 4K instead of four times each side. To set strengths by eye, for "
        "a few pictures of one size, take the workflow pid_tune_per_image.",
        target="factor",
        factor=4.0,
        strength="auto",
    )


GRAPHS = {
    make.__name__: make
    for make in (
        pid_upscale,
        pid_upscale_demo,
        pid_context_window_demo,
        pid_folder_to_4k,
        pid_folder_auto_strength,
        pid_with_flux_upscale_picture,
        pid_with_flux_to_4k,
        pid_with_flux2_klein_to_4k,
        pid_with_z_image_turbo_to_4k,
        pid_with_sd3_to_4k,
        pid_with_sdxl_to_4k,
        pid_with_qwen_image_to_4k,
        pid_with_dinov2_to_2k,
        pid_with_siglip_to_2k,
        pid_with_flux_early_stop,
        pid_with_cfg_undistilled_flux,
        pid_with_pixeldit_text_to_image,
        pid_tune_per_image,
        pid_sigma_sweep,
        pid_paint_sigma,
        pid_touch_up,
        pid_upscale_and_check,
    )
}
