"use strict";
// What there is: the pages of pictures, loaded as scripts because a page that was opened from disk
// may not fetch files; what each picture says; and searching.

const FOLDER = ".picowatch/gallery/";
const FORMAT = 1;

const Pictures = {
  all: [], // newest first
  byFile: new Map(),
  loaded: false, // all pages, once
  onchange: () => {},
};

// -- loading

const entriesOf = []; // by page; page 1 is the oldest
const gone = new Set(); // files that turned out to be deleted
let told = { pages: 0, pictures: -1, edition: "" };
let toLoad = []; // pages, the next one first
let arriving = null;

function load(name, done) {
  const script = document.createElement("script");
  script.src = `${FOLDER}${name}?${Date.now()}`;
  script.onload = script.onerror = () => { script.remove(); if (done) done(); };
  document.head.append(script);
}

// Called by pages.js: how many pages there are, and whether what was loaded still holds.
function pages(next) {
  if (next.format !== FORMAT) return Pictures.onother();
  const from = next.edition === told.edition ? Math.max(1, told.pages) : 1;
  if (next.edition !== told.edition || next.pictures !== told.pictures) {
    toLoad = toLoad.filter(page => page < from);
    for (let page = from; page <= next.pages; page++) toLoad.unshift(page);
  }
  if (next.edition !== told.edition) gone.clear();
  told = next;
  if (!next.pages) { Pictures.loaded = true; gather(); }
  loadNext();
}

// Called by a page, for each of its pictures.
function picture(entry) {
  arriving.push(entry);
}

function loadNext() {
  if (arriving || !toLoad.length) return;
  const page = toLoad.shift();
  arriving = [];
  load(`page-${String(page).padStart(5, "0")}.js`, () => {
    // Nothing came of a page that was read in the middle of a write: it is loaded again.
    if (arriving.length) entriesOf[page] = arriving.map(known);
    else if (page === told.pages) told.pictures = -1;
    arriving = null;
    if (!toLoad.length) Pictures.loaded = true;
    gather();
    loadNext();
  });
}

// The same picture is the same object, so that what is shown of it need not be made again.
function known(entry) {
  const old = Pictures.byFile.get(entry.file);
  return old && old.digest === entry.digest && old.made_at === entry.made_at ? old : entry;
}

let gatherAt = 0; // while many pages arrive, what there is is gathered now and then

function gather() {
  if (toLoad.length && performance.now() < gatherAt) return;
  entriesOf.length = told.pages + 1;
  Pictures.byFile.clear();
  for (const entries of entriesOf) {
    for (const entry of entries || []) if (!gone.has(entry.file)) Pictures.byFile.set(entry.file, entry);
  }
  Pictures.all = [...Pictures.byFile.values()].reverse();
  Pictures.onchange();
  gatherAt = performance.now() + 300;
  if (Pictures.loaded) readAhead();
}

// A picture that the user deleted shows itself by not loading; picowatch tells of it later.
function drop(file) {
  gone.add(file);
  toLoad.length || gather();
}

// -- what a picture says

const address = path => path.split("/").map(encodeURIComponent).join("/");
const thumbnail = entry => `${FOLDER}thumbs/${entry.thumb}`;
const folderOf = entry => entry.file.slice(0, Math.max(0, entry.file.lastIndexOf("/")));
const shape = entry => Math.min(2.8, Math.max(0.45, (entry.width || 1) / (entry.height || 1)));
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const timeOf = entry => entry.made_at ? clock.format(entry.made_at * 1000) : "";

const HASHES = new Set(["checkpoint_hash", "vae_hash", "image_hash", "mask_hash", "digest", "save_digest", "entry_index", "image_index"]);
const HIDDEN = new Set(["thumb", "yaml", "made_at", "sheet", "cells", "width", "height", ...HASHES]);

// Every setting as [name, text], in the order in which recipes are written.
function settingsOf(entry) {
  const found = ["prompt", "negative_prompt"].map(name => [name, inWords(entry[name] ?? "")]);
  for (const [label, values] of entry.sheet || []) found.push([label, values.join(", ")]);
  for (const [name, value] of Object.entries(entry)) {
    if (HIDDEN.has(name) || ["prompt", "negative_prompt", "file", "recipe"].includes(name)) continue;
    found.push([name, inWords(value)]);
    if (name === "cfg_scale") found.push(["size", `${entry.width}x${entry.height}`]);
  }
  found.push(["recipe", inWords(entry.recipe ?? "")], ["file", entry.file], ["made", timeOf(entry)]);
  return found.filter(([, text]) => text !== "");
}

function inWords(value) {
  if (Array.isArray(value)) return value.map(inWords).join("\n");
  if (value === null || typeof value !== "object") return String(value);
  if ("name" in value && "weight" in value) return `${value.name}: ${value.weight}`;
  return Object.entries(value).filter(([name]) => name !== "hash")
    .map(([name, part]) => name === "name" ? part : `${name}: ${inWords(part)}`).join("\n");
}

// -- searching

const texts = new WeakMap(); // of each entry: its settings in small letters, and all of them in one

function textsOf(entry) {
  let found = texts.get(entry);
  if (!found) {
    const settings = settingsOf(entry).map(([name, text]) => [name, text.toLowerCase()]);
    // What a prompt with wildcards could have been is found by its name alone: unexpanded:cat.
    const drawn = settings.filter(([name]) => !name.startsWith("unexpanded_"));
    found = { settings, whole: drawn.map(([name, text]) => `${name} ${text}`).join("\n") };
    texts.set(entry, found);
  }
  return found;
}

// Read all pictures' texts while nothing else is to be done, so that the first letter finds them.
function readAhead(place = 0) {
  const entries = Pictures.all;
  (globalThis.requestIdleCallback ?? setTimeout)(deadline => {
    const until = performance.now() + Math.min(8, deadline?.timeRemaining() ?? 4);
    while (place < entries.length && performance.now() < until) textsOf(entries[place++]);
    if (place < entries.length && entries === Pictures.all) readAhead(place);
  });
}

// What has to be true of a picture: every word of the query.
function wanted(query) {
  const words = [];
  for (const [, minus, name, phrase, word] of query.toLowerCase()
    .matchAll(/(-?)(?:([a-z_]+):)?(?:"([^"]*)"?|(\S+))/g)) {
    const text = phrase ?? word;
    if (text) words.push({ not: minus === "-", name, text });
  }
  return entry => {
    const found = textsOf(entry);
    return words.every(word => holds(found, word) !== word.not);
  };
}

function holds({ settings, whole }, { name, text }) {
  if (name === undefined) return whole.includes(text);
  const values = settings.filter(([own]) => own.startsWith(name)).map(([, value]) => value);
  if (!values.length) return whole.includes(`${name}:${text}`);
  const exact = text !== "" && !isNaN(text);
  return values.some(value => exact && !isNaN(value) ? Number(value) === Number(text) : value.includes(text));
}
