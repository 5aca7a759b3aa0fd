"""Public sets from their official addresses: ``seglens data get``.

Pooch keeps what has come, checks its hash and moves it into place. What it lacks is in ``download`` (to go on
where it broke off, to stop waiting) and in ``unpack`` (archives that nobody needs to trust). A set is there
whole or not at all.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pooch

from seglens.arguments import checked
from seglens.data.download import Patience, download, forget, need_space
from seglens.data.unpack import unpack
from seglens.errors import DataError, SettingError, unknown_name
from seglens.files.output import new_folder
from seglens.files.overwrite import check_output
from seglens.results import record as records


@dataclass(frozen=True)
class Archive:
    """One file of a public set: its SHA-256, its bytes (None: unknown), and where in the set it is unpacked.

    ``max_unpacked`` is how many bytes its files may come to. With ``top`` all of them lie in one folder of
    that name, which is left out.
    """

    name: str
    sha256: str
    size: int | None = None
    into: str = "."
    max_unpacked: int = 4 << 30
    top: str | None = None


@dataclass(frozen=True)
class PublicSet:
    """A set that can be downloaded: where its archives are, who may use it, and what to cite."""

    title: str
    address: str
    archives: tuple[Archive, ...]
    licence: str
    citation: str


PATIENCE = Patience()


@checked
def get_data(
    name: str,
    folder: str | Path,
    *,
    source: str | None = None,
    force: bool = False,
    patience: Patience = PATIENCE,
) -> Path:
    """Download the public set ``name``, unpack it into ``folder``, and return that.

    ``source`` is the address of a mirror; the hashes hold there too. What has come is kept in
    ``.NAME.download`` beside the folder until all is there, so that the next call goes on from it. The folder
    also gets a ``README.txt`` with licence and citation, and a ``run.json`` with addresses and hashes.

    Raises:
        DataError: an archive can't be fetched, is not the one that was published, or is unsafe to unpack;
            the disk is too small.
        OutputExistsError: the folder holds something and ``force`` is not given.
        SettingError: the source is no address, or the patience none.
        UnknownNameError: no such set.
    """
    began = time.monotonic()
    if name not in PUBLIC_SETS:
        raise unknown_name("public set", name, PUBLIC_SETS)
    public, folder = PUBLIC_SETS[name], Path(folder).expanduser().absolute()
    address = _checked_address(source or public.address)
    if patience.stall_seconds <= 0 or patience.attempts < 1 or patience.pause_seconds < 0:
        raise SettingError(
            f"{patience} is not allowed: stall_seconds > 0, attempts >= 1, pause_seconds >= 0."
        )
    check_output(folder, "data-get", force=force)
    record = records.start("data-get", settings={"name": name, "source": address})
    with _kept_until_done(folder.parent / f".{folder.name}.download") as downloads:
        files = [_fetch(archive, address, downloads, patience) for archive in public.archives]
        need_space(folder, sum(file.stat().st_size for file in files))
        with new_folder(folder, command="data-get", force=force) as made:
            num_files = 0
            for archive, file in zip(public.archives, files, strict=True):
                num_files += unpack(file, made / archive.into, archive.max_unpacked)
                _leave_out(archive.top, made / archive.into, archive.name)
            results = _describe(public, address, files) | {"num_files": num_files}
            (made / "README.txt").write_text(_readme(public, results["files"]), encoding="utf-8")
            records.finish(record, began, results=results).write(made)
        shutil.rmtree(downloads)
    return folder


def _checked_address(source: str) -> str:
    """Return an address without a slash at its end.

    Raises:
        SettingError: it is none, or it holds a password (which would end up in the record).
    """
    parts = urlsplit(source)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingError(
            f"{source!r} is no address to download from. Allowed is http://HOST/PATH or https://HOST/PATH, "
            "the folder that holds the archives."
        )
    if parts.username is not None:
        raise SettingError(
            f"The address of {parts.hostname} holds a user name. Leave it out of --from, and put name and "
            "password into ~/.netrc."
        )
    return source.rstrip("/")


@contextmanager
def _kept_until_done(downloads: Path) -> Iterator[Path]:
    """Make the folder of unfinished downloads; afterwards leave it only where it holds something."""
    downloads.mkdir(parents=True, exist_ok=True)
    try:
        yield downloads
    finally:
        with suppress(OSError):  # it holds something, or is gone
            downloads.rmdir()


def _fetch(archive: Archive, address: str, downloads: Path, patience: Patience) -> Path:
    """Return the archive's file below ``downloads``, downloaded unless it is there, its hash checked."""
    url, kept = f"{address}/{archive.name}", downloads / f"{archive.name}.partial"

    def bring(url: str, file: str, _: object) -> None:
        download(url, kept, size=archive.size, patience=patience)
        os.unlink(file)
        try:
            os.link(kept, file)  # so that what has come outlives a kill while its hash is checked
        except OSError:  # not every disk has links
            os.replace(kept, file)

    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel(logging.WARNING)  # what it is doing, the bar says
    try:
        found = pooch.retrieve(url, f"sha256:{archive.sha256}", archive.name, downloads, downloader=bring)
    except ValueError as error:  # Pooch's own, about the hash
        forget(kept)
        raise DataError(
            f"What {url} sent is not {archive.name} as published, and was removed: {error} Nothing was "
            "unpacked. Try again, or name another address with --from."
        ) from error
    finally:
        logger.setLevel(level)
    forget(kept)
    return Path(found)


def _leave_out(top: str | None, folder: Path, archive: str) -> None:
    """Move what lies in ``folder / top`` up into ``folder``; without ``top`` do nothing.

    Raises:
        DataError: there is no such folder.
    """
    if top is None:
        return
    if not (folder / top).is_dir():
        raise DataError(f"{archive} doesn't hold the folder {top} as published. Nothing was kept. Try again.")
    for each in (folder / top).iterdir():
        each.rename(folder / each.name)
    (folder / top).rmdir()


def _describe(public: PublicSet, address: str, files: list[Path]) -> dict[str, Any]:
    described = [
        {
            "name": archive.name,
            "url": f"{address}/{archive.name}",
            "bytes": file.stat().st_size,
            "sha256": archive.sha256,
        }
        for archive, file in zip(public.archives, files, strict=True)
    ]
    return {
        "title": public.title,
        "licence": public.licence,
        "citation": public.citation,
        "files": described,
    }


def _readme(public: PublicSet, files: list[dict[str, Any]]) -> str:
    """Return the text that goes with a set."""
    listed = "\n".join(f"{file['sha256']}  {file['url']}" for file in files)
    return (
        f"{public.title}\n\nLicence: {public.licence}\n\nTo cite: {public.citation}\n\n"
        f"Unpacked from (SHA-256, address):\n{listed}\n"
    )


PUBLIC_SETS = {
    "oxford-pet": PublicSet(
        title="The Oxford-IIIT Pet Dataset: 7,390 pictures of cats and dogs with trimaps",
        address="https://www.robots.ox.ac.uk/~vgg/data/pets/data",
        archives=(
            Archive(
                "images.tar.gz",
                "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
                791_918_971,
            ),
            Archive(
                "annotations.tar.gz",
                "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
                19_173_078,
            ),
        ),
        licence="CC BY-SA 4.0; the copyright of each picture remains with its owner",
        citation="O. M. Parkhi, A. Vedaldi, A. Zisserman, C. V. Jawahar: Cats and Dogs. IEEE Conference on "
        "Computer Vision and Pattern Recognition, 2012.",
    ),
    "hippocampus": PublicSet(
        title="Task04_Hippocampus of the Medical Segmentation Decathlon: 260 MRI volumes with two labels, "
        "and 130 without",
        address="https://msd-for-monai.s3-us-west-2.amazonaws.com",
        archives=(
            Archive(
                "Task04_Hippocampus.tar",
                "282d808a3e84e5a52f090d9dd4c0b0057b94a6bd51ad41569aef5ff303287771",
                28_425_216,
                top="Task04_Hippocampus",
            ),
        ),
        licence="CC BY-SA 4.0",
        citation="M. Antonelli et al.: The Medical Segmentation Decathlon. Nature Communications 13, 4128, "
        "2022. Data of Vanderbilt University Medical Center.",
    ),
    "dsb2018": PublicSet(
        title="BBBC038v1, the 2018 Data Science Bowl: 670 pictures of nuclei with a mask for each nucleus",
        address="https://data.broadinstitute.org/bbbc/BBBC038",
        archives=(
            Archive(
                "stage1_train.zip",
                "dcb6edc2690f137406638b2309581a71522c4dff19157d118453b448dcddcb68",
                into="stage1_train",
            ),
        ),
        licence="CC0 1.0: the contributors have waived all copyright and related rights",
        citation="J. C. Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data "
        "Science Bowl. Nature Methods 16, 1247-1253, 2019. Image set BBBC038v1 of the Broad Bioimage "
        "Benchmark Collection (V. Ljosa, K. L. Sokolnicki, A. E. Carpenter, Nature Methods 9, 637, 2012).",
    ),
}
"""What can be downloaded.

Hashes and sizes of the pets are those that TensorFlow Datasets publishes (torchvision's MD5 sums are of the
same files); the hashes of the nuclei and of the hippocampus are those stated by several projects that fetched
the archives from there.
"""
