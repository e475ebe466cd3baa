"""Sprites: what is drawn is what the records say."""

import numpy as np
import pytest

from data_pipelines import prepare
from data_pipelines.recipe import make_recipe
from data_pipelines.registry import definition, spec_of
from data_pipelines.sprites.builder import Sprites
from data_pipelines.sprites.definition import STEPS
from data_pipelines.sprites.draw import COLORS
from flam_jax.config import ConfigError, default_config, validate


def configured(**fields):
    config = default_config()
    config.data.update(name="sprites", frame_size=(48, 64), num_frames=1_600, clip_length=16)
    config.data.sprites.update(fields)
    return validate(config).data


def clip(number=0, **fields):
    data = configured(**fields)
    recipe = make_recipe(data, definition("sprites").variant(data))
    (record,) = Sprites.make_unit(recipe, number, 1)
    return recipe, record


VARIANTS = [{}, {"background": "moving", "one_color": True, "one_shape": True}, {"camera_speed": 2.0, "num_sprites": 9}]


@pytest.mark.parametrize("fields", VARIANTS)
def test_records_are_those_of_the_spec_and_of_their_seed(fields):
    recipe, record = clip(**fields)
    for name, field in spec_of(configured(**fields)).annotations.items():
        assert record[name].shape == (16, *field.shape), name
        assert record[name].dtype == field.dtype, name
    assert record["frames"].shape == (16, 48, 64, 3)
    assert record["frames"].dtype == np.uint8
    (again,) = Sprites.make_unit(recipe, 0, 1)
    assert all(np.array_equal(record[name], again[name]) for name in record)
    (other,) = Sprites.make_unit(recipe, 1, 1)
    assert not np.array_equal(record["positions"], other["positions"])


def test_positions_are_the_centers_of_masks_and_frames_show_the_colors_of_the_shapes():
    for number in range(5):
        _, record = clip(number, num_sprites=2)
        rows, columns = np.mgrid[:48, :64] + 0.5
        for t in range(16):
            apart = np.abs(record["positions"][t, 0] - record["positions"][t, 1]).max() > 14
            for entity in range(2) if apart else ():  # nothing is hidden
                mask = record["masks"][t] == entity + 1
                center = columns[mask].mean(), rows[mask].mean()
                np.testing.assert_allclose(center, record["positions"][t, entity], atol=0.6)
                shown = np.median(record["frames"][t][mask], axis=0)
                np.testing.assert_allclose(shown, COLORS[entity], atol=1)


def test_the_later_of_two_shapes_lies_on_top():
    records = [clip(number, num_sprites=12)[1] for number in range(4)]
    hidden = 0
    for record in records:
        for t in range(16):
            for entity in range(12):
                x, y = np.floor(record["positions"][t, entity]).astype(int)
                owner = int(record["masks"][t, y, x])
                # At the center of a shape lies it or one on top of it; through a ring one sees what is below.
                assert owner >= entity + 1 or entity % 8 == 4
                hidden += owner > entity + 1
    assert hidden


def test_moves_are_the_actions_that_walls_do_not_stop():
    blocked = 0
    for number in range(10):
        _, record = clip(number)
        steps = np.diff(record["positions"], axis=0)
        actions, moves = record["actions"][:-1], record["moves"][:-1]
        assert ((moves == actions) | (moves == 0)).all()
        expected = 2.5 * np.asarray(STEPS)[actions]
        free = (moves == actions) & (np.abs(steps - expected).max(axis=-1) < 1e-3)
        stopped = np.abs(steps).max(axis=-1) < np.abs(expected).max(axis=-1) - 1e-3
        assert (free | stopped).all()
        blocked += int(((moves == 0) & (actions > 0)).sum())
        half = record["sizes"][..., None] / 2
        assert (record["positions"] >= half - 1e-3).all()
        assert (record["positions"] <= np.array([64, 48]) - half + 1e-3).all()
    assert blocked


def test_actions_are_kept_for_three_frames_on_average():
    actions = np.concatenate([clip(number)[1]["actions"] for number in range(100)], axis=1)
    changes = (np.diff(actions, axis=0) != 0).mean()
    assert changes == pytest.approx(1 / 3, abs=0.02)
    assert np.bincount(actions.ravel(), minlength=5) == pytest.approx(np.full(5, actions.size / 5), rel=0.1)


@pytest.mark.parametrize("fields", VARIANTS)
def test_a_displaced_clip_has_the_same_moves_in_other_places(fields):
    recipe, record = clip(**fields)
    other = Sprites.displaced(recipe, {name: value for name, value in record.items() if np.ndim(value)})
    paths = [
        each["positions"] + (each["camera"][:, None, None] * np.array([1, 0]) if "camera" in each else 0)
        for each in (record, other)
    ]
    np.testing.assert_allclose(*(np.diff(path, axis=0) for path in paths), atol=1e-3)
    assert np.abs(paths[0] - paths[1]).max() > 5
    assert np.array_equal(other["moves"], record["moves"])
    assert set(other) >= {"frames", "positions", "masks", "actions"}
    assert not np.array_equal(other["frames"], record["frames"])


def test_one_process_or_two_write_the_same_files(tmp_path):
    found = []
    for workers in (1, 2):
        data = configured()
        data.update(path=str(tmp_path / str(workers)), generate_workers=workers)
        dataset = prepare(data, show_progress=False)
        found.append([dataset.split("test")[number]["frames"] for number in range(len(dataset.split("test")))])
    assert np.array_equal(*found)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"smallest": 14.0}, "data.sprites.smallest = 14.0: expected at most data.sprites.largest = 13"),
        ({"largest": 50.0}, "data.sprites.largest = 50.0: expected at most 45.5"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        configured(**fields)
