"use strict";
// The large view: one picture, as large as the window, with its settings and its recipe.

const Large = (() => {
  const dialog = part("large");
  const full = part("full"), small = part("small"), stage = part("stage"), frame = part("frame");
  const button = name => dialog.querySelector(`[data-do="${name}"]`);
  const self = { entry: null };
  let place = 0; // of the picture in the shown list, also after it has left the list

  self.open = entry => {
    const isNew = !dialog.open || self.entry !== entry;
    self.entry = entry;
    fillWindow(dialog, `#${address(entry.file)}`);
    if (!isNew) return;
    show();
    part("panel").focus({ preventScroll: true });
  };

  dialog.addEventListener("close", () => {
    if (dialog.open) return; // the next one was opened before this event came
    leaveWindow();
    Grid.goTo(self.entry.file, { focus: true });
  });

  function show() {
    const { entry } = self, settings = settingsOf(entry).filter(([name]) => name !== "prompt");
    showFile();
    part("large-title").textContent = titleOf(entry);
    listSettings(part("settings"), settings);
    listSettings(part("hashes"), hashesOf(entry));
    part("hashes").parentElement.hidden = Boolean(entry.sheet);
    part("yaml").textContent = entry.yaml ?? "";
    part("recipe").hidden = button("recipe").hidden = !entry.yaml;
    showRelated(entry);
    self.tellMarks();
    self.refresh();
    self.findBefore();
    part("panel").scrollTop = part("panel").parentElement.scrollTop = 0; // in a narrow window the parent scrolls
  }

  // Show the thumbnail until the picture is loaded, as the previous one is another picture.
  function showFile() {
    const { entry } = self, file = address(entry.file);
    release();
    frame.hidden = false;
    part("deleted").hidden = true;
    for (const [image, source] of [[small, thumbnail(entry)], [full, shownFile(entry)]]) {
      image.hidden = false;
      image.removeAttribute("src");
      image.src = source;
    }
    full.alt = titleOf(entry);
    part("file").href = file;
    zoomTo(null);
  }

  function showDeleted() {
    frame.hidden = true;
    part("deleted").hidden = false;
  }
  full.onerror = showDeleted;

  // Pictures were added or deleted.
  self.refresh = () => {
    if (!dialog.open) return;
    const { file } = self.entry, now = Pictures.byFile.get(file);
    if (now && now !== self.entry) { // drawn again, or restored
      const shows = isSame(now, self.entry) && part("deleted").hidden;
      self.entry = now;
      if (!shows) return show();
    }
    const found = shownList.findIndex(entry => entry.file === file);
    if (Pictures.loaded && !now) showDeleted();
    if (found >= 0) place = found;
    part("place").textContent = found < 0 ? "" : `${place + 1} of ${shownList.length.toLocaleString()}`;
    for (const [name, by] of [["next", 1], ["previous", -1]]) {
      const other = near(by), made = button(name);
      if (!other && made === document.activeElement) part("panel").focus({ preventScroll: true });
      made.disabled = !other;
      if (other) new Image().src = shownFile(other); // loaded in advance
    }
  };

  // Go to the next or previous picture. If this one has left the list, the next one has its place.
  function near(by) {
    const isListed = shownList[place]?.file === self.entry.file;
    return shownList[isListed || by < 0 ? place + by : place];
  }

  function step(by) {
    const next = near(by);
    if (!next) return;
    self.open(next);
    say(`${part("place").textContent}: ${titleOf(next)}`);
  }

  // For a contact sheet, show its pictures; for a picture, the sheets that it is on.
  function showRelated(entry) {
    // A picture that was moved more than once has its recipe and its own name still.
    const isOn = (sheet, file, made) => file && !made.sheet && ([made.file, made.moved].includes(file)
      || (made.recipe === sheet.recipe && ownName(made.file) === ownName(file)));
    const found = entry.sheet
      ? entry.cells.map(file => Pictures.byFile.get(file) ?? Pictures.all.find(other => isOn(entry, file, other))).filter(Boolean)
      : Pictures.all.filter(other => other.sheet && other.cells.some(file => isOn(other, file, entry)));
    part("cells").hidden = !found.length;
    part("cells").replaceChildren(...found.map(other => {
      const made = element("button"), image = element("img");
      made.type = "button";
      made.ariaLabel = `${other.sheet ? "Its contact sheet" : "Large view of"} ${other.file}`;
      made.title = other.file;
      made.onclick = () => self.open(other);
      image.src = thumbnail(other);
      image.alt = "";
      made.append(image);
      return made;
    }));
  }

  self.tellMarks = () => {
    if (!self.entry) return;
    const is = Selection.has(self.entry), { flag, stars } = Marks.of(self.entry);
    button("pick").ariaPressed = String(is);
    button("pick").textContent = is ? "Selected" : "Select";
    for (const choice of ["keep", "reject"]) button(choice).ariaPressed = String(flag === choice);
    part("stars").textContent = "★".repeat(stars);
    part("stars").ariaLabel = stars ? `${stars} of 5 stars` : "No stars";
  };

  // -- before and after: the picture that this one was made from, if it still exists

  const original = part("before"), left = part("left"), BESIDE = "picowatch before";
  let places = [], isFound = false, isBeside = kept(() => localStorage.getItem(BESIDE)) !== "no";

  // Until it is known, the previous one's space stays, so that nothing jumps.
  self.findBefore = () => {
    if (!dialog.open) return;
    places = originalsOf(self.entry);
    original.removeAttribute("src");
    tryNextPlace();
  };
  function tryNextPlace() {
    if (places.length) original.src = places.shift(); else showBefore(false);
  }
  original.onerror = tryNextPlace;
  original.onload = () => showBefore(true);

  function showBefore(found) {
    isFound = found;
    button("before").hidden = !found;
    button("before").ariaPressed = String(isBeside);
    left.hidden = !(found && isBeside);
    part("sides").classList.toggle("pair", !left.hidden);
    zoomTo(zoom);
  }
  function toggleBefore() {
    if (!isFound) return;
    isBeside = !isBeside;
    kept(() => localStorage.setItem(BESIDE, isBeside ? "yes" : "no"));
    showBefore(true);
  }
  for (const [side, other] of [[stage, left], [left, stage]]) {
    side.addEventListener("scroll", () => other.scrollTo(side.scrollLeft, side.scrollTop));
  }

  // Press and hold the picture to see the original in its place.
  const HOLD = 300, STILL = 8; // milliseconds; pixels that a finger may move
  let holding = 0, from = null;

  stage.addEventListener("pointerdown", event => {
    if (!isFound || event.button || !event.isPrimary) return;
    from = event;
    holding = setTimeout(() => {
      touched = null; // it is no swipe
      small.src = original.src;
      small.hidden = false;
      part("sides").classList.add("held");
    }, HOLD);
  });
  stage.addEventListener("pointermove", event => {
    if (from && Math.hypot(event.x - from.x, event.y - from.y) > STILL) clearTimeout(holding);
  });
  const isHeld = () => part("sides").classList.contains("held");
  stage.addEventListener("contextmenu", event => { if (isHeld()) event.preventDefault(); });
  function release() {
    clearTimeout(holding);
    if (!isHeld()) return;
    part("sides").classList.remove("held");
    small.hidden = full.complete;
  }
  for (const end of ["pointerup", "pointercancel", "pointerleave"]) stage.addEventListener(end, release);

  // -- zooming: `zoom` is screen pixels per picture pixel, null if the picture fills the window

  const LARGEST_FIT = 5; // the largest magnification of a picture that fills the window
  let zoom = null;

  const natural = () => full.naturalWidth
    ? [full.naturalWidth, full.naturalHeight] : sidesOf(self.entry ?? {}).map(side => side || 512);
  const fitting = () => {
    const [wide, high] = natural(), edges = 2 * parseFloat(getComputedStyle(stage).paddingLeft);
    const fit = Math.min((stage.clientWidth - edges) / wide, (stage.clientHeight - edges) / high);
    return Math.max(0.01, Math.min(fit, LARGEST_FIT)) * devicePixelRatio;
  };

  // Set the size; the point of the picture at the window's point `at` stays there.
  function zoomTo(next, at) {
    const before = frame.getBoundingClientRect(), [wide, high] = natural();
    zoom = next && Math.min(32, Math.max(0.05, next));
    const shown = zoom ?? fitting(), scale = shown / devicePixelRatio;
    for (const { style } of [frame, original]) [style.width, style.height] = [`${wide * scale}px`, `${high * scale}px`];
    stage.classList.toggle("zoomed", zoom !== null);
    full.classList.toggle("coarse", zoom !== null && scale >= 4);
    part("zoom").textContent = `${Math.round(shown * 100)} %`;
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

  full.onload = () => { small.hidden = true; zoomTo(zoom); };
  new ResizeObserver(() => { if (dialog.open && zoom === null) zoomTo(null); }).observe(stage);
  stage.addEventListener("wheel", event => {
    event.preventDefault();
    zoomBy(Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 500)), event);
  }, { passive: false });
  left.addEventListener("wheel", event => zoomBy(Math.exp(-event.deltaY / 500)), { passive: true });
  stage.addEventListener("dblclick", event => zoomTo(zoom === null ? 1 : null, event));

  // A mouse moves a zoomed picture.
  stage.addEventListener("pointerdown", event => {
    if (event.pointerType === "mouse" && !event.button && zoom !== null) stage.setPointerCapture(event.pointerId);
  });
  stage.addEventListener("pointermove", event => {
    if (stage.hasPointerCapture(event.pointerId)) stage.scrollBy(-event.movementX, -event.movementY);
  });

  // A horizontal swipe goes to the next picture; a vertical one scrolls; a zoomed picture is moved.
  let touched = null;
  stage.addEventListener("touchstart", event => {
    touched = event.touches.length === 1 && zoom === null && visualViewport.scale < 1.01 ? event.touches[0] : null;
  }, { passive: true });
  stage.addEventListener("touchend", event => {
    if (!touched) return;
    const [end] = event.changedTouches, by = end.clientX - touched.clientX;
    if (Math.abs(by) > Math.max(60, 2 * Math.abs(end.clientY - touched.clientY))) step(by > 0 ? -1 : 1);
  });

  // -- buttons and keys

  const pathOf = entry => `${outboxFolder()}/${entry.file}`;
  const DO = {
    previous: () => step(-1),
    next: () => step(1),
    before: toggleBefore,
    pick: () => { Selection.toggle(self.entry); self.tellMarks(); },
    keep: () => Decisions.decide([self.entry], { flag: "keep" }),
    reject: () => Decisions.decide([self.entry], { flag: "reject" }),
    fit: () => zoomTo(null),
    one: () => zoomTo(1, middle()),
    larger: () => zoomBy(1.25),
    smaller: () => zoomBy(0.8),
    recipe: () => self.entry.yaml && copy(self.entry.yaml, "The recipe is copied."),
    path: () => copy(pathOf(self.entry), "The path is copied."),
    delete: () => copy(commandLine("delete", self.entry.file), "The command that deletes this picture is copied. Run it in a terminal."),
  };
  const KEYS = {
    ArrowLeft: "previous", ArrowRight: "next", b: "before", c: "pick", y: "recipe", p: "path", Delete: "delete",
    "+": "larger", "=": "larger", "-": "smaller", f: "fit", z: "one",
  };
  dialog.addEventListener("click", event => {
    const asked = event.target.closest("[data-do]");
    DO[asked?.dataset.do]?.();
  });
  dialog.addEventListener("keydown", event => {
    if (Decisions.key(event, [self.entry])) return;
    if (event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    DO[KEYS[event.key]]();
  });
  return self;
})();
