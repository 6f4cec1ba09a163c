"""What the page is made of: packed slices, curves, and which fit a slice is from."""

import base64
import zlib

import numpy as np
import pytest

from dipmed.places import Places
from dipmed.report.charts import HEIGHT, draw
from dipmed.report.viewer import Layer, pack
from dipmed.scan import ImageVolume

LPS = np.diag([-2.0, -1.0, 3.0, 1.0])


def unpack(viewer, layer):
    packed = viewer.data["layers"][layer]
    steps = np.frombuffer(zlib.decompress(base64.b64decode(packed["voxels"])), "<u2")
    shape = (len(viewer.data["slices"]), viewer.data["rows"], viewer.data["columns"])
    return packed["low"] + packed["step"] * steps.reshape(shape)


def test_slices_are_packed_as_doctors_look_at_them():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 4, 3, 2)) * 7
    places = Places(((0, 1), (1, 2), (2, 3)), 2, first=10)
    viewer = pack([Layer("a", "", "image", ImageVolume(values, LPS))], places)
    found = unpack(viewer, 0)
    # x runs to the patient's left, which is on the right, and y to the back, which is below
    expected = np.moveaxis(values.reshape(5, 4, 6, order="F"), 2, 0).transpose(0, 2, 1)
    np.testing.assert_allclose(found, expected, atol=np.ptp(values) / 2**16)
    assert (viewer.data["columnMm"], viewer.data["rowMm"]) == (2.0, 1.0)
    assert viewer.data["slices"][4] == {"label": "slice 11 of frame 1", "part": 4}


def test_complex_images_are_shown_by_their_magnitude_and_holes_as_zero():
    values = np.full((2, 2, 1), 3 + 4j)
    values[0, 0] = np.nan
    viewer = pack([Layer("a", "", "image", ImageVolume(values, LPS))], Places(((0, 1),), 1, 0))
    np.testing.assert_allclose(unpack(viewer, 0).ravel(), [0, 5, 5, 5], atol=1e-4)


@pytest.mark.parametrize(
    ("places", "parts", "name"),
    [
        (Places(((0, 4), (3, 7)), 2, 5), [[0, 0, 0, 0, 1, 1, 1], [2, 2, 2, 2, 3, 3, 3]], "slices 8 to 11 of frame 1"),
        (Places(None, 2, 0), [[0, 0], [1, 1]], "the volume of frame 1"),
    ],
)
def test_a_slice_is_from_the_fit_around_it(places, parts, name):
    assert [[places.part_of(frame, index) for index in range(len(row))] for frame, row in enumerate(parts)] == parts
    assert places.name_part(2 * places.n_parts - 1) == name
    assert places.number(1, places.ranges[-1][0] if places.ranges else 0) == 2 * places.n_parts - 1


def test_a_steep_curve_has_a_logarithmic_axis_and_its_ends_at_the_edges():
    chart = draw("loss", "", [(0, 1.0), (50, 0.1), (100, 0.01), (101, float("nan"))], [("budget", 50)], 100)
    (left, top), (x, y), (right, bottom) = ([float(part) for part in point.split(",")] for point in chart.line.split())
    assert (left, right, top, bottom) == (chart.left, chart.right, chart.top, chart.bottom)
    assert (x, y) == ((left + right) / 2, (top + bottom) / 2)
    assert chart.marks[0].at == x
    assert chart.bottom < HEIGHT
    assert draw("loss", "", [(0, float("nan")), (1, 2.0)], [], 1) is None
