"""The gallery: outbox/index.html and the data below .picowatch/gallery/ that it shows.

A page opened from disk may not fetch files, but it may load scripts, so the data are scripts:

    page-00001.js …   250 pictures each, one call a line, only appended to   (pages.py)
    pages.js          which of them have changed                             (pages.py)
    now.js            what is running, what is queued, what went wrong  (../status.py)
    thumbs/           a small WebP of each picture                           (thumbnails.py)
"""

from picowatch.outbox.gallery.gallery import Gallery, GalleryMaintenance

__all__ = ["Gallery", "GalleryMaintenance"]
