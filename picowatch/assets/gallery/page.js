"use strict";
// Functions that all parts of the page use.

const part = id => document.getElementById(id);

function element(tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function button(text, action) {
  const made = element("button", text);
  made.type = "button";
  made.onclick = action;
  return made;
}

const wide = text => element("span", text, "wide"); // not on phones

// Replace a list's elements, but do not touch those that stay: they may have the focus or a finger.
function fill(list, wanted) {
  const stays = new Set(wanted);
  for (const old of [...list.children]) if (!stays.has(old)) old.remove();
  let next = list.firstElementChild;
  for (const child of wanted) {
    if (child === next) next = next.nextElementSibling; else list.insertBefore(child, next);
  }
}

// Browsers may refuse storage to a page from disk, and names need not be UTF-8.
const kept = action => { try { return action(); } catch { return null; } };

// -- messages

// Announce a text to screen readers.
function say(text) {
  const told = element("p", text);
  part("live").append(told);
  setTimeout(() => told.remove(), 5000);
}

// Show a text above whatever is open.
function notice(text) {
  const box = part("notice");
  say(text);
  box.textContent = text;
  box.togglePopover(false);
  box.togglePopover(true);
  clearTimeout(notice.ends);
  notice.ends = setTimeout(() => box.togglePopover(false), 4000);
}

// -- copying

async function copy(text, words) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copySelected(text); // without HTTPS, web pages have no clipboard
  }
  notice(words);
}

function copySelected(text) {
  const area = element("textarea", text), focused = document.activeElement;
  ([...document.querySelectorAll("dialog[open]")].at(-1) ?? document.body).append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  focused.focus({ preventScroll: true });
}

const isFromDisk = location.protocol === "file:";

// The outbox's path for commands. A page from a web server does not know it.
function outboxFolder() {
  const path = location.pathname.slice(0, location.pathname.lastIndexOf("/"));
  return isFromDisk ? kept(() => decodeURIComponent(path)) ?? path : "outbox";
}

const quoted = text => /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

const outboxFlag = () => isFromDisk ? ["--outbox", outboxFolder()] : [];

// The command line that deletes a picture or tries a recipe again; without a name, all that failed.
function commandLine(command, name) {
  const names = name ? [...name.startsWith("-") ? ["--"] : [], name] : []; // it may be like a flag's
  return ["picowatch", command, ...outboxFlag(), ...names].map(quoted).join(" ");
}

// The command for any number of pictures: a shell takes no line of thousands, but their names as
// input. What a shell or a terminal may change in a name is escaped as in JSON.
function listCommand(words, names, first = [], after = "") {
  const isPlain = name => /^[^"\s!](.*[^\s!])?$/u.test(name) && !/[\p{Cc}\p{Cs}!]/u.test(name);
  const lines = names.map(name => isPlain(name) ? name : escaped(name));
  const positional = first.length ? ["--", ...first] : [];
  const command = ["picowatch", ...words, ...outboxFlag(), "--from", "-", ...positional].map(quoted).join(" ");
  let end = "END";
  while (lines.includes(end)) end += "_";
  return [`${command} <<'${end}'${after}`, ...lines, end, ""].join("\n");
}

const escaped = text => JSON.stringify(text).replace(/[\p{Cc}\p{Cs}!]/gu,
  letter => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);

// -- going back

// A view that fills the window has one entry in the history, so that going back closes it, as on
// phones. If it is closed otherwise, the entry stays, now for the grid, and is used again.
history.scrollRestoration = "manual"; // the grid keeps the position better

function fillWindow(dialog, address) {
  const root = document.documentElement;
  root.style.setProperty("--scrollbar", `${Math.max(0, innerWidth - root.clientWidth)}px`);
  if (!dialog.open) dialog.showModal();
  const change = history.state ? "replaceState" : "pushState";
  history[change]({}, "", address ?? location.hash);
}

const leaveWindow = () => history.replaceState(history.state, "", "#");
const linkedFile = () => kept(() => decodeURIComponent(location.hash.slice(1)));

function closeAll() {
  for (const open of document.querySelectorAll("dialog[open]")) open.close();
}
