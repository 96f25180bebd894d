"""``vislang index``: make an index of a folder of images, or bring it up to date."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vislang.commands.options import positional
from vislang.commands.outputs import must_hold_folder
from vislang.console import console, messages, reporting
from vislang.errors import UserError

DEFAULT_MODEL = "efficientnet-lite0"
"""The model of a new index, if none is given; it needs no training, but it has no vectors of texts."""

SHOWN = 5
"""Files that could not be read and are printed; all of them are in the index."""


@dataclass(frozen=True)
class Index:
    """Make an index of the images of a folder, for vislang search, or bring it up to date.

    Only new and changed images are embedded. An interrupted run continues where it stopped. Started by torchrun, each
    process embeds a share of the images.

    Attributes:
        folder: folder of images; folders inside it are included
        out: folder of the index
        model: folder of a model or vision tower, packaged name or Hub id; the default is the model of the index or, for
            a new one, efficientnet-lite0. Only a dual encoder can be searched by text
        batch_size: number of images that are embedded at once
        graph_above: number of images above which a search does not compare all of them (needs usearch)
        device: where the model runs: auto, cpu, cuda or mps
    """

    folder: Path = positional()
    out: Path = Path("index")
    model: str | None = None
    batch_size: int = 64
    graph_above: int = 1_000_000
    device: str = "auto"

    def run(self) -> int:
        """Make the index; returns 0.

        Raises:
            UserError: the folder has no images, or the index is one of another model or folder.
        """
        if not self.folder.is_dir():
            raise UserError(f"{self.folder}: no such folder. Give a folder of images.")
        for name in ("batch_size", "graph_above"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1.")
        must_hold_folder(self.out)
        from vislang.search.build import build
        from vislang.search.embedder import open_embedder
        from vislang.search.index import SUMMARY
        from vislang.search.index import Index as Opened
        from vislang.search.listing import must_have_images
        from vislang.train.device import device_of
        from vislang.train.processes import joined

        folder = self.folder.resolve()
        must_have_images(folder)
        with joined(timeout_minutes=60 * 24 * 7) as processes:
            if not processes.is_first:
                console.quiet = messages.quiet = True
            source = self.model
            if source is None:
                source = Opened(self.out).model["source"] if (self.out / SUMMARY).is_file() else DEFAULT_MODEL
            embedder = open_embedder(source, device_of(self.device, processes.local_rank))
            with reporting("indexing") as report:
                built = build(folder, self.out, embedder, self.batch_size, processes, report)
            if processes.is_first:
                self._tell(built, embedder.reads_texts)
        return 0

    def _tell(self, built, reads_texts: bool) -> None:
        from vislang.search.build import read_skipped
        from vislang.search.index import Index as Opened
        from vislang.search.nearest import graph_of, has_usearch, write_graph

        index = Opened(self.out)
        if index.count > self.graph_above and not graph_of(index).is_file():
            if has_usearch():
                with reporting("making the graph") as report:
                    write_graph(index, report)
            else:
                messages.print(
                    f"note: with more than {self.graph_above:,} images, usearch makes searches faster. Run: "
                    "pip install 'vislang[search]', and index again.",
                    markup=False,
                )
        for each in read_skipped(index)[:SHOWN]:
            messages.print(f"skipped: {each['name']}: {each['reason']}", markup=False, soft_wrap=True)
        skipped = f", {built.skipped:,} skipped (listed in {index.path('skipped', 'jsonl')})" if built.skipped else ""
        if not built.changed:
            console.print(f"{self.out} is up to date: {built.count:,} images{skipped}", soft_wrap=True)
            return
        deleted = f", {built.deleted:,} no longer there" if built.deleted else ""
        console.print(
            f"{built.count:,} images in {self.out}: {built.embedded:,} embedded{deleted}{skipped}", soft_wrap=True
        )
        if not reads_texts:
            console.print("This model has no vectors of texts: search with --image.")
