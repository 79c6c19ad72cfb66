"""Where a scene ends: neither noise nor a change of light, but another picture."""

from __future__ import annotations

import numpy as np
import pytest

from edge_seg import flow
from edge_seg.scene import Scene
from edge_seg.types import U8

LEAST = 0.8


def room(seed: int) -> U8:
    """Structure at several sizes, as rooms have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((72, 128))
    for cell in (4, 12, 36):
        coarse = rng.uniform(-40, 40, (72 // cell + 2, 128 // cell + 2))
        total += np.kron(coarse, np.ones((cell, cell)))[:72, :128]
    return np.clip(128 + total, 16, 235).astype(np.uint8)


def goes_on(previous: U8, current: U8) -> bool:
    return Scene().goes_on(previous, current, flow.estimate(previous, current), LEAST)


@pytest.mark.parametrize("seed", range(4))
def test_another_room_is_another_scene(seed: int) -> None:
    assert not goes_on(room(seed), room(seed + 10))


@pytest.mark.parametrize("sigma", [0, 4, 10])
def test_noise_is_not(sigma: float) -> None:
    rng = np.random.default_rng(1)
    before, after = (
        np.clip(room(3) + rng.normal(0, sigma, (72, 128)), 0, 255).astype(np.uint8) for _ in "ab"
    )
    assert goes_on(before, after)


@pytest.mark.parametrize("gain", [0.6, 1.4])
def test_another_light_is_not(gain: float) -> None:
    assert goes_on(room(3), np.clip(room(3) * gain, 0, 255).astype(np.uint8))


def test_a_camera_that_turns_stays_in_its_scene() -> None:
    assert goes_on(room(3)[:, :-6], room(3)[:, 6:].copy())


def test_flat_pictures_are_one_scene() -> None:
    assert goes_on(np.full((72, 128), 40, np.uint8), np.full((72, 128), 40, np.uint8))


def test_nothing_is_a_cut_if_no_similarity_is_asked_for() -> None:
    before, after = room(1), room(11)
    assert Scene().goes_on(before, after, flow.estimate(before, after), 0.0)


def test_a_cut_is_noticed_in_the_middle_of_a_scene() -> None:
    scene, still = Scene(), room(3)
    for _ in range(5):
        assert scene.goes_on(still, still, flow.estimate(still, still), LEAST)
    assert not scene.goes_on(still, room(12), flow.estimate(still, room(12)), LEAST)
