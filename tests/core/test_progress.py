"""How far a run is: told by the network between its blocks, metered by a clock that the test turns."""

import pytest
import torch

from pid_core import PiDNetwork, progress
from pid_core.model.cost import forward_work, patch_share, priced, trunk_work
from pid_core.progress import INTERVAL, Meter, duration, when_done
from support.sizes import SMALL, V1, V15
from support.small import inputs, seeded


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(scope="module")
def net():
    return seeded(PiDNetwork(SMALL).eval())


def forward(net, on_part=None):
    given = inputs(2, 96)
    time = torch.full((2,), 866.0)
    with torch.no_grad():
        return net(
            given["x"],
            time,
            given["caption"],
            lq_features=given["lq_features"],
            degrade_sigma=given["degrade_sigma"],
            on_part=on_part,
        )


def test_parts_of_a_call_rise_to_one_and_change_no_bit(net):
    net.driver.chunk_bytes = 1 << 14
    parts = []
    heard = forward(net, parts.append)
    assert torch.equal(heard, forward(net))
    net.driver.chunk_bytes = None
    assert parts == sorted(parts) and parts[-1] == pytest.approx(1)
    assert len(parts) > SMALL.patch_depth + 2 * (SMALL.pixel_depth + 1)  # chunks are told too
    share = patch_share(SMALL, 96, 96, inputs(2, 96)["caption"].shape[1], "cpu")
    assert parts[SMALL.patch_depth - 1] == pytest.approx(share)


def test_the_projector_tells_its_blocks(net):
    parts = []
    latent = torch.randn(1, 12, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        heard = net.encode_lq(latent, 32, 32, parts.append)
        assert torch.equal(heard, net.encode_lq(latent, 32, 32))
    assert parts == [0.25, 0.5, 0.75, 1.0]


def test_a_listener_may_end_the_call(net):
    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        forward(net, stop)


def test_a_compiled_graph_is_not_made_again_for_another_listener(net):
    torch._dynamo.reset()
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(net, backend=backend, fullgraph=True, dynamic=False)
    heard = []
    for number in range(3):
        forward(compiled, lambda fraction, number=number: heard.append(number))
    assert len(graphs) == 1 and not heard
    torch._dynamo.reset()


@pytest.mark.parametrize("config", [V1, V15])
def test_shares_of_the_released_networks(config):
    """Most of the work is before the pixel blocks; the projector is small beside four steps."""
    assert 0.5 < patch_share(config, 2048, 2048, None, "cpu") < 0.95
    work = priced(forward_work(config, 2048, 2048), "cuda")
    assert 0.001 < trunk_work(config, 2048, 2048) / (4 * work) < 0.1


def test_reports_are_rare_and_the_rest_is_foreseen():
    clock, told = Clock(), []
    meter = Meter(100.0, lambda m: told.append((m.done, m.seconds_left)), clock)
    for done in range(1, 101):
        clock.now += 0.1
        meter.at(done)
    assert len(told) <= 10 / INTERVAL + 1
    assert told[-1] == (100.0, 0.0)
    middle = next(left for done, left in told if done >= 50)
    assert middle == pytest.approx(5, abs=0.3)


def test_what_takes_another_time_is_left_out_of_the_rate():
    """A first step that compiles for ten minutes does not make the next three take as long."""
    clock = Clock()
    meter = Meter(4.0, lambda m: None, clock)
    with meter.left_out():
        clock.now += 600
        meter.at(1)
    assert meter.rate is None and meter.seconds == 600
    clock.now += 2
    meter.at(2)
    assert meter.seconds_left == pytest.approx(4)


def test_nothing_is_foreseen_before_anything_is_measured_and_work_is_never_undone():
    clock = Clock()
    meter = Meter(10.0, lambda m: None, clock)
    assert meter.rate is None and meter.seconds_left is None
    clock.now += 2
    meter.at(4)
    meter.at(1)
    assert meter.done == 4 and meter.seconds_left == pytest.approx(3)
    meter.total = 20
    assert meter.seconds_left == pytest.approx(8)


def test_a_gpu_is_followed_one_part_behind(monkeypatch):
    """The queue would be a whole call ahead; waiting for the part before leaves one part to work on."""
    log = []

    class Event:
        count = 0

        def __init__(self):
            Event.count += 1
            self.number = Event.count

        def record(self):
            log.append(f"record {self.number}")

        def synchronize(self):
            log.append(f"wait {self.number}")

    monkeypatch.setattr(progress.torch.cuda, "Event", Event)
    on_part = when_done(log.append, torch.device("cuda"))
    for fraction in (0.25, 0.5, 1.0):
        on_part(fraction)
    assert log == ["record 1", "record 2", "wait 1", 0.25, "record 3", "wait 2", 0.5]
    assert when_done(log.append, torch.device("cpu")) == log.append


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "1 s"),
        (3.4, "3 s"),
        (43, "45 s"),
        (59, "1 min"),
        (130, "2 min"),
        (3599, "1 h 0 min"),
        (4800, "1 h 20 min"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words
