#!/bin/sh
# Shows a notification on the desktop, for all three hooks of picowatch.yaml:
#
#   hooks:
#     picture: contrib/hooks/notify-desktop.sh picture
#     failed: contrib/hooks/notify-desktop.sh failed
#     idle: contrib/hooks/notify-desktop.sh idle
#
# Needs notify-send (Debian: libnotify-bin). On macOS, use osascript instead.
set -eu
case "$1" in
  picture) notify-send --icon="$2" --transient "picowatch" "$(basename "$2")" ;;
  failed) notify-send --urgency=critical "picowatch: $(basename "$2")" "$(cat "$3")" ;;
  idle) notify-send "picowatch" "All pictures are done." ;;
  *) echo "unknown hook: $1" >&2; exit 2 ;;
esac
