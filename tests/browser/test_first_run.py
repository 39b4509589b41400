"""An example with a picture as a user gets it: an empty input folder, whichever way the workflow arrives."""

import pytest
from PIL import Image

import comfy_env
from support.front_end import MISSING_MEDIA

WORKFLOW = "pid_upscale_demo"
NAME = "pidkit_photo.png"
# Shows the same as four, in a quarter of the time.
ONE_STEP = "() => { app.graph.nodes.flatMap(n => n.widgets ?? []).find(w => w.name === 'steps').value = 1; }"


@pytest.fixture
def new_page(front_end, request):
    """new_page(**settings): the page of a new installation. It first asks what is in the input folder when called."""
    front_end.leave()  # the page of the test before would ask for its pictures in vain
    request.getfixturevalue("empty_input")
    return front_end.open_anew


@pytest.fixture
def workflow(root):
    return root / "example_workflows" / f"{WORKFLOW}.json"


def runs(front_end) -> None:
    """The picture is there and shown, nothing is marked, and pressing Run enlarges it."""
    front_end.wait("() => app.graph.nodes.some(n => n.type === 'LoadImage')")
    front_end.wait_for_pictures("LoadImage")
    load = front_end.id_of("LoadImage")
    assert NAME in front_end.js("id => app.graph.getNodeById(id).widgets[0].options.values", load)
    with Image.open(front_end.comfy.input / NAME) as photo:
        width, height = photo.size
    front_end.js(ONE_STEP)
    run = front_end.run()
    (picture,) = front_end.pictures(run, front_end.id_of("SaveImage"))
    assert picture.size == (4 * width, 4 * height)
    assert front_end.missing_media() == []
    assert front_end.toasts().count() == 0


def test_dropped(front_end, new_page, workflow, vue):
    new_page(VueNodes_Enabled=vue)
    front_end.drop(workflow)
    runs(front_end)
    front_end.show()
    front_end.screenshot(f"first_run_{'vue' if vue else 'classic'}")


def test_from_the_template_browser(front_end, new_page, vue):
    new_page(VueNodes_Enabled=vue)
    front_end.page.get_by_role("button", name="Templates").click()
    _, pack = comfy_env.find_comfyui()
    front_end.dialogs().get_by_text(pack, exact=True).first.click()
    front_end.dialogs().get_by_test_id(f"template-workflow-{WORKFLOW}").click()
    runs(front_end)


def test_after_a_reload_of_the_page(front_end, new_page, workflow, empty_input):
    new_page(VueNodes_Enabled=True, Workflow_Persist=True)
    front_end.drop(workflow)
    front_end.wait_for_pictures("LoadImage")
    front_end.wait("name => Object.values(localStorage).some(text => text.includes(name))", NAME)  # it keeps a draft
    (empty_input / NAME).unlink()
    front_end.reload()
    runs(front_end)


def test_back_in_its_tab(front_end, new_page, workflow, empty_input):
    new_page(VueNodes_Enabled=True)
    front_end.drop(workflow)
    front_end.wait_for_pictures("LoadImage")
    front_end.js("() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    front_end.wait("() => app.graph.nodes.length === 0")
    (empty_input / NAME).unlink()
    front_end.page.get_by_role("button", name=WORKFLOW).click()
    runs(front_end)


def test_undo_asks_for_nothing(front_end, new_page, workflow):
    new_page()
    front_end.drop(workflow)
    front_end.wait_for_pictures("LoadImage")
    asked = []
    front_end.page.on("request", lambda request: asked.append(request.url))
    front_end.js("() => app.canvas.selectItems(app.graph.nodes.filter(n => n.type === 'SaveImage'))")
    front_end.js("() => app.extensionManager.command.execute('Comfy.Canvas.DeleteSelectedItems')")
    # as a key or a mouse button that is let go does
    front_end.js("""() => {
      const { changeTracker } = app.extensionManager.workflow.activeWorkflow;
      (changeTracker.captureCanvasState ?? changeTracker.checkState).call(changeTracker);
    }""")
    front_end.js("() => app.extensionManager.command.execute('Comfy.Undo')")
    front_end.wait("() => app.graph.nodes.some(n => n.type === 'SaveImage')")
    assert not [url for url in asked if "example_pictures" in url]


def test_an_input_folder_that_takes_no_picture_is_one_line(front_end, new_page, root, empty_input):
    names = [NAME, "pidkit_photo_blurred.png", "pidkit_photo_noisy.png"]
    for name in names:
        (empty_input / name).symlink_to("nowhere")  # also for root, to whom no folder is read-only
    new_page()
    front_end.drop(root / "example_workflows" / "pid_tune_per_image.json")
    front_end.wait(f"() => ({MISSING_MEDIA})().includes('{NAME}')")
    toast = front_end.toasts().filter(has_text="PiDKit")  # v0.25.0 has one of its own for missing media
    assert toast.count() == 1
    line = toast.inner_text()
    assert all(name in line for name in names) and "File exists" in line
    front_end.show()
    front_end.screenshot("first_run_no_picture")
    front_end.errors[:] = [error for error in front_end.errors if "/view?" not in error]  # there is nothing to show
