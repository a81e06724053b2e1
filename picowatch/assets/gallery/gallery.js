"use strict";
// Folders, searching, picking: connects what there is with what is shown.

const Filter = { query: "", folder: "", only: "" }; // only: "", "starred" or "sheets"
const searchBox = document.getElementById("search"), folderList = document.getElementById("folders");
const fresh = document.getElementById("fresh"), tray = document.getElementById("tray");
const MOST_FOLDERS = 300, SORT = "picowatch sort"; // in one list; in this browser's memory
let shownList = [], seen = null, newest = 0;
const picked = [];

// -- what is shown

function list() {
  const holds = Filter.query.trim() ? wanted(Filter.query) : null;
  const below = `${Filter.folder}/`;
  return sorted().filter(entry =>
    (!Filter.folder || entry.file.startsWith(below))
    && (Filter.only !== "sheets" || entry.sheet)
    && (Filter.only !== "starred" || Stars.has(entry.file))
    && (!holds || holds(entry)));
}

function show({ keep }) {
  shownList = list();
  Grid.show(shownList, { keep, folders: sort.value === "name" });
  showHeadings();
  showCount();
  Large.refresh();
}

setInterval(() => { if (!document.hidden && Grid.isOld()) show({ keep: true }); }, 1000);

// -- sorting, and going to a day or a folder

const sort = document.getElementById("sort"), jump = document.getElementById("jump");
const names = new Intl.Collator(undefined, { numeric: true });
const byName = { of: null, all: [] }; // the sorted pictures, and of which ones

// Folders that sort alike, as `day 1` and `day 01` do, stay apart.
const byFolder = (a, b) => names.compare(a, b) || (a < b ? -1 : Number(a > b));

// Pictures.all in the chosen order: each part of it has that order, too.
function sorted() {
  if (sort.value === "oldest") return [...Pictures.all].reverse();
  if (sort.value !== "name") return Pictures.all;
  if (byName.of !== Pictures.all) {
    byName.of = Pictures.all;
    const keys = new Map(Pictures.all.map(entry => [entry, folderOf(entry)]));
    byName.all = [...Pictures.all].sort((a, b) => byFolder(keys.get(a), keys.get(b)) || names.compare(a.file, b.file));
  }
  return byName.all;
}

sort.onchange = () => {
  scrollTo(0, 0);
  kept(() => localStorage.setItem(SORT, sort.value));
  show({ keep: false });
};

function showHeadings() {
  const found = Grid.headings(), told = found.join("\n");
  jump.hidden = found.length < 2;
  if (told === jump.dataset.told) return;
  jump.dataset.told = told;
  const first = element("option", sort.value === "name" ? "Go to folder…" : "Go to day…");
  first.value = "";
  jump.replaceChildren(first, ...found.map(text => {
    const made = element("option", text);
    made.value = text;
    return made;
  }));
}
jump.onchange = () => {
  const text = jump.value;
  jump.value = "";
  Grid.goToHeading(text);
};

function showCount() {
  const all = Pictures.all.length, some = shownList.length;
  const words = all === 1 ? "picture" : "pictures";
  document.getElementById("count").textContent =
    some === all ? `${all.toLocaleString()} ${words}` : `${some.toLocaleString()} of ${all.toLocaleString()} ${words}`;
  if (all) document.getElementById("icon").href = thumbnail(Pictures.all[0]);
  document.getElementById("none").hidden = some > 0 || !all || !Pictures.loaded;
  const unknown = some || !Filter.query ? undefined : unknownSetting(Filter.query);
  document.getElementById("none-words").textContent =
    Filter.only === "starred" && !Filter.query ? "No picture here has a star. Press s on a picture to give it one."
    : unknown ? `No picture has a setting called “${unknown}”.` : "No picture matches.";
  showEmpty();
}

// Before the first picture: where to save what.
function showEmpty() {
  document.getElementById("empty").hidden = Pictures.all.length > 0 || !Pictures.loaded;
  document.getElementById("tools").hidden = !Pictures.all.length;
  document.getElementById("inbox").textContent = News.inbox || "inbox";
  document.getElementById("start").hidden = News.runs;
}

document.getElementById("clear").onclick = () => {
  searchBox.value = Filter.query = Filter.folder = Filter.only = "";
  showFolders();
  show({ keep: false });
  searchBox.focus();
};
document.getElementById("empty").addEventListener("click", async event => {
  const asked = event.target.closest("[data-copy]");
  if (!asked) return;
  await copy(document.getElementById(asked.dataset.copy).textContent);
  notice("Copied.");
});

Pictures.onchange = () => {
  const files = Pictures.byFile, before = seen;
  if (Pictures.loaded) seen = new Set(files.keys());
  for (let place = picked.length - 1; place >= 0; place--) {
    if (!files.has(picked[place].file)) picked.splice(place, 1); else picked[place] = files.get(picked[place].file);
  }
  Stars.settle();
  Grid.hold(showFolders);
  show({ keep: true });
  if (before) tellFresh(before);
  showTray();
  openLinked();
};

// Only those on top are told where they are.
function tellFresh(before) {
  const words = count => `${count} new ${count === 1 ? "picture" : "pictures"}`;
  const added = entries => entries.filter(entry => !before.has(entry.file)).length;
  const all = added(Pictures.all), above = sort.value === "newest" ? added(shownList) : 0;
  if (all) announce(words(all));
  if (!above || document.getElementById("grid").getBoundingClientRect().top >= 0) return;
  newest += above;
  fresh.textContent = `↑ ${words(newest)}`;
  fresh.hidden = false;
}

fresh.onclick = () => { scrollTo(0, 0); };
addEventListener("scroll", () => {
  if (!fresh.hidden && scrollY < 200) { fresh.hidden = true; newest = 0; }
}, { passive: true });

// -- folders

// Each folder with the number of pictures in it and below, and the folders right below it.
function folders() {
  const counts = new Map(), below = new Map([["", new Set()]]), own = new Map();
  for (const entry of Pictures.all) {
    const folder = folderOf(entry);
    own.set(folder, (own.get(folder) ?? 0) + 1);
  }
  for (const [folder, count] of own) {
    let path = "";
    for (const part of folder.split("/")) {
      const child = path ? `${path}/${part}` : part;
      if (!below.has(child)) below.set(child, new Set());
      below.get(path).add(child);
      counts.set(child, (counts.get(child) ?? 0) + count);
      path = child;
    }
  }
  return { counts, below };
}

// The folders on top, and those below the chosen one and its parents.
function showFolders() {
  const { counts, below } = folders();
  if (Filter.folder && !counts.has(Filter.folder)) Filter.folder = "";
  const rows = [];
  const add = (parent, depth) => {
    const children = [...below.get(parent)].sort(names.compare);
    for (const child of children.slice(0, MOST_FOLDERS)) {
      rows.push(row(child.slice(parent ? parent.length + 1 : 0), counts.get(child), { folder: child, depth }));
      if (`${Filter.folder}/`.startsWith(`${child}/`)) add(child, depth + 1);
    }
    if (children.length > MOST_FOLDERS) {
      rows.push(element("li", `and ${(children.length - MOST_FOLDERS).toLocaleString()} more: search for their names`));
    }
  };
  add("", 0);
  const sheets = Pictures.all.filter(entry => entry.sheet).length, starred = Stars.count();
  const views = [row("All pictures", Pictures.all.length, {})];
  if (starred || Filter.only === "starred") views.push(row("★ Starred", starred, { only: "starred" }));
  if (sheets || Filter.only === "sheets") views.push(row("Contact sheets", sheets, { only: "sheets" }));
  fill(document.getElementById("views"), views);
  fill(folderList, rows);
  document.getElementById("folders-title").hidden = !rows.length;
}

// What stays in a list is not taken out: somebody may touch it now, or have it read.
function fill(list, rows) {
  for (const old of [...list.children]) if (!rows.includes(old)) old.remove();
  for (const [place, made] of rows.entries()) {
    if (list.children[place] !== made) list.insertBefore(made, list.children[place]);
  }
}

// A line of the list on the left: a folder, or what all folders have of a kind.
const rowOf = new Map();
function row(name, count, { folder = "", only = "", depth = 0 }) {
  const key = `${only}/${folder}`;
  if (!rowOf.has(key)) {
    const made = element("li"), button = element("button", name);
    button.type = "button";
    button.dataset.folder = folder;
    button.dataset.row = key;
    button.style.setProperty("--depth", depth);
    button.append(element("small"));
    button.onclick = () => {
      Object.assign(Filter, { folder, only });
      scrollTo(0, 0);
      showFolders();
      show({ keep: false });
    };
    made.append(button);
    rowOf.set(key, made);
  }
  const [button] = rowOf.get(key).children;
  button.ariaCurrent = Filter.folder === folder && Filter.only === only ? "true" : null;
  button.lastChild.textContent = count.toLocaleString();
  return rowOf.get(key);
}

// -- searching

searchBox.oninput = () => {
  Filter.query = searchBox.value;
  if (scrollY > 0) scrollTo(0, 0);
  show({ keep: false });
  say(document.getElementById("count").textContent);
};
searchBox.onkeydown = event => {
  if (event.key === "Escape" && searchBox.value) {
    searchBox.value = "";
    searchBox.oninput();
    event.preventDefault();
  } else if ((event.key === "ArrowDown" || event.key === "Enter") && shownList.length) {
    event.preventDefault();
    Grid.goTo(shownList[0].file, { focus: true });
  }
};

// -- picking and comparing

const isPicked = file => picked.some(entry => entry.file === file);

function pick(entry) {
  const place = picked.findIndex(other => other.file === entry.file);
  if (place >= 0) picked.splice(place, 1); else picked.push(entry);
  if (picked.length > 2) picked.shift();
  say(picked.length === 2 ? "Two pictures are picked; x compares them." : `${picked.length} picked`);
  showTray();
}

function showTray() {
  tray.hidden = !picked.length;
  document.getElementById("picked").replaceChildren(...picked.map(entry => {
    const image = element("img");
    image.src = thumbnail(entry);
    image.alt = entry.prompt || entry.file;
    return image;
  }));
  document.getElementById("tray-words").textContent = picked.length === 1 ? "Pick another one to compare" : "";
  document.getElementById("compare").disabled = picked.length < 2;
  Grid.remark();
}

const compare = () => { if (picked.length === 2) Pair.open(picked[0], picked[1]); };
document.getElementById("compare").onclick = compare;
document.getElementById("unpick").onclick = () => { picked.length = 0; showTray(); };

// -- connecting

Stars.onchange = () => {
  showFolders();
  if (Filter.only === "starred") show({ keep: true });
  Grid.remark();
  Large.refresh();
};

const keys = document.getElementById("keys");
document.getElementById("show-keys").onclick = () => keys.showModal();
keys.onclick = event => { if (event.target.closest("[data-do]")) keys.close(); };
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
}

document.addEventListener("keydown", event => {
  const types = event.target.closest("input:not([type=range]), textarea, select");
  if (types || event.ctrlKey || event.metaKey || event.altKey) return;
  const open = document.querySelector("dialog[open]");
  if (event.key === "x" && picked.length === 2 && (!open || open.id === "large")) compare();
  if (open) return;
  if (event.key === "/") { event.preventDefault(); searchBox.focus(); searchBox.select(); }
  if (event.key === "?") keys.showModal();
});

// The size of the pictures stays what it was, where the browser keeps such things for files.
const size = document.getElementById("size"), KEPT = "picowatch size";
sort.value = kept(() => localStorage.getItem(SORT)) ?? "newest";
if (!sort.value) sort.value = "newest";
size.value = kept(() => localStorage.getItem(KEPT)) ?? (innerWidth < 600 ? 120 : 190);
size.oninput = () => {
  Grid.resize(Number(size.value));
  kept(() => localStorage.setItem(KEPT, size.value));
};
Grid.resize(Number(size.value));

// An address with a picture behind # opens it, once it is loaded. A bookmark of another picture
// loads nothing again; the entries of the large view itself have a state.
let linked = "";
function readLink() {
  linked = linkedFile();
  if (linked || history.state) history.replaceState(null, "", "#");
  openLinked();
}
readLink();
addEventListener("hashchange", () => { if (!history.state) readLink(); });
function openLinked() {
  const entry = linked && Pictures.byFile.get(linked);
  if (!entry) return;
  linked = "";
  Large.open(entry);
}

News.ask();
