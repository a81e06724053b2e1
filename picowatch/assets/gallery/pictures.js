"use strict";
// All pictures: pages of them, loaded as scripts because a page that was opened from disk may not
// fetch files; and each picture's settings.

const FOLDER = ".picowatch/gallery/";
const FORMAT = 5;

const Pictures = {
  all: [], // newest first
  byFile: new Map(),
  loaded: false, // true once all pages are loaded
  onchange: () => {},
};

// -- loading

let told = []; // each page's present version, the oldest page first
const versions = []; // each page's loaded version
const entriesOf = []; // by page
let arriving = null; // pictures of the page that is being loaded

// Calls `done` with whether the script ran; one that is read in the middle of a write does not. The
// browser reports its error right before its load event. It also reports errors of size observers,
// which are not the fault of a script.
let isBroken = false;
addEventListener("error", event => { isBroken ||= !event.message?.startsWith("ResizeObserver"); });

function load(name, done) {
  const script = document.createElement("script");
  script.src = `${FOLDER}${name}?${Date.now()}`;
  script.onload = script.onerror = event => {
    const isWhole = event.type === "load" && !isBroken;
    isBroken = false;
    script.remove();
    done?.(isWhole);
  };
  document.head.append(script);
}

// Called by pages.js.
function pages(next) {
  if (next.format !== FORMAT) {
    globalThis.now = () => {}; // it would replace this message
    part("line").textContent = "This page belongs to another version of picowatch. Reload it.";
    return;
  }
  told = next.pages;
  if (!arriving) loadNext();
}

// Called by a page, for each of its pictures.
function picture(entry) {
  arriving.push(entry);
}

// The newest page comes first. One that is read in the middle of a write is read again next time.
const tried = new Set();
function loadNext() {
  const page = told.findLastIndex((version, place) => versions[place] !== version && !tried.has(place));
  if (page < 0) {
    tried.clear();
    return gather();
  }
  const version = told[page];
  tried.add(page);
  arriving = [];
  load(`page-${String(page + 1).padStart(5, "0")}.js`, isWhole => {
    if (isWhole) { entriesOf[page] = arriving; versions[page] = version; }
    arriving = null;
    if (performance.now() > gatherAt) gather();
    loadNext();
  });
}

let gatherAt = 0; // while many pages arrive, they are gathered now and then
let gathered = "";

function gather() {
  entriesOf.length = versions.length = told.length;
  const now = versions.join();
  if (now === gathered && Pictures.loaded) return;
  gathered = now;
  Pictures.byFile = new Map(entriesOf.flat().map(entry => [entry.file, entry]));
  // Pages are nearly sorted: parallel engines, or a clock that is set back, list some out of order.
  Pictures.all = [...Pictures.byFile.values()].reverse().sort((a, b) => b.made_at - a.made_at);
  Pictures.loaded ||= told.every((version, page) => versions[page] === version);
  Pictures.onchange();
  gatherAt = performance.now() + 1000;
}

// -- a picture's settings

// Bytes of names that are not UTF-8 are lone surrogates (Python's surrogateescape).
const inAddress = text => /^[\udc80-\udcff]/u.test(text) ? `%${(text.charCodeAt() & 255).toString(16)}` : encodeURIComponent(text);
const address = path => path.replace(/[\udc80-\udcff]|[^/\udc80-\udcff]+/gu, inAddress);
// Another picture of the same name has another address, or the browser would show the former one.
const version = entry => `?${entry.made_at}-${(entry.digest ?? "").slice(0, 8)}`;
const thumbnail = entry => `${FOLDER}thumbs/${entry.thumb}${version(entry)}`;
// No browser but Safari shows TIFFs.
const shownFile = entry => entry.file.endsWith(".tif") ? thumbnail(entry) : address(entry.file) + version(entry);
const isSame = (entry, other) => entry.made_at === other.made_at && entry.digest === other.digest;
const folderOf = path => path.slice(0, Math.max(0, path.lastIndexOf("/")));
const ownName = path => path.slice(path.lastIndexOf("/") + 1);
const titleOf = entry => [photoOf(entry), entry.prompt].filter(Boolean).join(": ") || entry.file;
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const timeOf = entry => entry.made_at ? clock.format(entry.made_at * 1000) : "";

// A picture's own sides; those that a recipe names may be a detail's.
const sidesOf = ({ size, width, height }) =>
  /^\d+x\d+$/.test(size) ? String(size).split("x").map(Number) : [width || 0, height || 0];

// The picture that another was made from: its start image, or its first reference.
const originalOf = ({ image, image_hash, references }) =>
  image ? [image, image_hash] : [references?.[0]?.image, references?.[0]?.hash];

// The name of the dropped picture that this one was made from; "" for a recipe's.
function photoOf(entry) {
  const [path] = originalOf(entry);
  return path && path === entry.recipe ? path.split("/").at(-1) : "";
}

// Where the original may be. A copy is named by its hash. The file in the inbox is another picture if
// newer results say so.
function originalsOf(entry) {
  const [path, hash] = originalOf(entry);
  if (!path || !hash) return [];
  const copy = `.picowatch/start-images/${hash}`, folder = folderOf(entry.recipe);
  const newest = Pictures.all.find(other => originalOf(other)[0] === path && folderOf(other.recipe) === folder);
  if (newest && originalOf(newest)[1] !== hash) return [copy];
  const isDropped = photoOf(entry), archived = `${folder}/originals/${path.split("/").at(-1)}`;
  const inbox = isDropped ? [path] : [`${folder}/${path}`, path, path.replace(/^inbox\//, "")];
  const outbox = isDropped ? [archived] : [path, path.replace(/^outbox\//, "")];
  const isNear = isFromDisk && News.inbox.startsWith("/");
  return [copy, ...isNear ? inbox.map(place => `file://${address(`${News.inbox}/${place}`)}?${hash}`) : [], ...outbox.map(address)];
}

const isHash = name => /^(.+_)?hash$/.test(name);
const LOCATIONS = ["digest", "save_digest", "entry_index", "image_index"];
const ELSEWHERE = new Set([
  "prompt", "negative_prompt", "file", "recipe", "thumb", "yaml", "made_at", "seconds", "device", "size", "sheet", "cells",
  "width", "height", "given_size", "is_transparent", "moved", ...LOCATIONS,
]);

// Every setting as [name, text], in the order of recipes.
function settingsOf(entry) {
  const size = entry.given_size?.join("x") ?? (entry.width ? `${entry.width}x${entry.height}` : "");
  const found = [["prompt", entry.prompt], ["negative_prompt", entry.negative_prompt]];
  for (const [label, values] of entry.sheet ?? []) found.push([label, values.join(", ")]);
  if (!entry.sheet) found.push(["size", size], ["enlarged to", entry.size === size ? "" : entry.size]);
  for (const [name, value] of Object.entries(entry)) {
    if (!ELSEWHERE.has(name) && !isHash(name)) found.push([name, value]);
  }
  for (const name of ["recipe", "file"]) found.push([name, entry[name]]);
  found.push(["made", timeOf(entry)], ["seconds", entry.seconds], ["device", entry.device]);
  return found.map(([name, value]) => [name, inWords(value ?? "")]).filter(([, text]) => text !== "");
}

const hashesOf = entry => [...Object.keys(entry).filter(isHash), ...LOCATIONS]
  .filter(name => (entry[name] ?? "") !== "").map(name => [name, String(entry[name])]);

function inWords(value) {
  if (Array.isArray(value)) return value.map(inWords).join("\n");
  if (value === null || typeof value !== "object") return String(value);
  if ("name" in value && "weight" in value) return `${value.name}: ${value.weight}`;
  return Object.entries(value).filter(([name]) => !isHash(name))
    .map(([name, part]) => name === "name" ? part : `${name}: ${inWords(part)}`).join("\n");
}

function listSettings(list, settings) {
  list.replaceChildren(...settings.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}
