"""Files to read and to write: output appears whole or not at all, and never replaces another file unasked."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dipmed.scan import FormatError, OutputError

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder",
    errno.EFBIG: "the file would be larger than this system allows; choose another folder",
    errno.EACCES: "permission denied; choose a folder that you may write to",
    errno.EPERM: "permission denied; choose a folder that you may write to",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist; create it first",
    errno.ENOTDIR: "its folder is not a folder",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENAMETOOLONG: "the name is too long",
}
_TWO_PARTS = (".nii.gz", ".sc.dcm")


def ending_of(path: str | Path) -> str:
    """Return the file ending in lower case, ``.nii.gz`` and ``.sc.dcm`` as one ending each."""
    name = Path(path).name.lower()
    return next((ending for ending in _TWO_PARTS if name.endswith(ending)), Path(name).suffix)


def check_source(path: str | Path) -> None:
    """Check that there is a file to read.

    Raises
    ------
    FormatError
        When it does not exist, is a folder, or may not be read.
    """
    path = Path(path)
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise FormatError(f"{path} does not exist") from None
    except OSError as error:
        raise FormatError(f"{path} cannot be read: {error.strerror or error}") from error


def check_target(path: str | Path, *, force: bool = False) -> None:
    """Check that a file can be written there, before the work that it is meant to hold begins.

    Raises
    ------
    OutputError
        When the folder does not exist or cannot be written, when ``path`` is a folder, or when the file exists
        and ``force`` is not set.
    """
    path = Path(path)
    folder = path.parent
    if not folder.exists():
        raise cannot_write(path, FileNotFoundError(errno.ENOENT, "no folder"))
    if not folder.is_dir():
        raise cannot_write(path, NotADirectoryError(errno.ENOTDIR, "not a folder"))
    if path.is_dir():
        raise cannot_write(path, IsADirectoryError(errno.EISDIR, "a folder"))
    if not os.access(folder, os.W_OK | os.X_OK):
        raise cannot_write(path, PermissionError(errno.EACCES, "not writable"))
    if os.path.lexists(path) and not force:
        raise _exists(path)


@contextmanager
def atomic_write(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Give a temporary path to write to, which becomes ``path`` when the block ends without an error.

    The temporary file lies in the same folder, has the same ending and a random name. It is flushed to the disk
    and then renamed; on any error, Ctrl-C included, it is removed and what was at ``path`` stays as it was.

    Raises
    ------
    OutputError
        When the file exists and ``force`` is not set, or when the system refuses to write it. Every `OSError` of
        the block counts as such, so do nothing in it but write.
    """
    with atomic_write_all([path], force=force) as (temporary,):
        yield temporary


@contextmanager
def atomic_write_all(paths: Sequence[str | Path], *, force: bool = False) -> Iterator[tuple[Path, ...]]:
    """Give temporary paths for files that belong together: all of them appear, or none.

    Temporary names differ from each other where the targets' do, in their ending alone if the targets' do: some
    writers derive one name from the other.

    Raises
    ------
    OutputError
        As for `atomic_write`.
    """
    targets = [Path(path) for path in paths]
    for target in targets:
        check_target(target, force=force)
    stems = [target.name[: len(target.name) - len(ending_of(target))] for target in targets]
    names = {stem: f".dipmed-{secrets.token_hex(8)}" for stem in stems}
    temporaries = tuple(
        target.with_name(names[stem] + ending_of(target)) for stem, target in zip(stems, targets, strict=True)
    )
    try:
        yield temporaries
        for temporary in temporaries:
            _flush(temporary)
        _publish(temporaries, targets, force)
        for folder in {target.parent for target in targets}:
            with suppress(OSError):  # the files are there; not every file system can flush a folder
                _flush(folder)
    except OSError as error:
        raise cannot_write(targets[0], error) from error
    finally:
        for temporary in temporaries:
            _remove(temporary)


def check_folder(path: str | Path, *, pattern: str, force: bool = False) -> None:
    """Check that a folder can be written there, before the work that it is meant to hold begins.

    Raises
    ------
    OutputError
        As for `check_target`; with ``force`` an existing folder may be replaced only if all in it are files of this
        pattern, so that a slip of the pen costs no other files.
    """
    path = Path(path)
    if not path.is_dir():
        check_target(path, force=force)
        return
    if not force:
        raise _exists(path)
    others = [entry.name for entry in path.iterdir() if not (entry.match(pattern) and entry.is_file())]
    if path.is_symlink() or others:
        raise OutputError(f"{path} is not replaced: it holds other things than {pattern} ({len(others)} of them)")
    check_target(path / "any", force=force)


@contextmanager
def atomic_folder(path: str | Path, *, pattern: str, force: bool = False) -> Iterator[Path]:
    """Give a temporary folder to write files to, which becomes ``path`` when the block ends without an error.

    The temporary folder has a random name beside it, and is removed on any error, Ctrl-C included.

    Raises
    ------
    OutputError
        As for `check_folder` and `atomic_write`.
    """
    target = Path(path)
    check_folder(target, pattern=pattern, force=force)
    temporary = target.with_name(f".dipmed-{secrets.token_hex(8)}")
    try:
        temporary.mkdir()
        yield temporary
        for file in (*temporary.iterdir(), temporary):
            _flush(file)
        _publish_folder(temporary, target, force)
        with suppress(OSError):
            _flush(target.parent)
    except OSError as error:
        raise cannot_write(target, error) from error
    finally:
        _remove_folder(temporary)


def _publish_folder(temporary: Path, target: Path, force: bool) -> None:
    """Rename, and put back what was there when that fails."""
    old = _old(temporary)
    if force and target.is_dir():
        target.rename(old)
    elif force and os.path.lexists(target):
        target.unlink()
    elif os.path.lexists(target):
        raise _exists(target)
    try:
        temporary.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    _remove_folder(old)


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _publish(temporaries: Sequence[Path], targets: Sequence[Path], force: bool) -> None:
    """Rename all, and undo those already done when one fails."""
    if force and len(targets) == 1:
        temporaries[0].replace(targets[0])
        return
    with ExitStack() as undo:
        for temporary, target in zip(temporaries, targets, strict=True):
            if force and os.path.lexists(target):
                undo.callback(_restore, target, _old(temporary))
                target.replace(_old(temporary))
            _rename_to_new(temporary, target)
            undo.callback(_remove, target)
        undo.pop_all()
    for temporary in temporaries:
        _remove(_old(temporary))


def _rename_to_new(temporary: Path, target: Path) -> None:
    """Rename, unless somebody else has made the target since it was checked."""
    try:
        # unlike a rename, a link never replaces a file; the temporary name is removed later
        os.link(temporary, target)
    except FileExistsError:
        raise _exists(target) from None
    except OSError:
        _reserve(target)  # a file system without hard links
        temporary.replace(target)


def _reserve(target: Path) -> None:
    try:
        target.open("xb").close()
    except FileExistsError:
        raise _exists(target) from None


def _old(temporary: Path) -> Path:
    return temporary.with_name(temporary.name + ".old")


def _restore(target: Path, old: Path) -> None:
    if os.path.lexists(old):
        old.replace(target)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _flush(path: Path) -> None:
    """Have the system write a file or a folder's entries to the disk; a full disk may show only here."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _exists(path: Path) -> OutputError:
    return OutputError(f"{path} exists already; choose another name or allow it to be replaced (--force)")


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error of a file or folder that the system refuses to write, with what to do."""
    number = error.errno
    if number is None:  # HDF5 puts the number into its text
        found = re.search(r"errno = (\d+)", str(error))
        number = int(found[1]) if found else 0
    reason = _REASONS.get(number) or error.strerror or str(error).partition("\n")[0] or type(error).__name__
    return OutputError(f"cannot write {path}: {reason}")
