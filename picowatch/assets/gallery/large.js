"use strict";
// One picture, as large as the window, with zoom, its settings and its recipe.

const Large = (() => {
  const dialog = document.getElementById("large"), part = id => document.getElementById(id);
  const full = part("full"), stage = part("stage"), frame = part("frame"), level = part("zoom");
  const LARGEST = 5; // times its size, where a picture fills the window
  const self = { entry: null };

  self.open = entry => {
    if (!dialog.open) {
      self.entry = entry;
      fillWindow(dialog);
    } else if (self.entry === entry) {
      return;
    }
    show(entry);
    part("panel").focus({ preventScroll: true });
  };

  dialog.addEventListener("close", () => {
    if (dialog.open) return; // the next one was opened before the browser told of it
    leaveHistory();
    Grid.goTo(self.entry.file, { focus: true });
  });

  // More pictures came, or some went: the place in the list is another one.
  self.refresh = () => {
    if (!dialog.open) return;
    const { file } = self.entry;
    if (frame.hidden && Pictures.byFile.has(file)) showFile(); // its share was away
    else if (!mayBeThere(file)) showDeleted();
    tellPlace();
    tellStar();
  };

  function showFile() {
    frame.hidden = false;
    part("deleted").hidden = true;
    for (const [image, source] of [[part("small"), thumbnail(self.entry)], [full, address(self.entry.file)]]) {
      image.hidden = false;
      image.removeAttribute("src"); // what was shown before is another picture
      image.src = source;
    }
  }

  function showDeleted() {
    frame.hidden = true;
    part("deleted").hidden = false;
  }

  function show(entry) {
    self.entry = entry;
    last = { list: [], place: 0 };
    showFile();
    part("file").href = address(entry.file);
    full.alt = entry.prompt || entry.file;
    frame.querySelector("svg")?.remove();
    if (entry.boxes) frame.append(paper(entry, address(entry.file)));
    zoomTo(null);
    part("large-title").textContent = entry.prompt || entry.file;
    fillList(part("settings"), settingsOf(entry).filter(([name]) => name !== "prompt"));
    fillList(part("hashes"), [...Object.keys(entry).filter(isHash), ...LOCATIONS].filter(name => (entry[name] ?? "") !== "")
      .map(name => [name, String(entry[name])]));
    part("hashes").parentElement.hidden = Boolean(entry.sheet);
    part("yaml").textContent = entry.yaml ? shortRecipe(entry) : "";
    part("whole").textContent = entry.yaml || "";
    part("recipe").hidden = button("copy").hidden = button("recipe").hidden = !entry.yaml;
    showCells(entry);
    tellPicked();
    tellStar();
    tellPlace();
    part("panel").scrollTop = part("panel").parentElement.scrollTop = 0; // in a narrow window both scroll as one
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
    const place = shownList.indexOf(Pictures.byFile.get(self.entry.file));
    if (place >= 0) last = { list: shownList, place };
    part("place").textContent = place < 0 ? "" : `${place + 1} of ${shownList.length}`;
    for (const [name, by] of [["next", 1], ["previous", -1]]) {
      const other = near(by);
      disable(button(name), !other);
      if (other) new Image().src = address(other.file); // so that it is there when it is asked for
    }
  }

  // The next picture, or the one before, in the last list that this one was in.
  let last;
  function near(by) {
    let at = last.place + by;
    while (last.list[at] && !Pictures.byFile.has(last.list[at].file)) at += by;
    return last.list[at] && Pictures.byFile.get(last.list[at].file);
  }

  function disable(button, off) {
    if (off && button === document.activeElement) part("panel").focus({ preventScroll: true });
    button.disabled = off;
  }

  function tellPicked() {
    const picked = isPicked(self.entry.file);
    button("pick").ariaPressed = String(picked);
    button("pick").textContent = picked ? "Picked" : "Pick";
  }

  function tellStar() {
    const starred = Stars.has(self.entry.file);
    button("star").ariaPressed = String(starred);
    button("star").textContent = starred ? "★ Starred" : "☆ Star";
  }

  // -- zooming: `zoom` is screen pixels for each of the picture, null where it fills the window

  let zoom = null;

  const natural = () => full.naturalWidth
    ? [full.naturalWidth, full.naturalHeight] : [self.entry?.width || 512, self.entry?.height || 512];
  const fitting = () => {
    const [wide, high] = natural(), edges = 2 * parseFloat(getComputedStyle(stage).paddingLeft);
    return Math.min((stage.clientWidth - edges) / wide, (stage.clientHeight - edges) / high, LARGEST) * devicePixelRatio;
  };

  // Sets the size; the point of the picture under `at`, of the window, stays there.
  function zoomTo(next, at) {
    const before = frame.getBoundingClientRect(), [wide, high] = natural();
    zoom = next && Math.min(32, Math.max(0.05, next));
    const scale = (zoom ?? Math.max(0.01, fitting())) / devicePixelRatio;
    frame.style.width = `${wide * scale}px`;
    frame.style.height = `${high * scale}px`;
    stage.classList.toggle("zoomed", zoom !== null);
    full.classList.toggle("coarse", scale >= 4 && zoom !== null);
    level.textContent = `${Math.round(scale * devicePixelRatio * 100)} %`;
    button("fit").ariaPressed = String(zoom === null);
    button("one").ariaPressed = String(zoom === 1);
    if (!at || !before.width) return;
    const after = frame.getBoundingClientRect();
    stage.scrollLeft += after.left + (at.x - before.left) / before.width * after.width - at.x;
    stage.scrollTop += after.top + (at.y - before.top) / before.height * after.height - at.y;
  }
  const middle = () => {
    const rect = stage.getBoundingClientRect();
    return { x: rect.left + rect.width / 2, y: rect.top + rect.height / 2 };
  };
  const zoomBy = (factor, at = middle()) => zoomTo((zoom ?? fitting()) * factor, at);
  full.onload = () => { part("small").hidden = true; zoomTo(zoom); };
  new ResizeObserver(() => { if (dialog.open && self.entry && zoom === null) zoomTo(null); }).observe(stage);
  stage.addEventListener("wheel", event => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 500)), { x: event.clientX, y: event.clientY });
  }, { passive: false });
  stage.addEventListener("dblclick", event => {
    zoomTo(zoom === null ? 1 : null, { x: event.clientX, y: event.clientY });
  });
  let held = null; // where a mouse that moves the picture was last
  stage.addEventListener("pointerdown", event => {
    if (event.pointerType !== "mouse" || event.button || zoom === null || event.target.closest("button")) return;
    held = [event.clientX, event.clientY];
    stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", event => {
    if (!held) return;
    stage.scrollBy(held[0] - event.clientX, held[1] - event.clientY);
    held = [event.clientX, event.clientY];
  });
  stage.addEventListener("pointerup", () => { held = null; });

  function step(by) {
    const next = near(by);
    if (next) goTo(next);
  }

  function goTo(entry) {
    show(entry);
    enterHistory();
    say(`${part("place").textContent}: ${entry.prompt || entry.file}`);
  }

  const DO = {
    previous: () => step(-1),
    next: () => step(1),
    close: () => dialog.close(),
    pick: () => { pick(self.entry); tellPicked(); },
    star: () => Stars.toggle(self.entry),
    fit: () => zoomTo(null),
    one: () => zoomTo(1, middle()),
    larger: () => zoomBy(1.25),
    smaller: () => zoomBy(0.8),
    recipe: () => {
      const box = part("recipe");
      box.open = !box.open;
      if (box.open) box.scrollIntoView({ block: "nearest" });
    },
    copy: () => self.entry.yaml && copyText("copy", shortRecipe(self.entry), "The recipe is copied."),
    "copy-whole": () => copyText("copy-whole", self.entry.yaml, "The recipe is copied with every setting."),
    delete: () => {
      const entry = self.entry;
      askToDelete(entry, () => {
        if (dialog.open && self.entry.file === entry.file) leave();
      });
    },
  };

  async function copyText(name, text, words) {
    const made = button(name), was = made.dataset.words ??= made.textContent;
    await copy(text);
    made.textContent = "Copied";
    say(words);
    setTimeout(() => { made.textContent = was; }, 1500);
  }

  // Go on from a picture that was deleted: to the next one, or the one before.
  function leave() {
    const next = near(1) ?? near(-1);
    if (next) goTo(next); else dialog.close();
  }
  dialog.addEventListener("click", event => {
    const asked = event.target.closest("[data-do]");
    if (asked) DO[asked.dataset.do]();
  });
  dialog.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) return;
    const keys = {
      ArrowLeft: "previous", ArrowRight: "next", c: "pick", y: "copy", s: "star", r: "recipe", Delete: "delete",
      "+": "larger", "=": "larger", "-": "smaller", 0: "fit", 1: "one",
    };
    if (keys[event.key]) { event.preventDefault(); DO[keys[event.key]](); }
  });
  full.onerror = () => {
    showDeleted();
    drop(self.entry.file);
  };
  // A finger across the picture; down it scrolls, and what two fingers enlarged it moves.
  let touched = null;
  stage.addEventListener("touchstart", event => {
    touched = event.touches.length === 1 && zoom === null && visualViewport.scale < 1.01 ? event.touches[0] : null;
  }, { passive: true });
  stage.addEventListener("touchend", event => {
    if (!touched) return;
    const [end] = event.changedTouches, by = end.clientX - touched.clientX;
    if (Math.abs(by) > Math.max(60, 2 * Math.abs(end.clientY - touched.clientY))) step(by > 0 ? -1 : 1);
  });
  return self;
})();
