"""The tour of docs/tour.md: the tuner's and the sweep's example workflows, run and photographed."""

import pytest

pytestmark = pytest.mark.nodes_2
PICTURES = 3


def test_three_pictures_tuned_and_compared(front_end, root):
    front_end.open(VueNodes_Enabled=True)
    front_end.drop(root / "example_workflows" / "pid_tune_per_image.json")
    page, tuner = front_end.page, front_end.id_of("PiDKitSigmaTuner")
    front_end.show(tuner)
    page.get_by_role("button", name="Load pictures").click()
    front_end.wait_for_images(".pidkit-thumb img", PICTURES)
    everything = front_end.js("() => app.graph.nodes.filter(n => n.type !== 'MarkdownNote').map(n => n.id)")
    front_end.wait("() => document.querySelectorAll('.lg-node img').length >= 6")
    front_end.show(*everything)
    front_end.screenshot("tour_1_open", *everything, margin=12)

    front_end.show(tuner)
    suggestions = [float(text.removeprefix("≈")) for text in page.locator(".pidkit-take").all_inner_texts()]
    assert suggestions[0] == suggestions[1] == 0 < suggestions[2]  # pid_nano cannot invent what a blur took
    page.locator(".pidkit-take").nth(2).click()
    front_end.screenshot("tour_2_tune", tuner)

    run = front_end.run()
    save = front_end.id_of("SaveImage")
    assert [picture.size for picture in front_end.pictures(run, save)] == [(768, 576)] * PICTURES
    front_end.wait_for_pictures("SaveImage")
    front_end.wait_for_images(".pidkit-stage img", 2)
    right = page.locator(".pidkit-layer-right img")
    assert right.get_attribute("src") == front_end.picture_url(run, save, 2)
    page.locator(".pidkit-number").nth(2).click()  # the slider's frame is not part of the picture
    front_end.show(tuner)
    front_end.screenshot("tour_3_compare", tuner)


def test_a_sweep_and_the_best_of_it(front_end, root):
    front_end.open(VueNodes_Enabled=True)
    front_end.drop(root / "example_workflows" / "pid_sigma_sweep.json")
    page, sweep, tuner = front_end.page, front_end.id_of("PiDKitSigmaSweep"), front_end.id_of("PiDKitSigmaTuner")
    front_end.run()
    front_end.wait_for_images(".pidkit-tile img", 5)
    front_end.show(sweep)
    page.locator(".pidkit-tile").nth(1).click()
    front_end.screenshot("tour_4_sweep", sweep)

    second = front_end.run()
    (sent,) = front_end.history(second)["outputs"][str(tuner)]["pidkit_pictures"]
    assert sent["sigma"] == 0.1
    (best,) = front_end.pictures(second, front_end.id_of("SaveImage", 1))
    assert best.size == (768, 576)
