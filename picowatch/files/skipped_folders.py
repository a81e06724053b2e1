"""Folders whose files were put there by a system, not by the user; their names in lower case."""

SKIPPED_FOLDERS = {
    *("__macosx", "@eadir", "lost+found", "node_modules", "system volume information"),
    *("$recycle.bin", "#recycle", "@recycle"),  # bins of Windows, Synology and QNAP: it is deleted
    *("#snapshot", "@recently-snapshot", "~snapshot"),  # Synology's, QNAP's and NetApp's copies
}
