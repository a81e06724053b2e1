"use strict";
// Selecting pictures, deciding about them, and the command that carries that out.

const Selection = (() => {
  const selected = new Map(); // entries by file, in the order in which they were selected
  const SHOWN = 4; // in the tray; as many are compared at most
  const self = { has: entry => selected.has(entry.file), all: () => [...selected.values()] };
  let anchor = ""; // the file from which Shift selects

  self.toggle = entry => {
    if (!selected.delete(entry.file)) selected.set(entry.file, entry);
    anchor = entry.file;
    tell();
  };

  // Select everything from the last selected picture to this one.
  self.extend = entry => {
    const [from, to] = [anchor, entry.file].map(file => shownList.findIndex(other => other.file === file));
    if (from < 0) return self.toggle(entry);
    self.add(shownList.slice(Math.min(from, to), Math.max(from, to) + 1));
  };

  self.add = entries => {
    for (const entry of entries) selected.set(entry.file, entry);
    tell();
  };

  self.clear = () => {
    if (!selected.size) return;
    selected.clear();
    anchor = "";
    tell();
  };

  // Pictures were added or deleted.
  self.refresh = () => {
    for (const file of [...selected.keys()]) {
      const entry = Pictures.byFile.get(file);
      if (entry) selected.set(file, entry); else selected.delete(file);
    }
    self.show();
  };

  function tell() {
    const count = selected.size;
    say(count === 1 ? "1 selected" : `${count.toLocaleString()} selected${canCompare() ? "; x compares them" : ""}`);
    self.show();
  }
  const canCompare = () => selected.size >= 2 && selected.size <= SHOWN;

  self.show = () => {
    const count = selected.size, decided = Decisions.words();
    part("tray").hidden = !count && !decided;
    part("picked").replaceChildren(...[...selected.values()].slice(0, SHOWN).map(entry => {
      const image = element("img");
      image.src = thumbnail(entry);
      image.alt = titleOf(entry);
      return image;
    }));
    part("tray-words").textContent = count ? `${count.toLocaleString()} selected` : decided;
    for (const id of ["compare", "unpick", "keep", "reject"]) part(id).hidden = !count;
    part("compare").disabled = !canCompare();
    Grid.markTiles();
  };

  self.compare = () => { if (canCompare()) Pair.open(self.all()); };
  part("compare").onclick = self.compare;
  part("unpick").onclick = self.clear;
  for (const flag of ["keep", "reject"]) part(flag).onclick = () => Decisions.decide(self.all(), { flag });
  return self;
})();

const Decisions = (() => {
  const self = {};
  const are = flag => Pictures.all.filter(entry => Marks.of(entry).flag === flag);

  self.words = () => [[are("keep"), "kept"], [are("reject"), "rejected"]]
    .filter(([some]) => some.length).map(([some, word]) => `${some.length.toLocaleString()} ${word}`).join(", ");

  const KEYS = { k: { flag: "keep" }, r: { flag: "reject" }, u: { flag: "" }, 0: { stars: 0 } };
  for (const stars of [1, 2, 3, 4, 5]) KEYS[stars] = { stars };

  // Decide by a key; returns whether it was one of these.
  self.key = (event, entries) => {
    const change = KEYS[event.key];
    if (!change || !entries.length || event.ctrlKey || event.metaKey || event.altKey) return false;
    event.preventDefault();
    self.decide(entries, change);
    return true;
  };

  self.decide = (entries, change) => {
    const { flag, stars } = Marks.set(entries, change);
    const words = stars === undefined ? { keep: "kept", reject: "rejected" }[flag] ?? "not decided"
      : stars === 1 ? "1 star" : `${stars || "no"} stars`;
    say(entries.length === 1 ? words : `${entries.length.toLocaleString()} pictures: ${words}`);
  };

  // -- the command

  const dialog = part("commands"), which = part("which"), what = part("what"), into = part("into");
  const WHICH = {
    selected: { find: Selection.all, what: "move" },
    rejected: { find: () => are("reject"), what: "delete" },
    kept: { find: () => are("keep"), what: "move" },
    shown: { find: () => shownList, what: "move" },
  };
  let found = {}, command = ""; // the pictures of each, as they were counted; what is shown and copied
  const WHAT = {
    delete: entries => listCommand(["delete"], filesOf(entries)),
    move: entries => listCommand(["keep"], filesOf(entries), [into.value.trim()]),
    copy: entries => listCommand(["keep", "--copy"], filesOf(entries), [into.value.trim()]),
    retry: entries => listCommand(["retry", "--all"], [...new Set(entries.map(({ recipe }) => recipe))]),
    reseed: reseedCommand,
  };
  const filesOf = entries => entries.map(({ file }) => file);

  // A recipe of all pictures, with new seeds, in the folder in which their start images are found.
  // `make` may render it itself: with the models and settings of the picowatch that was here last.
  function reseedCommand(entries) {
    const folders = new Map();
    for (const entry of entries.filter(({ yaml }) => yaml)) {
      const folder = photoOf(entry) ? "" : folderOf(entry.recipe);
      folders.set(folder, [...folders.get(folder) ?? [], entry]);
    }
    const time = new Date().toISOString().replace(/\D/g, "").slice(0, 14);
    return [...folders].map(([folder, its]) => {
      const name = `${folder && `${folder}/`}again-${time}`;
      const make = ["picowatch", "make", ...outboxFlag(), ...News.flags, `--name=${name}`, "-"].map(quoted).join(" ");
      return listCommand(["show", "--new-seed", ...News.flags], filesOf(its), [], ` | ${make}`);
    }).join("\n");
  }

  function showCommand() {
    const entries = found[which.value];
    command = entries.length ? WHAT[what.value](entries) : "";
    const lines = command.split("\n");
    const most = 12, more = lines.length - most;
    part("into-folder").hidden = !["move", "copy"].includes(what.value);
    part("command").textContent = lines.slice(0, most).join("\n") + (more > 0 ? `\n… and ${more.toLocaleString()} more lines` : "");
    part("copy-command").disabled = !command || (!part("into-folder").hidden && !into.value.trim());
  }

  self.open = () => {
    found = Object.fromEntries(Object.entries(WHICH).map(([name, { find }]) => [name, find()]));
    which.replaceChildren(...Object.entries(found).map(([name, { length }]) => {
      const option = new Option(`${length.toLocaleString()} ${name}`, name);
      option.disabled = !length;
      return option;
    }));
    which.value = Object.keys(found).find(name => found[name].length) ?? "shown";
    what.value = WHICH[which.value].what;
    showCommand();
    dialog.showModal();
  };
  which.onchange = () => { what.value = WHICH[which.value].what; showCommand(); };
  what.onchange = into.oninput = showCommand;
  part("open-commands").onclick = self.open;
  part("copy-command").onclick = () => copy(command, "The command is copied. Run it in a terminal.");
  return self;
})();
