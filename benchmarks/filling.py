"""An outbox with a hundred thousand pictures behind it, made without making them."""

import os
import shutil
import tempfile
import time
from pathlib import Path

from picowatch.daemon.ledger_file import open_ledger
from picowatch.outbox.gallery.thumbnails import thumbnail_of
from picowatch.outbox.outbox import Outbox
from picowatch.work.publish import listing_line
from tests.house import House
from tests.load.live_daemon import live_daemon
from tests.load.recipes import text_of

IN_MEMORY = Path("/dev/shm")
IMAGES_PER_RECIPE = 1000
LINKS_PER_FILE = 10_000  # ext4 takes 65,000


def fill(house: House, pictures: int) -> None:
    """As if so many pictures of recipes in the inbox had been made and published.

    A daemon accepts the recipes. Then ledger, list and gallery are written through their own
    code, in memory where there is a folder for that, and copied: a hundred thousand fsyncs
    are not what is measured. Pictures and thumbnails are there by name, not by content.
    """
    in_memory = IN_MEMORY if IN_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=in_memory) as folder:
        other = House(Path(folder))
        for number in range(0, pictures, IMAGES_PER_RECIPE):
            images = min(IMAGES_PER_RECIPE, pictures - number)
            other.save(f"old{number:06}.yaml", f"{text_of(number)}count: {images}\n")
        with live_daemon(other, held=True, settle_seconds=0.05) as daemon:
            daemon.wait_until_asked(pictures)
        _finish_all(other)
        shutil.copytree(other.inbox, house.inbox, dirs_exist_ok=True)
        shutil.copytree(other.outbox, house.outbox, dirs_exist_ok=True)
    for number, line in enumerate(house.listed()):
        if number % LINKS_PER_FILE == 0:
            content = house.outbox / f".picowatch/content-{number}"
            content.write_bytes(b"a picture")
        thumbnail = f".picowatch/gallery/thumbs/{thumbnail_of(line['file'])}"
        for place in (house.outbox / line["file"], house.outbox / thumbnail):
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(content, place)


def _finish_all(house: House) -> None:
    """Claim, finish and list whatever waits, as worker and publisher do."""
    outbox = Outbox(house.settings())
    ledger = open_ledger(house.outbox / ".picowatch/ledger.sqlite", outbox)
    rendered = {"timings": {"denoise": 1.0}, "device": "cpu", "size": "64x64"}
    with ledger.transaction():
        while batch := ledger.claim(outbox.names, lambda request: IMAGES_PER_RECIPE):
            for image in batch:
                line = listing_line(image, rendered, time.time())
                outbox.listing.append(line)
                outbox.gallery.add(line)
            ledger.finish(batch, {image.id for image in batch})
    ledger.close()
