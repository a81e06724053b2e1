"use strict";
// Order, folders, search, selection: connects all pictures with those that are shown.

const Filter = { query: "", folder: "", view: "" };
let shownList = []; // the pictures that pass the filters, in the order in which they are shown

// -- order, days and folders as headings

const sort = part("sort"), jump = part("jump");
const names = new Intl.Collator(undefined, { numeric: true });
// Folders with equal sort keys, such as `day 1` and `day 01`, stay apart.
const byName = (a, b) => names.compare(a, b) || (a < b ? -1 : Number(a > b));

function sorted(entries) {
  if (sort.value === "oldest") return entries.reverse();
  if (sort.value !== "name") return entries;
  const keys = new Map(entries.map(entry => [entry, folderOf(entry.file)]));
  return entries.sort((a, b) => byName(keys.get(a), keys.get(b)) || names.compare(a.file, b.file));
}

function headings() {
  if (sort.value === "name") return entry => folderOf(entry.file) || "/";
  const dayOf = date => (date.getFullYear() * 12 + date.getMonth()) * 31 + date.getDate();
  const today = new Date(), yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
  const words = new Map([[dayOf(today), "Today"], [dayOf(yesterday), "Yesterday"]]);
  return ({ made_at: madeAt }) => {
    if (!madeAt) return "Earlier";
    const date = new Date(madeAt * 1000), day = dayOf(date);
    if (!words.has(day)) words.set(day, date.toLocaleDateString(undefined, { dateStyle: "medium" }));
    return words.get(day);
  };
}

function show() {
  const holds = Filter.query.trim() ? wanted(Filter.query) : null;
  const below = `${Filter.folder}/`;
  shownList = sorted(Pictures.all.filter(entry =>
    (!Filter.folder || entry.file.startsWith(below)) && (!Filter.view || VIEWS[Filter.view].holds(entry))
    && (!holds || holds(entry))));
  Grid.show(shownList, headings());
  showTotals();
  shownOn = new Date().toDateString();
  showJump();
  showCount();
  Large.refresh();
}

// With another order or other filters, the view begins at its top.
function showAnew() {
  scrollTo(0, 0);
  show();
}

// The page may stay open over midnight.
let shownOn = "";
const showNewDay = () => { if (shownOn && shownOn !== new Date().toDateString()) show(); };

sort.value = kept(() => localStorage.getItem("picowatch sort")) ?? "newest";
if (!sort.value) sort.value = "newest";
sort.onchange = () => {
  kept(() => localStorage.setItem("picowatch sort", sort.value));
  showAnew();
};

function showJump() {
  const found = Grid.headings(), first = new Option(sort.value === "name" ? "Go to folder…" : "Go to day…", "");
  jump.hidden = found.length < 2;
  if (document.activeElement !== jump) jump.replaceChildren(first, ...found.map(text => new Option(text, text)));
}
jump.onchange = () => {
  Grid.goToHeading(jump.value);
  jump.value = "";
};

function showCount() {
  const all = Pictures.all.length, some = shownList.length, words = all === 1 ? "picture" : "pictures";
  const count = some === all ? "" : `${some.toLocaleString()} of `;
  part("count").replaceChildren(`${count}${all.toLocaleString()}`, wide(` ${words}`));
  if (all) part("icon").href = thumbnail(Pictures.all[0]);
  part("none").hidden = some > 0 || !all || !Pictures.loaded;
  const unknown = some || !Filter.query ? undefined : unknownSetting(Filter.query);
  part("none-words").textContent = unknown ? `No picture has a setting called “${unknown}”.` : "No picture matches.";
  showEmpty();
}

part("clear").onclick = () => {
  Object.assign(Filter, { query: "", folder: "", view: "" });
  search.value = "";
  showFolders();
  showAnew();
  search.focus();
};

// Before the first picture, the page says what to save where.
function showEmpty() {
  part("empty").hidden = Pictures.all.length > 0 || !Pictures.loaded;
  part("tools").hidden = !Pictures.all.length;
  part("inbox").textContent = News.inbox;
  part("start").hidden = News.runs;
}
part("empty").addEventListener("click", event => {
  const asked = event.target.closest("[data-copy]");
  if (asked) copy(part(asked.dataset.copy).textContent, "Copied.");
});

// How much of what was requested for a folder is done, by folder; loaded now and then.
let totalsOf = {};
globalThis.totals = found => {
  totalsOf = found;
  showTotals();
};

const totalOf = folder => Object.hasOwn(totalsOf, folder) ? totalsOf[folder] : "";

// Beside the headings that are folders, and above all for a folder that was chosen.
function showTotals() {
  Grid.tellTotals(heading => sort.value === "name" ? totalOf(heading) : "");
  const words = !Filter.view && (Filter.folder || sort.value === "name") ? totalOf(Filter.folder) : "";
  part("totals").textContent = words && `${Filter.folder || "Everything"}: ${words}`;
  part("totals").hidden = !words;
}

// The size of the pictures.
const size = part("size");
size.value = kept(() => localStorage.getItem("picowatch size")) ?? (innerWidth < 600 ? 120 : 190);
size.oninput = () => {
  Grid.resize(Number(size.value));
  kept(() => localStorage.setItem("picowatch size", size.value));
};
size.oninput();

// -- new and deleted pictures

let seen = null, newest = 0; // files; new pictures above what the user looks at

Pictures.onchange = () => {
  const before = seen;
  if (Pictures.loaded) seen = new Set(Pictures.byFile.keys());
  if (Pictures.loaded) Marks.follow();
  Looked.note();
  showFolders();
  show();
  Selection.refresh();
  Grid.forget();
  if (before) tellFresh(before);
  openLinked();
  if (Pictures.loaded) readAhead();
};

// The link to new pictures appears only if they are at the top, out of sight.
function tellFresh(before) {
  const words = count => `${count} new ${count === 1 ? "picture" : "pictures"}`;
  const added = entries => entries.filter(({ file }) => !before.has(file)).length;
  const all = added(Pictures.all);
  if (all) say(words(all));
  if (sort.value !== "newest" || scrollY < 200) return;
  newest += added(shownList);
  part("fresh").textContent = `↑ ${words(newest)}`;
  part("fresh").hidden = !newest;
}
part("fresh").onclick = () => scrollTo(0, 0);
addEventListener("scroll", () => {
  if (newest && scrollY < 200) { part("fresh").hidden = true; newest = 0; }
}, { passive: true });

// -- folders

const MOST_FOLDERS = 300; // in one list
const rowOf = new Map();

// Top folders, and those below the chosen one and its parents, each with all pictures below it.
function showFolders() {
  const counts = new Map();
  for (const { file } of Pictures.all) {
    for (let end = file.indexOf("/"); end >= 0; end = file.indexOf("/", end + 1)) {
      const folder = file.slice(0, end);
      counts.set(folder, (counts.get(folder) ?? 0) + 1);
    }
  }
  if (!counts.has(Filter.folder)) Filter.folder = "";
  const rows = [];
  const add = (parent, depth) => {
    const below = [...counts.keys()].filter(folder => folderOf(folder) === parent).sort(byName);
    for (const folder of below.slice(0, MOST_FOLDERS)) {
      rows.push(row(ownName(folder), counts.get(folder), { folder, depth }));
      if (`${Filter.folder}/`.startsWith(`${folder}/`)) add(folder, depth + 1);
    }
    const more = below.length - MOST_FOLDERS;
    if (more > 0) rows.push(element("li", `and ${more.toLocaleString()} more: search for their names`));
  };
  add("", 0);
  fill(part("views"), viewRows());
  fill(part("folders"), rows);
  part("folders-title").hidden = !rows.length;
}

// What else pictures are chosen by; only views that show any are there.
const VIEWS = {
  new: { words: "New since last time", holds: entry => Looked.isNew(entry) },
  sheets: { words: "Contact sheets", holds: entry => entry.sheet },
  kept: { words: "Kept", holds: entry => Marks.of(entry).flag === "keep" },
  rejected: { words: "Rejected", holds: entry => Marks.of(entry).flag === "reject" },
  undecided: { words: "Not decided", holds: entry => !Marks.of(entry).flag },
};
for (const stars of [5, 4, 3, 2, 1]) {
  VIEWS[`stars${stars}`] = { words: "★".repeat(stars), holds: entry => Marks.of(entry).stars === stars };
}

function viewRows() {
  const counts = Object.entries(VIEWS).map(([view, { holds }]) => [view, Pictures.all.filter(holds).length]);
  const some = counts.filter(([view, count]) => view === Filter.view
    || (count && (view !== "undecided" || count < Pictures.all.length)));
  return [row("All pictures", Pictures.all.length, {}),
    ...some.map(([view, count]) => row(VIEWS[view].words, count, { view }))];
}

function row(name, count, { folder = "", view = "", depth = 0 }) {
  const key = view ? `/${view}` : folder;
  if (!rowOf.has(key)) {
    const made = element("li");
    const choice = button(name, () => {
      Object.assign(Filter, { folder, view });
      showFolders();
      showAnew();
    });
    choice.dataset.folder = folder;
    choice.style.setProperty("--depth", depth);
    choice.append(element("small"));
    made.append(choice);
    rowOf.set(key, made);
  }
  const [choice] = rowOf.get(key).children;
  choice.ariaCurrent = Filter.folder === folder && Filter.view === view ? "true" : null;
  choice.lastChild.textContent = count.toLocaleString();
  return rowOf.get(key);
}

// -- search

const search = part("search");
search.oninput = () => {
  Filter.query = search.value;
  showAnew();
  say(part("count").textContent);
};
search.onkeydown = event => {
  if (event.key === "Escape" && search.value) {
    search.value = "";
    search.oninput();
    event.preventDefault();
  } else if ((event.key === "ArrowDown" || event.key === "Enter") && shownList.length) {
    event.preventDefault();
    Grid.goTo(shownList[0].file, { focus: true });
  }
};

// -- decisions

Marks.onchange = () => {
  fill(part("views"), viewRows());
  if (Filter.view || Filter.query) show();
  Selection.show();
  Large.tellMarks();
  Pair.tellMarks();
};

// -- dialogs, keys and addresses

const help = part("keys");
part("show-keys").onclick = () => help.showModal();
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", ({ target }) => {
    if (target === dialog || target.closest("[data-do=close]")) dialog.close();
  });
}

document.addEventListener("keydown", event => {
  const types = event.target.closest("input:not([type=range]), textarea, select");
  const open = document.querySelector("dialog[open]"), isText = event.target.closest("details, #empty");
  if (event.key === "a" && (event.ctrlKey || event.metaKey) && !(types || open || isText)) {
    event.preventDefault();
    Selection.add(shownList);
  }
  if (types || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "x" && (!open || open.id === "large")) Selection.compare();
  if (open) return;
  if (event.key === "e") Decisions.open();
  if (event.key === "Escape") Selection.clear();
  const selected = Selection.all();
  Decisions.key(event, selected.length ? selected : Grid.focused());
  if (event.key === "/") { event.preventDefault(); search.focus(); search.select(); }
  if (event.key === "?") help.showModal();
});

// An address with a picture behind "#" opens that once it is loaded. It may come from a bookmark, or
// from the history, by going forward.
let linked = "";
function readLink() {
  linked = linkedFile();
  closeAll();
  if (linked) history.replaceState({}, "", location.hash);
  openLinked();
}
function openLinked() {
  const entry = linked && Pictures.byFile.get(linked);
  if (!entry) return;
  linked = "";
  Large.open(entry);
}
addEventListener("popstate", readLink);
readLink();
News.ask();
