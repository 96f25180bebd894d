"""Fetching data sets: only pinned versions, unpacked completely or not at all; and readers on small folders of the same
layout."""

import gzip
import hashlib
import json
import resource
import shutil
import subprocess

import pytest
from PIL import Image as Pillow

from vislang.cache import writing
from vislang.cli import main
from vislang.data.fetch import (
    DATA_SETS,
    EMOJI,
    ENGLISH,
    KLETTRES,
    MANIFEST,
    OPENCLIPART,
    STAMPS,
    DataSet,
    Package,
    fetch,
)
from vislang.data.problems import DataError
from vislang.data.sets import emoji, english, klettres, openclipart, stamps
from vislang.errors import UserError
from vislang.example import Text


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "data"


@pytest.fixture
def art(tmp_path, monkeypatch) -> Package:
    """A Debian package and an apt-get that downloads it from a local archive; everything else is real."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("no dpkg-deb")
    tree = tmp_path / "tree"
    (tree / "usr/share/art").mkdir(parents=True)
    (tree / "usr/share/art/a.txt").write_text("art")
    (tree / "usr/share/rest.txt").write_text("rest")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN/control").write_text(
        "Package: art\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: art\n"
    )
    archive = tmp_path / "art_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", str(tree), str(archive)], check=True, capture_output=True)
    client = tmp_path / "bin" / "apt-get"
    client.parent.mkdir()
    client.write_text(f"#!/bin/sh\ncp {archive} .\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{client.parent}:/usr/bin:/bin")
    return Package("deb", "art", "1", hashlib.sha256(archive.read_bytes()).hexdigest(), ("usr/share/art/",))


def a_set(package: Package) -> DataSet:
    return DataSet("tiny", "a little art", "public domain", 1, (package,))


def test_a_set_is_fetched_once_and_only_what_is_kept_is_unpacked(cache, art):
    reported: list[str] = []
    folder = fetch(a_set(art), report=reported.append)
    assert folder == cache / "tiny"
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["a.txt", MANIFEST]
    assert any("licence: public domain" in line for line in reported)
    reported.clear()
    fetch(a_set(art), report=reported.append)
    assert reported == [f"tiny is there already: {folder}"]


def test_another_archive_than_the_pinned_one_is_an_error_unless_allowed(cache, art):
    other = Package("deb", "art", "0.9", "0" * 64, art.keep)
    with pytest.raises(DataError, match=r"tiny: art_1_all\.deb came, which is not art 0\.9 .*--any-version"):
        fetch(a_set(other), report=str)
    assert not list(cache.iterdir()), "nothing half-written stays"
    fetch(a_set(other), any_version=True, report=str)
    assert (cache / "tiny" / "art" / "usr/share/art/a.txt").is_file()


def test_a_client_that_is_missing_or_fails_is_named(cache, art, tmp_path, monkeypatch):
    (tmp_path / "bin" / "apt-get").write_text("#!/bin/sh\necho E: Unable to locate package art >&2\nexit 100\n")
    with pytest.raises(DataError, match="Unable to locate package art"):
        fetch(a_set(art), report=str)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="apt-get is needed"):
        fetch(a_set(art), report=str)
    assert not list(cache.iterdir())


def test_a_cache_that_cannot_be_written_is_an_error_for_the_user(tmp_path, monkeypatch, art):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("VISLANG_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=r"file/data: the cache cannot be written \(Not a directory\).*VISLANG_CACHE"):
        fetch(a_set(art), report=str)
    assert not EMOJI.is_here, "which makes no folder"
    assert main(["data", "list"]) == 0


def test_a_full_disk_is_an_error_for_the_user(cache, art):
    """A limit on file sizes instead of a full disk; unfinished files are removed."""
    cache.mkdir(parents=True)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(UserError, match=r"art: `apt-get download -qq art` failed"):
            fetch(a_set(art), report=str)
        with (
            pytest.raises(UserError, match=r"data: the cache cannot be written \(File too large\)"),
            writing(cache),
        ):
            (cache / "features").write_bytes(b"x" * 101)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [path.name for path in cache.iterdir()] == ["features"]


def test_the_command_lists_sets_and_names_unknown_ones(cache, capsys):
    assert main(["data", "fetch"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in DATA_SETS)
    assert main(["data", "fetch", "nothing"]) == 2
    assert "no data set" in capsys.readouterr().err
    for read in (
        emoji.drawings,
        openclipart.clip_art,
        stamps.stamps,
        klettres.readings,
        lambda: list(english.paragraphs()),
    ):
        with pytest.raises(DataError, match="vislang data fetch"):
            read()


def lay_out(data_set: DataSet, files: dict[str, bytes | str]) -> None:
    """Write files as if the set had been downloaded."""
    for name, content in {**files, MANIFEST: "{}"}.items():
        path = data_set.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def png(size=(4, 4)) -> bytes:
    import io

    buffer = io.BytesIO()
    Pillow.new("RGBA", size, (255, 0, 0, 128)).save(buffer, "PNG")
    return buffer.getvalue()


def test_emoji_variants_belong_to_their_emoji(cache):
    record = {
        "name": "WAVING HAND",
        "unified": "1F44B",
        "image": "1f44b.png",
        "short_name": "wave",
        "category": "People & Body",
        "subcategory": "hand-fingers-open",
        "skin_variations": {"1F3FB": {"unified": "1F44B-1F3FB", "image": "1f44b-1f3fb.png"}},
    }
    images = [
        f"emoji-datasource-{v}/package/img/{v}/64/{i}" for v in emoji.VENDORS for i in ("1f44b.png", "1f44b-1f3fb.png")
    ]
    lay_out(
        EMOJI, {"emoji-datasource-google/package/emoji.json": json.dumps([record]), **dict.fromkeys(images[:3], png())}
    )
    found = emoji.drawings()
    assert [(d.vendor, d.variant) for d in found] == [("google", False), ("google", True), ("twitter", False)]
    assert {d.emoji for d in found} == {"1F44B"}
    assert found[0].name == "waving hand"


def test_clip_art_is_described_by_its_source(cache):
    source = (
        "<svg><metadata><dc:title>Fox &amp; hound</dc:title><dc:subject><rdf:Bag><rdf:li>Animal</rdf:li><rdf:li>hash"
        "</rdf:li><rdf:li></rdf:li></rdf:Bag></dc:subject></metadata></svg>"
    )
    huge = bytearray(png())
    huge[16:24] = (30_000).to_bytes(4) * 2
    png_root, svg_root = "openclipart-png/usr/share/openclipart/png", "openclipart-svg/usr/share/openclipart/svg"
    lay_out(
        OPENCLIPART,
        {
            f"{png_root}/animals/mammals/fox.png": png(),
            f"{svg_root}/animals/mammals/fox.svg": source,
            f"{png_root}/food/bread.png": png(),
            f"{png_root}/food/huge.png": bytes(huge),
        },
    )
    fox, bread = openclipart.clip_art()
    assert (fox.category, fox.title, fox.keywords) == ("animals", "Fox & hound", ("animal",))
    assert [(e.id, e.target) for e in openclipart.captioned()] == [
        ("animals/mammals/fox, title", Text(("fox & hound",))),
        ("animals/mammals/fox, keywords", Text(("animal",))),
    ]
    assert [e.id for e in openclipart.pictures()] == ["animals/mammals/fox", "food/bread"]
    assert (bread.category, bread.title, bread.keywords) == ("food", "", ())


def test_stamps_keep_captions_and_their_recordings_together(cache):
    root = "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/animals"
    lay_out(
        STAMPS,
        {
            f"{root}/fox.txt": "A fox.\nde.utf8=Ein Fuchs.\nbroken line\nfr.utf8=\n",
            f"{root}/fox.png": png(),
            f"{root}/fox_desc.ogg": b"x",
            f"{root}/fox_desc_fr.ogg": b"x",
            f"{root}/fox.ogg": b"a sound effect",
            f"{root}/drawn.txt": "A drawing.",
            f"{root}/empty.txt": "",
        },
    )
    drawn, fox = stamps.stamps()
    assert (fox.name, fox.category, fox.captions) == ("animals/fox", "animals", {"en": "A fox.", "de": "Ein Fuchs."})
    assert sorted(fox.spoken) == ["en", "fr"]
    assert [e.id for e in stamps.recordings()] == ["animals/fox, en", "animals/fox, fr"]
    (whole,), halves = stamps.captioned(), [stamps.captioned(half) for half in (0, 1)]
    assert (whole.id, whole.target) == ("animals/fox", Text(("A fox.",)))
    assert sorted(map(len, halves)) == [0, 1]
    assert drawn.image is None


def test_klettres_readings_come_from_the_index(cache):
    index = (
        '<klettres><language code="en"><alphabet><sound name="a" file="en/alpha/A.ogg" /><sound name="b" '
        'file="en/alpha/B.ogg" /></alphabet><syllables><sound name="ba" file="en/syllab/ba.ogg" /></syllables>'
    )
    root = "klettres-data/usr/share/klettres"
    files = {f"{root}/en/sounds.xml": index, f"{root}/en/alpha/A.ogg": b"x", f"{root}/en/syllab/ba.ogg": b"x"}
    lay_out(KLETTRES, files)
    assert [e.id for e in klettres.recordings()] == ["en/alpha/A, A", "en/syllab/ba, BA"]
    assert [(r.language, r.kind, r.text) for r in klettres.readings()] == [
        ("en", "letter", "A"),
        ("en", "syllable", "BA"),
    ]


def test_english_is_cleaned_and_each_paragraph_comes_once(cache):
    page = (
        "<html><script>x = 1</script><p>The state is <b>the problem</b>, say some.<p>Short."
        "<li>The state is the problem, say some."
    )
    dictionary = (
        "Fox \\Fox\\ (f[o^]ks), n. [AS.]\n   A {canine} animal, known for its cunning.\n"
        "Hen\n   A female bird of the domestic kind.\n"
    )
    gloss = "02118333 05 n 01 red_fox 0 000 | the common Old World fox; having reddish-brown fur  \n"
    lay_out(
        ENGLISH,
        {
            "anarchism/usr/share/doc/anarchism/html/a.html": page,
            "dict-gcide/usr/share/dictd/gcide.dict.dz": gzip.compress(dictionary.encode()),
            "dict-foldoc/usr/share/dictd/foldoc.dict.dz": gzip.compress(
                b"API\n   Application Program {Interface}, they say.\n"
            ),
            **{f"wordnet-base/usr/share/wordnet/data.{part}": "  1 licence\n" for part in ("verb", "adj", "adv")},
            "wordnet-base/usr/share/wordnet/data.noun": "  1 licence\n" + gloss,
        },
    )
    found = list(english.paragraphs())
    assert found[0] == ("essays", "The state is the problem, say some.")
    assert found[1] == ("wordnet", "red fox: the common Old World fox; having reddish-brown fur")
    assert [source for source, _ in found] == ["essays", "wordnet", "gcide", "gcide", "foldoc"]
    assert "canine animal" in found[2][1]
    assert "{" not in "".join(text for _, text in found)
