"use strict";
// What the page asks of picowatch: stars, and deleting a picture.
//
// A page from disk cannot write, unless the user lets it choose the outbox folder, which browsers
// built on Chromium offer. Then it puts command files into .picowatch/commands/, as `picowatch star`
// does. Elsewhere it shows that command to copy. Stars hold at once in this browser, and are kept
// in the outbox as soon as picowatch has them.

const kept = action => { try { return action(); } catch { return null; } };
function here() {
  const path = location.pathname.slice(0, location.pathname.lastIndexOf("/"));
  return kept(() => decodeURIComponent(path)) ?? path; // names need not be UTF-8
}
// A page from a web server does not know where the outbox is.
const outboxFolder = () => location.protocol === "file:" ? here() : "outbox";
const quoted = text => /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

function notice(text) {
  const box = document.getElementById("notice");
  say(text);
  box.textContent = text;
  box.togglePopover(false);
  box.togglePopover(true); // above every dialog that is open now
  clearTimeout(notice.ends);
  notice.ends = setTimeout(() => { box.togglePopover(false); }, 8000);
}

const Outbox = (() => {
  const POLL = 250, PATIENCE = 20000, SAVED_AS = "picowatch"; // milliseconds; a database's name
  const self = { canConnect: "showDirectoryPicker" in window };
  let folder = null, asked = null; // the outbox's folder, once the user chose it
  let count = 0;

  // The folder of an earlier visit; the browser asks the user once more.
  function database() {
    return new Promise((resolve, reject) => {
      const opening = indexedDB.open(SAVED_AS, 1);
      opening.onupgradeneeded = () => opening.result.createObjectStore("folders");
      opening.onsuccess = () => resolve(opening.result);
      opening.onerror = () => reject(opening.error);
    });
  }
  async function stored(mode, action) {
    const store = (await database()).transaction("folders", mode).objectStore("folders");
    return new Promise((resolve, reject) => {
      const request = action(store);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }
  if (self.canConnect) {
    stored("readonly", store => store.get(here())).then(found => { asked = found ?? null; }, () => {});
  }

  // Whether commands can be sent without choosing the folder again. Call it in answer to a click.
  self.isConnected = async () => {
    if (folder || !asked) return Boolean(folder);
    const may = { mode: "readwrite" };
    try {
      const granted = await asked.queryPermission(may) === "granted" || await asked.requestPermission(may) === "granted";
      // Another outbox may have this address by now.
      if (granted && await isOurs(asked)) folder = asked;
    } catch { /* it is chosen again */ }
    return Boolean(folder);
  };

  // Let the user choose the outbox; null if that worked, else a sentence that says why not.
  self.connect = async () => {
    let chosen;
    try {
      chosen = await showDirectoryPicker({ id: "picowatch", mode: "readwrite" });
    } catch (error) {
      return error.name === "AbortError" ? "No folder was chosen." : `The browser refused: ${error.message}`;
    }
    if (!await isOurs(chosen)) return `That is another folder. This gallery's is ${outboxFolder()}`;
    folder = chosen;
    stored("readwrite", store => store.put(chosen, here())).catch(() => {});
    return null;
  };

  async function isOurs(chosen) {
    try {
      const state = await chosen.getDirectoryHandle(".picowatch");
      const data = await state.getDirectoryHandle("gallery");
      const index = await (await (await data.getFileHandle("pages.js")).getFile()).text();
      await state.getDirectoryHandle("commands");
      return index.includes(`"edition": "${told.edition}"`);
    } catch {
      return false;
    }
  }

  // Send a command; gives the daemon's answer, or null where none comes.
  self.send = async (command, files) => {
    const state = await folder.getDirectoryHandle(".picowatch");
    const commands = await state.getDirectoryHandle("commands");
    const name = `${Date.now()}000000-gallery${++count}`;
    const file = await commands.getFileHandle(`${name}.json`, { create: true });
    const stream = await file.createWritable(); // the file is replaced when it is closed
    await stream.write(JSON.stringify({ command, files }));
    await stream.close();
    for (let waited = 0; News.runs && waited < PATIENCE; waited += POLL) {
      await new Promise(resolve => { setTimeout(resolve, POLL); });
      try {
        const answer = await (await (await commands.getFileHandle(`${name}.answer`)).getFile()).text();
        await commands.removeEntry(`${name}.answer`);
        return JSON.parse(answer);
      } catch { /* not yet */ }
    }
    return null;
  };

  // The same in a terminal.
  self.line = (command, files) => {
    const outbox = location.protocol === "file:" ? ["--outbox", here()] : [];
    const end = files.some(file => file.startsWith("-")) ? ["--"] : []; // they are no flags
    return ["picowatch", command, ...outbox, ...end, ...files].map(quoted).join(" ");
  };
  return self;
})();

// A question before something is sent: whether, and, where this page cannot write, how.
const Ask = (() => {
  const dialog = document.getElementById("ask"), part = id => document.getElementById(`ask-${id}`);
  let asked = null;

  async function open(question) {
    asked = question;
    const connected = await Outbox.isConnected();
    part("title").textContent = question.title;
    part("text").textContent = question.text;
    part("picture").hidden = !question.entry;
    if (question.entry) part("picture").src = thumbnail(question.entry);
    part("how").hidden = connected;
    part("folder").textContent = outboxFolder();
    part("choosing").hidden = !Outbox.canConnect;
    part("lines").textContent = question.lines.map(line => Outbox.line(...line)).join("\n");
    part("error").textContent = "";
    part("do").textContent = connected ? question.verb : "Choose the folder…";
    part("do").hidden = !connected && !Outbox.canConnect;
    dialog.classList.toggle("grave", Boolean(question.grave && connected));
    if (!dialog.open) dialog.showModal();
    part("cancel").focus();
  }

  part("do").onclick = async () => {
    if (!await Outbox.isConnected()) {
      const failed = await Outbox.connect();
      part("error").textContent = failed ?? "";
      // Nothing grave happens by choosing a folder: the question is asked again.
      if (failed) return;
      if (asked.grave) return open(asked);
    }
    dialog.close();
    send(asked);
  };
  part("copy").onclick = async () => {
    await copy(part("lines").textContent);
    notice("The command is copied. Run it in a terminal.");
    dialog.close();
  };
  part("cancel").onclick = () => dialog.close();

  async function send({ lines, ondone, quiet }) {
    try {
      for (const [command, files] of lines) {
        const answer = await Outbox.send(command, files);
        if (!quiet || !answer?.done) notice(answer?.text ?? (News.runs
          ? "picowatch has not answered yet: it is done as soon as it can." : "picowatch is not running: it is done at its next start."));
        if (answer?.done) ondone?.(command, files);
      }
    } catch (error) {
      notice(`The command could not be written: ${error.message}`);
    }
  }

  return { open, send };
})();

const Stars = (() => {
  const KEPT = `picowatch stars ${here()}`, SOON = 600; // milliseconds
  const self = { onchange: () => {} };
  let known = new Set(), isKnown = false, version = "", listed = [];
  let answers = 0; // of picowatch, to stars that were sent
  // What the user changed and picowatch does not know yet: true or false, by file.
  const changed = new Map();
  // Other tabs write there, too.
  function recall() {
    const found = kept(() => JSON.parse(localStorage.getItem(KEPT)));
    if (!found) return;
    changed.clear();
    for (const [file, starred] of Object.entries(found)) changed.set(file, starred);
  }
  recall();
  addEventListener("storage", event => {
    if (event.key !== KEPT) return;
    recall();
    tellUnkept();
    self.onchange();
  });

  self.has = file => changed.get(file) ?? known.has(file);
  self.count = () => Pictures.all.filter(entry => self.has(entry.file)).length;

  const keep = () => kept(() => localStorage.setItem(KEPT, JSON.stringify(Object.fromEntries(changed))));

  // Called by pages.js: stars.js is loaded where it says something new. One that an answer overtook
  // is older than the answer, and is loaded again.
  self.look = next => {
    if (next === version) return;
    version = next;
    isKnown = false;
    const before = answers;
    load("stars.js", isWhole => {
      if (!isWhole || before !== answers) { version = ""; return; }
      known = new Set(listed);
      isKnown = true;
      settle();
      self.onchange();
    });
  };

  // Called by stars.js.
  globalThis.stars = files => { listed = files; };

  // picowatch has them, and stars.js says so by now.
  function arrived(command, files) {
    answers++;
    isKnown = true;
    for (const file of files) {
      const starred = command === "star";
      starred ? known.add(file) : known.delete(file);
      if (changed.get(file) === starred) changed.delete(file);
    }
    keep();
  }

  // What picowatch knows by now, or what was deleted, is no change any more. While commands are
  // sent it is not known which of two changes in a row picowatch has; nor is it known before
  // the newest list of stars is here.
  function settle() {
    recall();
    for (const [file, starred] of changed) {
      if ((isKnown && known.has(file) === starred && !timer && !isSending) || !mayBeThere(file)) changed.delete(file);
    }
    keep();
    tellUnkept();
  }
  self.settle = settle;

  function tellUnkept() {
    const unkept = document.getElementById("unkept");
    unkept.hidden = !changed.size || Boolean(timer) || isSending;
    document.getElementById("unkept-count").textContent =
      `${changed.size === 1 ? "1 star is" : `${changed.size} stars are`} changed in this browser only.`;
  }

  self.toggle = async entry => {
    const starred = !self.has(entry.file);
    recall();
    changed.set(entry.file, starred);
    keep();
    say(starred ? "Starred" : "Star removed");
    if (await Outbox.isConnected()) soon();
    settle();
    self.onchange();
  };

  const AT_ONCE = 100; // pictures in a command, whose file may have 100 kB
  const inParts = files => Array.from({ length: Math.ceil(files.length / AT_ONCE) },
    (_, part) => files.slice(part * AT_ONCE, (part + 1) * AT_ONCE));
  const linesOf = () => [["star", true], ["unstar", false]].flatMap(([command, starred]) =>
    inParts([...changed].filter(([, one]) => one === starred).map(([file]) => file))
      .map(files => [command, files]));

  let timer = 0, isSending = false;
  function soon() {
    clearTimeout(timer);
    if (!isSending) timer = setTimeout(send, SOON);
  }

  async function send() {
    recall();
    const lines = linesOf();
    timer = 0;
    isSending = true;
    await Ask.send({ lines, quiet: true, ondone: arrived });
    isSending = false;
    recall();
    // What the user changed meanwhile; what was not answered is not sent again by itself.
    const left = linesOf();
    if (left.length && JSON.stringify(left) !== JSON.stringify(lines)) soon();
    settle();
  }

  document.getElementById("keep").onclick = () => Ask.open({
    title: "Keep the stars in the outbox",
    text: "So that other browsers, scripts and the next visit know them.",
    verb: "Keep them",
    lines: linesOf(),
    ondone: (command, files) => { arrived(command, files); settle(); },
  });
  return self;
})();

function askToDelete(entry, ondone) {
  Ask.open({
    title: entry.sheet ? "Delete this contact sheet?" : "Delete this picture?",
    text: `${entry.file} is deleted from the outbox for good. It is not rendered again, unless its recipe is saved again with the same seed.`,
    verb: "Delete",
    grave: true,
    entry,
    lines: [["delete", [entry.file]]],
    ondone: () => { drop(entry.file); ondone(); },
  });
}
