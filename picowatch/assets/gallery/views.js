"use strict";
// The large view, and two pictures side by side.

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

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Some browsers give pages from disk no clipboard; the old way needs a selection.
    const area = element("textarea", text);
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

function fillList(list, settings) {
  list.replaceChildren(...settings.flatMap(([name, text]) => [element("dt", name), element("dd", text)]));
}

const Large = (() => {
  const dialog = document.getElementById("large"), part = id => document.getElementById(id);
  const full = part("full"), stage = part("stage");
  const self = { entry: null, list: () => [], onpick: () => {}, isPicked: () => false, onclose: () => {} };

  self.open = entry => {
    show(entry);
    if (dialog.open) return;
    if (!leaving) enter();
    dialog.showModal();
    part("panel").focus({ preventScroll: true });
  };

  // The large view has an entry in the history, so that going back closes it, as phones do.
  history.scrollRestoration = "manual"; // the grid knows better where the user is
  let leaving = false; // the way back to the entry before is not done yet
  const link = () => `#${address(self.entry.file)}`;
  const isEntered = () => Boolean(history.state && history.state.large);
  const enter = () => history.pushState({ large: true }, "", link());
  addEventListener("popstate", () => {
    if (leaving) {
      leaving = false;
      if (dialog.open) enter();
    } else if (dialog.open && !isEntered()) {
      dialog.close();
    }
  });
  dialog.addEventListener("close", () => {
    if (isEntered() && !leaving) { leaving = true; history.back(); }
    self.onclose(self.entry);
  });

  // More pictures came, or some went: the place in the list is another one.
  self.refresh = () => { if (dialog.open) tellPlace(); };

  function show(entry) {
    self.entry = entry;
    part("deleted").hidden = true;
    full.hidden = false;
    full.style.setProperty("--wide", entry.width || 512);
    full.style.setProperty("--high", entry.height || 512);
    full.src = stage.href = address(entry.file);
    full.alt = entry.prompt || entry.file;
    stage.ariaLabel = "Open the picture's file";
    part("large-title").textContent = entry.prompt || entry.file;
    fillList(part("settings"), settingsOf(entry).filter(([name]) => name !== "prompt"));
    fillList(part("hashes"), [...HASHES].filter(name => (entry[name] ?? "") !== "")
      .map(name => [name, String(entry[name])]));
    part("hashes").parentElement.hidden = Boolean(entry.sheet);
    part("yaml").textContent = entry.yaml || "";
    part("recipe").hidden = button("copy").hidden = !entry.yaml;
    showCells(entry);
    tellPicked();
    tellPlace();
    part("panel").scrollTop = 0;
  }

  // Of a contact sheet its pictures, of a picture the sheet that it is on.
  function showCells(entry) {
    const cells = part("cells");
    const found = entry.sheet
      ? entry.cells.map(file => Pictures.byFile.get(file)).filter(Boolean)
      : Pictures.all.filter(other => other.sheet && other.cells.includes(entry.file));
    cells.hidden = !found.length;
    cells.replaceChildren(...found.map(other => {
      const made = element("button"), image = element("img");
      made.type = "button";
      made.ariaLabel = `${other.sheet ? "Its contact sheet" : "Large view of"} ${other.file}`;
      made.title = other.file;
      image.src = thumbnail(other);
      image.alt = "";
      made.append(image);
      made.onclick = () => { goTo(other); part("panel").focus({ preventScroll: true }); };
      return made;
    }));
  }

  const button = name => dialog.querySelector(`[data-do="${name}"]`);

  function tellPlace() {
    const list = self.list(), place = list.indexOf(Pictures.byFile.get(self.entry.file));
    part("place").textContent = place < 0 ? "" : `${place + 1} of ${list.length}`;
    disable(button("previous"), place <= 0);
    disable(button("next"), place < 0 || place === list.length - 1);
    for (const other of [list[place + 1], list[place - 1]]) {
      if (other) new Image().src = address(other.file); // so that it is there when it is asked for
    }
  }

  function disable(button, off) {
    if (off && button === document.activeElement) part("panel").focus({ preventScroll: true });
    button.disabled = off;
  }

  function tellPicked() {
    const picked = self.isPicked(self.entry.file);
    button("pick").ariaPressed = String(picked);
    button("pick").textContent = picked ? "Picked" : "Pick to compare";
  }

  function step(by) {
    const list = self.list(), place = list.indexOf(Pictures.byFile.get(self.entry.file));
    if (place >= 0 && list[place + by]) goTo(list[place + by]);
  }

  function goTo(entry) {
    show(entry);
    if (!leaving) history.replaceState({ large: true }, "", link());
    say(`${part("place").textContent}: ${entry.prompt || entry.file}`);
  }

  const DO = {
    previous: () => step(-1),
    next: () => step(1),
    close: () => dialog.close(),
    pick: () => { self.onpick(self.entry); tellPicked(); },
    copy: async () => {
      if (!self.entry.yaml) return;
      await copy(self.entry.yaml);
      button("copy").textContent = "Copied";
      say("The recipe is copied.");
      setTimeout(() => { button("copy").textContent = "Copy recipe"; }, 1500);
    },
  };
  dialog.addEventListener("click", event => {
    const asked = event.target.closest("[data-do]");
    if (asked) DO[asked.dataset.do]();
  });
  dialog.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = { ArrowLeft: "previous", ArrowRight: "next", c: "pick", y: "copy" };
    if (keys[event.key]) { event.preventDefault(); DO[keys[event.key]](); }
  });
  full.onerror = () => {
    full.hidden = true;
    part("deleted").hidden = false;
    drop(self.entry.file);
  };
  let touchedAt = null;
  stage.addEventListener("touchstart", event => {
    touchedAt = event.touches.length === 1 ? event.touches[0].clientX : null;
  }, { passive: true });
  stage.addEventListener("touchend", event => {
    const by = touchedAt === null ? 0 : event.changedTouches[0].clientX - touchedAt;
    if (Math.abs(by) > 60) step(by > 0 ? -1 : 1);
  });
  return self;
})();

const Pair = (() => {
  const dialog = document.getElementById("pair"), table = document.getElementById("table");
  const only = document.getElementById("only-different");
  const self = { list: () => [], onclose: () => {} };
  let left, right;

  self.open = (one, other) => {
    [left, right] = [one, other];
    show();
    if (!dialog.open) dialog.showModal();
  };

  function show() {
    document.getElementById("both").replaceChildren(...[left, right].map(figure));
    table.replaceChildren(tableOf());
    table.classList.toggle("only", only.checked);
  }

  function figure(entry) {
    const made = element("figure"), image = element("img");
    image.src = address(entry.file);
    image.alt = entry.prompt || entry.file;
    image.style.setProperty("--wide", entry.width || 512);
    image.style.setProperty("--high", entry.height || 512);
    made.append(image, element("figcaption", entry.file));
    return made;
  }

  function tableOf() {
    const one = new Map(settingsOf(left)), other = new Map(settingsOf(right));
    const made = element("table"), body = element("tbody");
    made.ariaLabel = "Settings of both pictures; rows that differ are marked";
    let different = 0;
    for (const name of new Set([...one.keys(), ...other.keys()])) {
      const texts = [one.get(name) ?? "", other.get(name) ?? ""], row = element("tr");
      const heading = element("th", name);
      heading.scope = "row";
      row.append(heading);
      if (texts[0] === texts[1]) {
        row.append(element("td", texts[0]), element("td", texts[1]));
      } else {
        different++;
        row.className = "different";
        heading.append(element("span", " differs", "unseen"));
        row.append(...words(texts[0], texts[1]));
      }
      body.append(row);
    }
    made.append(body);
    document.getElementById("pair-title").textContent = `Compare: ${different} of ${body.rows.length} differ`;
    return made;
  }

  // Two cells in which the words are marked that the other one has not, in their order.
  function words(one, other) {
    const a = one.match(/\s+|[^\s,]+|,/g) || [], b = other.match(/\s+|[^\s,]+|,/g) || [];
    const cells = [element("td"), element("td")];
    if (a.length * b.length > 250000) return [element("td", one), element("td", other)];
    // The longest common subsequence: `length[i][j]` of a from i and b from j.
    const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
      }
    }
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) { cells[0].append(a[i++]); cells[1].append(b[j++]); }
      else if (j === b.length || (i < a.length && length[i + 1][j] >= length[i][j + 1])) cells[0].append(element("mark", a[i++]));
      else cells[1].append(element("mark", b[j++]));
    }
    return cells;
  }

  function step(by) {
    const list = self.list(), place = list.indexOf(Pictures.byFile.get(right.file));
    if (place < 0 || !list[place + by]) return;
    right = list[place + by];
    show();
    say(`Compared with ${right.prompt || right.file}`);
  }

  dialog.addEventListener("click", event => {
    const asked = event.target.closest("[data-do]");
    if (!asked) return;
    if (asked.dataset.do === "close") return dialog.close();
    [left, right] = [right, left];
    show();
  });
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  });
  dialog.addEventListener("close", () => self.onclose());
  only.onchange = show;
  return self;
})();
