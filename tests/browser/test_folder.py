"""A folder of an artist: the template from ComfyUI's browser, a queue of runs, Run (Instant), and no picture lost."""

import re
import shutil

from PIL import Image

import comfy_env

NAMES = ("apple.png", "cat.jpg", "zebra.png")
SET = """values => {
  for (const widget of app.graph.nodes.flatMap(node => node.widgets ?? []))
    if (widget.name in values) widget.value = values[widget.name];
}"""


def test_a_template_works_through_a_folder(front_end, comfy, vue):
    page, style = front_end.page, "vue" if vue else "classic"
    shutil.rmtree(comfy.input / "pidkit_photos", ignore_errors=True)
    front_end.open(VueNodes_Enabled=vue)
    if vue:
        front_end.drop(comfy_env.ROOT / "example_workflows" / "pid_folder_to_4k.json")
    else:
        page.get_by_role("button", name="Templates", exact=True).click()
        _, pack = comfy_env.find_comfyui()
        front_end.dialogs().get_by_text(pack, exact=True).first.click()
        front_end.dialogs().get_by_test_id("template-workflow-pid_folder_to_4k").click()
    front_end.wait("() => app.graph.nodes.some(n => n.type === 'PiDKitNextPicture')")
    assert sorted(path.name for path in comfy.input.glob("pidkit_photos/*")) == [
        "pidkit_photo.png",
        "pidkit_photo_blurred.png",
        "pidkit_photo_noisy.png",
    ]

    holiday, results = comfy.input / f"holiday_{style}", comfy.output / f"holiday_{style}"
    holiday.mkdir()
    for name in NAMES:
        Image.new("RGB", (16, 16), "teal").save(holiday / name)
    (holiday / "broken.jpg").write_bytes(b"half a pict")
    front_end.js(SET, {"folder": holiday.name, "output_folder": results.name, "target": "factor", "factor": 4})

    front_end.show()
    number = page.locator(".batch-count input").first  # beside Run
    number.fill("2")
    number.press("Enter")
    page.get_by_test_id("queue-button").first.click()
    front_end.wait_for_text("3 of 4: cat.jpg, 16 x 16")
    front_end.wait_for_text("skipped: broken.jpg is no picture that can be read")
    front_end.wait_for_pictures("PiDKitNextPicture")
    front_end.wait_for_pictures("SaveImage")
    front_end.screenshot(f"folder_second_{style}")

    front_end.js("() => { app.extensionManager.queueSettings.batchCount = 1; }")
    page.get_by_test_id("queue-mode-menu-trigger").first.click()
    page.get_by_role("menuitem", name=re.compile("Instant")).click()
    page.get_by_test_id("queue-button").first.click()
    toast = front_end.toasts().filter(has_text="nothing left: 3 of 4 done, 1 skipped")
    toast.wait_for()
    front_end.wait("() => app.extensionManager.queueSettings.mode === 'instant-idle'")
    front_end.screenshot(f"folder_done_{style}")
    assert sorted(path.name for path in results.iterdir()) == ["apple_00001_.png", "cat_00001_.png", "zebra_00001_.png"]
    posted = []
    page.on("request", lambda request: posted.append(request.url) if request.url.endswith("/api/prompt") else None)
    front_end.js("() => { app.extensionManager.queueSettings.mode = 'disabled'; }")
    front_end.run()
    assert len(posted) == 1  # and none of itself
