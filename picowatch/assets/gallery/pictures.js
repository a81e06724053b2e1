"use strict";
// What there is: the pages of pictures, loaded as scripts because a page that was opened from disk
// may not fetch files; what each picture says; and searching.

const FOLDER = ".picowatch/gallery/";
const FORMAT = 3;

const Pictures = {
  all: [], // newest first
  byFile: new Map(),
  loaded: false, // all pages, once
  onchange: () => {},
};

// -- loading

const entriesOf = []; // by page; page 1 is the oldest
const versions = []; // by page: what was asked for last
let gone = new Set(); // files that turned out to be deleted, and are listed still
let told = { pages: [], edition: "" };
let toLoad = []; // pages, the next one first
let arriving = null;
const torn = new Map(); // pages that were read in the middle of a write, and how often

// Calls `done` with whether the script ran: one that was read in the middle of a write does not.
// The browser tells of its error right before it says that the script is loaded. It also tells of
// sizes that change while they are observed, as where a scrollbar comes: no script's fault.
let isBroken = false;
addEventListener("error", event => { isBroken ||= !event.message.startsWith("ResizeObserver"); });

function load(name, done) {
  const script = document.createElement("script");
  script.src = `${FOLDER}${name}?${Date.now()}`;
  script.onload = script.onerror = event => {
    const isWhole = event.type === "load" && !isBroken;
    isBroken = false;
    script.remove();
    if (done) done(isWhole);
  };
  document.head.append(script);
}

// While the outbox cannot be read, as on a share that is away, no picture can: none was deleted.
let isAway = false;
const lookAtPages = () => load("pages.js", isWhole => { if (!isWhole) isAway = true; });

// Called by pages.js: the version of each page, which tells whether what was loaded still holds.
function pages(next) {
  const isBack = isAway && gone.size > 0;
  isAway = false;
  if (next.format !== FORMAT) {
    globalThis.now = () => {}; // which would say something else in the same place
    document.getElementById("line").textContent = "This page belongs to another version of picowatch. Reload it.";
    return;
  }
  if (next.edition !== told.edition) versions.length = 0;
  if (next.edition !== told.edition || isBack) gone.clear();
  told = next;
  toLoad = [...next.pages.keys()].map(place => place + 1).reverse().filter(page => versions[page] !== next.pages[page - 1]);
  Stars.look(next.stars);
  if (!next.pages.length) Pictures.loaded = true;
  if (!next.pages.length || isBack) gather();
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
  versions[page] = told.pages[page - 1];
  load(`page-${String(page).padStart(5, "0")}.js`, isWhole => {
    if (isWhole) { entriesOf[page] = arriving.map(known); torn.delete(page); } else { torn.set(page, (torn.get(page) ?? 0) + 1); delete versions[page]; }
    arriving = null;
    // One that is damaged for good must not keep the others from being all there is.
    if (!toLoad.length && ![...torn.values()].includes(1)) Pictures.loaded = true;
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
  entriesOf.length = told.pages.length + 1;
  Pictures.byFile.clear();
  const listed = entriesOf.flat();
  for (const entry of listed) if (!gone.has(entry.file)) Pictures.byFile.set(entry.file, entry);
  if (gone.size) gone = new Set(listed.map(entry => entry.file).filter(file => gone.has(file)));
  // Nearly sorted: engines that work at once, or a clock that was set back, list some out of order.
  Pictures.all = [...Pictures.byFile.values()].reverse().sort((a, b) => b.made_at - a.made_at);
  Pictures.onchange();
  gatherAt = performance.now() + 300;
  if (Pictures.loaded) readAhead();
}

// A picture that the user deleted shows itself by not loading; picowatch tells of it later.
function drop(file) {
  if (gone.has(file)) return;
  gone.add(file);
  lookAtPages();
  toLoad.length || gather();
}

// What could not be loaded may be there again later, unless picowatch no longer lists it.
const mayBeThere = file => !Pictures.loaded || torn.size > 0 || gone.has(file) || Pictures.byFile.has(file);

// -- what a picture says

const address = path => path.split("/").map(encodeURIComponent).join("/");
const linkedFile = () => kept(() => decodeURIComponent(location.hash.slice(1)));
const thumbnail = entry => `${FOLDER}thumbs/${entry.thumb}`;
const folderOf = entry => entry.file.slice(0, Math.max(0, entry.file.lastIndexOf("/")));
const shape = entry => Math.min(2.8, Math.max(0.45, (entry.width || 1) / (entry.height || 1)));
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const timeOf = entry => entry.made_at ? clock.format(entry.made_at * 1000) : "";

const isHash = name => /^(.+_)?hash$/.test(name);
const LOCATIONS = ["digest", "save_digest", "entry_index", "image_index"];
const HIDDEN = new Set(["thumb", "yaml", "differs", "made_at", "finished", "seconds", "device", "size", "sheet", "cells", "boxes", "width", "height", ...LOCATIONS]);

// Every setting as [name, text], in the order in which recipes are written.
function settingsOf(entry) {
  const found = ["prompt", "negative_prompt"].map(name => [name, inWords(entry[name] ?? "")]);
  for (const [label, values] of entry.sheet || []) found.push([label, values.join(", ")]);
  for (const [name, value] of Object.entries(entry)) {
    if (name === "width" && !entry.sheet) {
      const size = `${value}x${entry.height}`;
      found.push(["size", size], ["enlarged to", entry.size === size ? "" : inWords(entry.size ?? "")]);
    }
    if (HIDDEN.has(name) || isHash(name) || ["prompt", "negative_prompt", "file", "recipe"].includes(name)) continue;
    found.push([name, inWords(value)]);
  }
  found.push(["recipe", inWords(entry.recipe ?? "")], ["file", entry.file], ["made", timeOf(entry)]);
  found.push(["seconds", inWords(entry.seconds ?? "")], ["device", inWords(entry.device ?? "")]);
  return found.filter(([, text]) => text !== "");
}

// The fields of the recipe that are not at their defaults: each goes on in the lines that are indented.
function shortRecipe(entry) {
  const named = new Set(entry.differs);
  return entry.yaml.split(/^(?=[a-z_]+:)/m).filter(field => named.has(field.slice(0, field.indexOf(":")))).join("");
}

function inWords(value) {
  if (Array.isArray(value)) return value.map(inWords).join("\n");
  if (value === null || typeof value !== "object") return String(value);
  if ("name" in value && "weight" in value) return `${value.name}: ${value.weight}`;
  return Object.entries(value).filter(([name]) => !isHash(name))
    .map(([name, part]) => name === "name" ? part : `${name}: ${inWords(part)}`).join("\n");
}

// -- searching

const texts = new WeakMap(); // of each entry: its settings in small letters, and all of them in one

function textsOf(entry) {
  let found = texts.get(entry);
  if (!found) {
    const settings = settingsOf(entry).map(([name, text]) => [name, text.toLowerCase()]);
    if (entry.sheet) asDrawn(settings, entry);
    // What a prompt with wildcards could have been is found by its name alone: unexpanded:cat.
    const drawn = settings.filter(([name]) => !name.startsWith("unexpanded_"));
    found = { settings, whole: drawn.map(([name, text]) => `${name} ${text}`).join("\n") };
    settings.push(["width", `${entry.width}`], ["height", `${entry.height}`]);
    if (Pictures.loaded) texts.set(entry, found); // a sheet is known before its pictures
  }
  return found;
}

// A contact sheet is found by what its pictures show, not by what its recipe could have drawn.
function asDrawn(settings, entry) {
  const cells = entry.cells.map(file => Pictures.byFile.get(file)).filter(cell => cell?.prompt);
  if (!cells.length) return;
  const prompt = settings.find(([name]) => name === "prompt");
  if (prompt) prompt[0] = "unexpanded_prompt";
  settings.push(["prompt", [...new Set(cells.map(cell => cell.prompt.toLowerCase()))].join("\n")]);
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
  const words = wordsOf(query);
  return entry => {
    const found = textsOf(entry);
    return words.every(word => holds(found, word) !== word.not);
  };
}

// `steps: < 20` is `steps:<20`; `steps:` and `steps:<`, while it is typed, find every picture.
function wordsOf(query) {
  const words = [], together = query.toLowerCase().replace(/\b([a-z_]+):\s*([<>]=?|=)?\s*(?=[\d.])/g,
    (whole, name, sign = "") => isSetting(name) ? `${name}:${sign}` : whole);
  for (const [, minus, name, phrase, word] of together.matchAll(/(-?)(?:([a-z_]+):)?(?:"([^"]*)"?|(\S+))/g)) {
    const text = phrase ?? word, [, unfinished] = text.match(/^([a-z_]+):$/) ?? [];
    const isWhole = name === undefined ? !unfinished || !isSetting(unfinished) : !/^[<>=]+$/.test(text);
    if (text && isWhole) words.push({ not: minus === "-", name, text });
  }
  return words;
}

function isSetting(name) {
  return Pictures.all.some(entry => textsOf(entry).settings.some(([own]) => own.startsWith(name)));
}

// The first word before a colon that no picture has as a setting.
function unknownSetting(query) {
  return wordsOf(query).find(({ name }) => name !== undefined && !isSetting(name))?.name;
}

function holds({ settings, whole }, { name, text }) {
  if (name === undefined) return whole.includes(text);
  const values = settings.filter(([own]) => own.startsWith(name)).map(([, value]) => value);
  if (!values.length) return whole.includes(`${name}:${text}`);
  const fits = numbers(text);
  return values.some(value => fits && value !== "" && !isNaN(value) ? fits(Number(value)) : value.includes(text));
}

// What a number has to be: 24, <20, >=7.5 or 20..30; null for what is no number.
function numbers(text) {
  const [, sign, first, last] = text.match(/^([<>]=?|=)?(-?[\d.]+?)(?:\.\.(-?[\d.]+))?$/) ?? [];
  const from = Number(first), to = Number(last ?? first);
  if (first === undefined || isNaN(from) || isNaN(to) || (sign && last)) return null;
  switch (sign) {
    case "<": return value => value < from;
    case "<=": return value => value <= from;
    case ">": return value => value > from;
    case ">=": return value => value >= from;
    default: return value => value >= from && value <= to;
  }
}

// -- the paper of contact sheets

// In dark colours: the sheet with its paper turned dark, and over it, as they are, its pictures.
function paper(entry, source) {
  const svg = vector("svg", { class: "paper", viewBox: `0 0 ${entry.width} ${entry.height}`, "aria-hidden": "true" });
  const clip = vector("clipPath", { id: `boxes-${++paper.count}` });
  for (const [x, y, width, height] of entry.boxes ?? []) clip.append(vector("rect", { x, y, width, height }));
  const all = { href: source, width: entry.width, height: entry.height, preserveAspectRatio: "none" };
  svg.append(clip, vector("image", { ...all, class: "dark" }), vector("image", { ...all, "clip-path": `url(#${clip.id})` }));
  return svg;
}
paper.count = 0;

function vector(tag, attributes) {
  const made = document.createElementNS(document.getElementById("svg").namespaceURI, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

