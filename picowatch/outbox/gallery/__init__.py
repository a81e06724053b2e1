"""The gallery: outbox/index.html and the data below .picowatch/gallery/ that it shows.

A page opened from disk may not fetch files, but it may load scripts, so the data are scripts:

    page-00001.js …   250 pictures each, one call a line                     (pages.py)
    pages.js          the version of each page                               (pages.py)
    now.js            what is running, what is queued, what went wrong  (../status.py)
    thumbs/           a small WebP of each picture                           (thumbnails.py)

All of them are a cache: what is missing or damaged is made from images.jsonl and the pictures.
"""

from picowatch.outbox.gallery.gallery import Gallery, GalleryMaintenance

__all__ = ["Gallery", "GalleryMaintenance"]
