import contextlib
import os
import zlib

import h5py
import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dipmed.io import load
from dipmed.io.hdf5 import check_layout, find_dataset, open_hdf5, read_array, read_text
from dipmed.scan import FormatError

FIFO = "pipe"
COMPLEX_PAIR = np.dtype([("real", "<f8"), ("imag", "<f8")])


def read(path, name="a"):
    with open_hdf5(path) as file:
        dataset = find_dataset(file, name)
        assert dataset is not None
        return read_array(dataset)


@st.composite
def chunked(draw):
    dtype = draw(st.sampled_from(["<f4", ">f8", "<c8", "<i2", "u1", "bool", COMPLEX_PAIR]))
    array = draw(npst.arrays(dtype, npst.array_shapes(max_dims=4, max_side=7), elements={"allow_nan": False}))
    chunks = tuple(draw(st.integers(1, n)) for n in array.shape)
    return array, chunks


@given(case=chunked(), gzip=st.booleans(), shuffle=st.booleans(), fletcher32=st.booleans(), userblock=st.booleans())
def test_chunks_are_read_as_the_library_reads_them(tmp_path_factory, case, gzip, shuffle, fletcher32, userblock):
    array, chunks = case
    path = tmp_path_factory.mktemp("chunks") / "a.h5"
    with h5py.File(path, "w", userblock_size=512 if userblock else 0) as file:
        options = {"compression": "gzip" if gzip else None, "shuffle": shuffle, "fletcher32": fletcher32}
        file.create_dataset("a", data=array, chunks=chunks, **options)
    np.testing.assert_array_equal(read(path), array)


def test_chunks_that_were_never_written_hold_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", (6, 5), np.float32, chunks=(2, 2), fillvalue=7, compression="gzip")
        dataset[3:5, 1:3] = 1
    expected = np.full((6, 5), 7)
    expected[3:5, 1:3] = 1
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), expected)


def test_unusual_packing_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=np.ones((4, 4)), compression="lzf")
    with pytest.raises(FormatError, match="packed by 'lzf'; save it with gzip"):
        read(tmp_path / "a.h5")


@pytest.mark.parametrize("content", [b"no deflate stream", zlib.compress(bytes(100)), zlib.compress(bytes(1000))[:-8]])
def test_damaged_chunk(tmp_path, content):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", data=np.ones((4, 4)), chunks=(4, 4), compression="gzip")
        dataset.id.write_direct_chunk((0, 0), content)
    with pytest.raises(FormatError, match="damaged"):
        read(tmp_path / "a.h5")


def test_chunk_that_says_its_filter_was_left_out(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("a", data=np.ones(4), chunks=(4,), compression="gzip")
        dataset.id.write_direct_chunk((0,), np.arange(4.0).tobytes(), filter_mask=1)
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), np.arange(4))


def test_numbers_of_unusual_formats_are_refused(tmp_path):
    odd = h5py.h5t.IEEE_F64LE.copy()
    odd.set_fields(60, 48, 12, 0, 48)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        h5py.h5d.create(file.id, b"a", odd, h5py.h5s.create_simple((4,)))
    with pytest.raises(FormatError, match="no plain array"):
        read(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        ({"names": ["a", "b"], "formats": ["f8", "f8"], "offsets": [0, 4], "itemsize": 12}, "overlap"),
        ({"names": ["a"], "formats": ["f16"]}, "numbers of 16 bytes"),
        ({"names": ["a"], "formats": [("f16", 3)]}, "numbers of 16 bytes"),
    ],
)
def test_records_that_cannot_be(layout, words):
    with pytest.raises(FormatError, match=words):
        check_layout(np.dtype(layout), "a table")
    check_layout(np.dtype([("head", [("flags", "u8"), ("idx", "u2", 17)]), ("data", object)]), "a table")


def test_text(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["text"], file["bytes"], file["list"], file["many"] = "µ", np.bytes_("µ".encode()), ["µ"], ["a", "b"]
    with open_hdf5(tmp_path / "a.h5") as file:
        assert [read_text(file[name]) for name in ("text", "bytes", "list")] == ["µ"] * 3
        with pytest.raises(FormatError, match="one string"):
            read_text(file["many"])


def test_there_is_no_data_set(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("group")
        file["soft"] = h5py.SoftLink("/nowhere")
        assert [find_dataset(file, name) for name in ("group", "soft", "missing")] == [None] * 3


def outside_by_a_link(file):
    file["kspace"] = h5py.ExternalLink(FIFO, "/kspace")


def outside_by_a_group(file):
    file["exchange"] = h5py.ExternalLink(FIFO, "/exchange")


def outside_by_two_links(file):
    file["kspace"], file["other"] = h5py.SoftLink("/other"), h5py.ExternalLink(FIFO, "/kspace")


def outside_by_a_link_through_a_group(file):
    file["dataset/xml"], file["dataset/data"] = h5py.SoftLink("/other/xml"), h5py.SoftLink("/other/data")
    file["other"] = h5py.ExternalLink(FIFO, "/")


@pytest.mark.timeout(20)  # a reader that opens the pipe waits for ever
@pytest.mark.parametrize(
    "make", [outside_by_a_link, outside_by_a_group, outside_by_two_links, outside_by_a_link_through_a_group]
)
def test_no_other_file_is_opened(tmp_path, make):
    os.mkfifo(tmp_path / FIFO)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        make(file)
    with pytest.raises(FormatError, match="lies in another file"):
        load(tmp_path / "a.h5")


def test_links_inside_the_file_are_followed(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["group/data"] = np.arange(3)
        file["a"], file["group/near"], file["b"] = map(h5py.SoftLink, ("/b", "data", "group/near"))
        file["turn"], file["through"] = h5py.SoftLink("/turn"), h5py.SoftLink("/a/b")
    np.testing.assert_array_equal(read(tmp_path / "a.h5"), np.arange(3))
    with open_hdf5(tmp_path / "a.h5") as file:
        assert find_dataset(file, "through") is None
        with pytest.raises(FormatError, match="leads nowhere"):
            find_dataset(file, "turn")


@given(data=st.data())
def test_damaged_chunks_never_crash(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", data=np.zeros((6, 6), COMPLEX_PAIR), chunks=(4, 4), compression="gzip", shuffle=True)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with contextlib.suppress(FormatError), open_hdf5(path) as file:
        dataset = find_dataset(file, "a")
        if dataset is not None:
            read_array(dataset)
