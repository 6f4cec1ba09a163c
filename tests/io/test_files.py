import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dipmed.io import files
from dipmed.io.files import atomic_write, atomic_write_all, check_target
from dipmed.scan import OutputError


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "image.nii.gz"
    with atomic_write(target) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.endswith(".nii.gz")
        assert "image" not in temporary.name
        temporary.write_bytes(b"abc")
        assert not target.exists()
    assert target.read_bytes() == b"abc"
    assert names(tmp_path) == {"image.nii.gz"}


def test_file_gets_the_rights_that_the_user_gives_new_files(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic_write(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_left_after_an_error(tmp_path, error, force):
    target = tmp_path / "a.npz"
    if force:
        target.write_bytes(b"old")

    def write():
        with atomic_write(target, force=force) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == ({"a.npz"} if force else set())
    if force:
        assert target.read_bytes() == b"old"


def test_existing_file_is_kept_unless_forced(tmp_path):
    target = tmp_path / "a.png"
    target.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"a\.png exists already.*--force"), atomic_write(target):
        pytest.fail("the block must not run")
    with atomic_write(target, force=True) as temporary:
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(files.os, "link", refuse(errno.EOPNOTSUPP))
    target = tmp_path / "a.png"

    def write():
        with atomic_write(target) as temporary:
            temporary.write_bytes(b"mine")
            target.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="exists already"):
        write()
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == {"a.png"}


def test_file_system_without_hard_links(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "link", refuse(errno.EPERM))
    with atomic_write(tmp_path / "a.png") as temporary:
        temporary.write_bytes(b"abc")
    assert (tmp_path / "a.png").read_bytes() == b"abc"
    assert names(tmp_path) == {"a.png"}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota"),
    ],
)
def test_refusals_of_the_system_are_told_in_words(tmp_path, number, words):
    def write():
        with atomic_write(tmp_path / "a.h5") as temporary:
            temporary.write_bytes(b"half")
            raise OSError(number, "x")

    with pytest.raises(OutputError, match=rf"a\.h5: .*{words}"):
        write()
    assert names(tmp_path) == set()


def test_number_inside_the_text_of_hdf5(tmp_path):
    text = "Can't write data (file write failed: errno = 28, error message = 'No space left on device')"
    with pytest.raises(OutputError, match="disk is full"), atomic_write(tmp_path / "a.h5"):
        raise OSError(text)


def test_real_limit_on_the_file_size(tmp_path):
    # the nearest to a full disk that a test can make without a disk of its own
    script = """
import resource, sys
from dipmed.io.files import atomic_write
from dipmed.scan import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    with atomic_write(sys.argv[1]) as temporary:
        temporary.write_bytes(bytes(10000))
except OutputError as error:
    sys.exit(f"said: {error}")
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a.png")], capture_output=True, text=True, check=False
    )
    assert done.stderr.startswith("said: cannot write")
    assert "larger than this system allows" in done.stderr
    assert names(tmp_path) == set()


def test_target_that_cannot_be(tmp_path):
    with pytest.raises(OutputError, match="folder does not exist"):
        check_target(tmp_path / "missing" / "a.png")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="not a folder"):
        check_target(tmp_path / "file" / "a.png")
    with pytest.raises(OutputError, match="it is a folder"):
        check_target(tmp_path, force=True)


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(OutputError, match="permission denied"):
        check_target(tmp_path / "a.png")


def test_pair_appears_together(tmp_path):
    targets = [tmp_path / "a.cfl", tmp_path / "a.hdr"]
    with atomic_write_all(targets) as (data, header):
        assert data.with_suffix(".hdr") == header
        data.write_bytes(b"data")
        header.write_bytes(b"header")
    assert [target.read_bytes() for target in targets] == [b"data", b"header"]
    with atomic_write_all(targets, force=True) as (data, header):
        data.write_bytes(b"data 2")
        header.write_bytes(b"header 2")
    assert [target.read_bytes() for target in targets] == [b"data 2", b"header 2"]
    assert names(tmp_path) == {"a.cfl", "a.hdr"}


def test_targets_of_other_names_get_other_temporaries(tmp_path):
    with atomic_write_all([tmp_path / "a.png", tmp_path / "b.png"]) as (first, second):
        assert first != second
        first.write_bytes(b"a")
        second.write_bytes(b"b")
    assert (tmp_path / "b.png").read_bytes() == b"b"


@pytest.mark.parametrize("force", [False, True])
def test_neither_of_a_pair_appears_when_the_second_fails(tmp_path, monkeypatch, force):
    targets = [tmp_path / "a.cfl", tmp_path / "a.hdr"]
    if force:
        for target in targets:
            target.write_bytes(b"old")
    link = os.link

    def failing(source, target):
        if Path(target).suffix == ".hdr":
            raise OSError(errno.ENOSPC, "full")
        link(source, target)

    monkeypatch.setattr(files.os, "link", failing)
    monkeypatch.setattr(files, "_reserve", refuse(errno.ENOSPC))

    def write():
        with atomic_write_all(targets, force=force) as temporaries:
            for temporary in temporaries:
                temporary.write_bytes(b"new")

    with pytest.raises(OutputError, match="disk is full"):
        write()
    assert names(tmp_path) == ({"a.cfl", "a.hdr"} if force else set())
    if force:
        assert [target.read_bytes() for target in targets] == [b"old", b"old"]


def refuse(number: int):
    def call(*_args):
        raise OSError(number, "refused")

    return call
