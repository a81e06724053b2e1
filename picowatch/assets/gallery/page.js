"use strict";
// What the views have in common.

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

// Tell a screen reader; the same words twice are told twice.
function say(text) {
  const live = document.getElementById("live");
  live.textContent = live.textContent === text ? `${text}\u00a0` : text;
}

// Tell it what came by itself: a picture and a warning may come at once, and both are told.
function announce(text) {
  const recent = Date.now() - (announce.at ?? 0) < 1000; // milliseconds
  say(recent ? `${announce.text}. ${text}` : text);
  announce.text = document.getElementById("live").textContent;
  announce.at = Date.now();
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Some browsers give pages from disk no clipboard; the old way needs a selection.
    const area = element("textarea", text), focused = document.activeElement;
    ([...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    focused.focus({ preventScroll: true });
  }
}

// Open a dialog that fills the window: the page's scrollbar goes, and its width is kept free.
function fillWindow(dialog) {
  const root = document.documentElement;
  root.style.setProperty("--scrollbar", `${Math.max(0, innerWidth - root.clientWidth)}px`);
  dialog.showModal();
  enterHistory();
}

// What fills the window has an entry in the history, so that going back closes it, as phones do, and
// going forward opens it again. A comparison above the large view shares its entry.
history.scrollRestoration = "manual"; // the grid knows better where the user is
let leaving = false; // the way back to the entry before is not done yet
const isFilled = () => Boolean(document.querySelector("#large[open], #pair[open]"));

function enterHistory() {
  if (leaving) return;
  const isLarge = document.getElementById("large").open;
  const entry = isLarge ? [{ large: true }, "", `#${address(Large.entry.file)}`] : [{ pair: true }, ""];
  if (history.state) history.replaceState(...entry); else history.pushState(...entry);
}

function leaveHistory() {
  if (!history.state || leaving || isFilled()) return;
  leaving = true;
  history.back();
}

addEventListener("popstate", () => {
  if (leaving) {
    leaving = false;
    if (isFilled()) enterHistory();
  } else if (!history.state) {
    if (isFilled()) for (const open of document.querySelectorAll("dialog[open]")) open.close();
  } else if (history.state.pair) {
    Pair.reopen();
  } else {
    const entry = Pictures.byFile.get(linkedFile());
    if (entry) Large.open(entry);
  }
});

function fillList(list, settings) {
  list.replaceChildren(...settings.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}
