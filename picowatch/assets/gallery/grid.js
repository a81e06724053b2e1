"use strict";
// The grid: a section for each day or folder, with blocks of tiles, which the style sheet puts into
// rows. A block gets its tiles when it comes near the window.

const Grid = (() => {
  const BLOCK = 100, NEAR = "1500px", CALM = 50; // least pictures per block; from the window; milliseconds
  const GAP = 6, STRETCHED = 1.15; // pixels between tiles; how much higher rows are than `size`
  const grid = part("grid");
  const tiles = new Map(), sections = new Map(); // by file, by heading
  let shown = [], blocks = [], current = ""; // entries; blocks; the file whose tile Tab reaches
  let size = 190, width = 1000; // pixels: height of a row, width of the grid
  const self = {};

  // -- what is shown

  // Show these entries, each below its heading. The browser keeps the scroll position.
  self.show = (entries, headingOf) => {
    const hadFocus = grid.contains(document.activeElement), place = placeOf(current);
    const below = new Map();
    width = grid.clientWidth || width;
    shown = entries;
    for (const entry of entries) {
      const heading = headingOf(entry);
      if (!below.has(heading)) below.set(heading, []);
      below.get(heading).push(entry);
    }
    blocks = [...below].flatMap(([heading, its]) => divide(sectionOf(heading), its));
    fill(grid, [...below.keys()].map(sectionOf));
    if (blocks.length && !blocks[0].isFilled) fillBlock(blocks[0]); // usually it is in the window
    for (const heading of sections.keys()) if (!below.has(heading)) sections.delete(heading);
    if (placeOf(current) < 0) setCurrent(shown[Math.max(0, Math.min(place, shown.length - 1))]?.file);
    if (hadFocus && !grid.contains(document.activeElement)) focusCurrent();
  };

  function sectionOf(heading) {
    if (!sections.has(heading)) {
      const section = element("section"), title = element("h2", heading);
      const select = button("Select", () => Selection.add(blocksOf(section).flatMap(({ entries }) => entries)));
      select.className = "select";
      select.title = "Select all pictures below this heading";
      select.ariaLabel = `Select all of ${heading}`;
      title.append(" ", element("small"), " ", select);
      section.append(title);
      sections.set(heading, section);
    }
    return sections.get(heading);
  }
  const headingOf = section => section.firstChild.firstChild.textContent;
  const blocksOf = section => [...section.children].slice(1);

  // Show beside each heading what `totalOf` says of it.
  self.tellTotals = totalOf => {
    for (const [heading, section] of sections) section.querySelector("small").textContent = totalOf(heading);
  };

  // Blocks are counted from the end, so that a new picture at the top changes only the first one.
  function divide(section, entries) {
    const heading = section.firstChild, made = [];
    const before = new Map([...section.querySelectorAll(".tile")].map(tile => [tile.entry.file, tile.parentNode]));
    for (let end = entries.length; end > 0;) {
      const start = end < 2 * BLOCK ? 0 : end - BLOCK, its = entries.slice(start, end);
      let block = before.get(its[its.length >> 1].file);
      if (!block || made.includes(block)) block = newBlock(headingOf(section));
      block.entries = its;
      if (its.some(({ file }) => before.has(file))) fillBlock(block); else estimate(block);
      made.unshift(block);
      end = start;
    }
    fill(section, [heading, ...made]);
    return made;
  }

  const waiting = new Set(); // blocks near the window that are not filled
  const near = new IntersectionObserver(seen => {
    for (const { target, isIntersecting } of seen) if (isIntersecting) waiting.add(target); else waiting.delete(target);
    if (waiting.size) fillSoon();
  }, { rootMargin: NEAR });

  // During fast scrolling nothing is filled until it calms down.
  let timer = 0;
  function fillSoon() {
    const top = scrollY;
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (Math.abs(scrollY - top) > innerHeight / 4) return fillSoon();
      waiting.forEach(fillBlock);
    }, CALM);
  }

  function newBlock(label) {
    const block = element("div", undefined, "tiles");
    block.role = "list";
    block.ariaLabel = label;
    near.observe(block);
    return block;
  }

  function fillBlock(block) {
    near.unobserve(block);
    waiting.delete(block);
    block.isFilled = true;
    block.style.height = "";
    fill(block, block.entries.map(tileOf));
  }

  // Estimate a block's height, so that the scrollbar shows the position.
  function estimate(block) {
    const wide = block.entries.reduce((sum, entry) => sum + shapeOf(entry) * size + GAP, 0);
    const high = Math.max(1, wide / width) * (size * STRETCHED + GAP);
    block.style.height = `${Math.round(high)}px`;
    block.style.containIntrinsicHeight = `auto ${Math.round(high)}px`;
  }

  self.resize = next => {
    size = next;
    width = grid.clientWidth || width;
    grid.style.setProperty("--size", `${size}px`);
    grid.classList.toggle("small", size <= 120);
    for (const block of blocks) if (!block.isFilled) estimate(block);
  };

  // Forget the tiles of deleted pictures.
  self.forget = () => { for (const file of tiles.keys()) if (!Pictures.byFile.has(file)) tiles.delete(file); };

  self.headings = () => [...grid.children].map(headingOf);
  self.goToHeading = text => {
    const section = sections.get(text);
    if (!section) return;
    section.scrollIntoView();
    setCurrent(section.children[1].entries[0].file);
  };

  // -- tiles

  const shapeOf = entry => {
    const [wide, high] = sidesOf(entry);
    return Math.min(2.8, Math.max(0.45, (wide || 1) / (high || 1)));
  };
  const placeOf = file => shown.findIndex(entry => entry.file === file);

  function tileAt(place) {
    if (!shown[place]) return undefined;
    for (const block of blocks) {
      if (place < block.entries.length) {
        if (!block.isFilled) fillBlock(block);
        return block.children[place];
      }
      place -= block.entries.length;
    }
    return undefined;
  }

  // A picture that was drawn again, such as a contact sheet, gets a new tile.
  function tileOf(entry) {
    let tile = tiles.get(entry.file);
    if (!tile || !isSame(tile.entry, entry)) tiles.set(entry.file, tile = newTile(entry));
    tile.entry = entry;
    return tile;
  }

  function newTile(entry) {
    const tile = element("div", undefined, entry.sheet ? "tile sheet" : "tile");
    const open = element("button", undefined, "open"), pick = element("button", undefined, "pick"), image = element("img");
    const origin = [entry.recipe, entry.seed === undefined ? "" : `seed ${entry.seed}`].filter(Boolean);
    tile.role = "listitem";
    tile.entry = entry;
    tile.style.setProperty("--shape", shapeOf(entry).toFixed(3));
    image.alt = "";
    image.loading = "lazy";
    image.decoding = "async";
    image.draggable = false;
    image.onload = showLoaded;
    image.onerror = showMissing;
    image.src = thumbnail(entry);
    open.append(image);
    open.type = pick.type = "button";
    open.tabIndex = entry.file === current ? 0 : -1;
    pick.tabIndex = -1;
    const name = entry.sheet ? "contact sheet" : photoOf(entry);
    if (name) open.dataset.name = name;
    open.ariaLabel = (entry.sheet ? "Contact sheet: " : "") + [titleOf(entry), ...origin].join(", ");
    pick.title = "Select (c)";
    pick.ariaLabel = "Select";
    tile.append(open, element("span", "", "badge"), pick);
    mark(tile);
    return tile;
  }

  function showLoaded({ target }) {
    const tile = target.closest(".tile");
    tile.classList.add("loaded");
    tile.classList.remove("missing");
  }

  // Without a thumbnail the picture itself is shown. If that is gone, too, picowatch reports it soon.
  function showMissing({ target }) {
    const tile = target.closest(".tile"), file = shownFile(tile.entry);
    if (target.getAttribute("src") === file) tile.classList.add("missing"); else target.src = file;
  }

  self.markTiles = () => { for (const tile of tiles.values()) mark(tile); };
  function mark(tile) {
    const is = Selection.has(tile.entry), badge = badgeOf(tile.entry), [, words, pick] = tile.children;
    tile.classList.toggle("picked", is);
    tile.classList.toggle("rejected", Marks.of(tile.entry).flag === "reject");
    pick.ariaPressed = String(is);
    if (words.textContent !== badge) words.textContent = badge;
  }

  // -- keys and clicks

  function setCurrent(file) {
    for (const [name, tabIndex] of [[current, -1], [file, 0]]) if (tiles.has(name)) tiles.get(name).firstChild.tabIndex = tabIndex;
    current = file ?? "";
  }
  const focusCurrent = () => (tileAt(placeOf(current))?.firstChild ?? grid).focus({ preventScroll: true });

  // The picture with the focus, if there is one.
  self.focused = () => grid.contains(document.activeElement) ? shown.slice(placeOf(current)).slice(0, 1) : [];

  // Make a picture the current one, if it is shown, and scroll to the current one.
  self.goTo = (file, { focus }) => {
    if (placeOf(file) >= 0) setCurrent(file);
    tileAt(placeOf(current))?.scrollIntoView({ block: "nearest" });
    if (focus) focusCurrent();
  };

  function step(key) {
    const place = placeOf(current);
    switch (key) {
      case "ArrowRight": return shown[place + 1];
      case "ArrowLeft": return shown[place - 1];
      case "Home": return shown[0];
      case "End": return shown.at(-1);
      default: return inNextRow(place, key === "ArrowDown" ? 1 : -1);
    }
  }

  // Return the nearest picture of the next or the previous row.
  function inNextRow(place, by) {
    const from = tileAt(place).getBoundingClientRect(), middle = from.left + from.width / 2;
    let best, row, least = Infinity;
    for (let at = place + by, tile; (tile = tileAt(at)); at += by) {
      const rect = tile.getBoundingClientRect(), far = Math.abs(rect.left + rect.width / 2 - middle);
      if (Math.abs(rect.top - from.top) < 1) continue;
      row ??= rect.top;
      if (Math.abs(rect.top - row) > 1) break;
      if (far < least) { least = far; best = shown[at]; }
    }
    return best;
  }

  grid.addEventListener("keydown", event => {
    if (!shown.length || event.ctrlKey || event.metaKey || event.altKey) return;
    const entry = shown[placeOf(current)];
    if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") {
      event.preventDefault();
      const next = step(event.key);
      if (next && event.shiftKey) {
        if (!Selection.has(entry)) Selection.toggle(entry);
        Selection.extend(next);
      }
      if (next) self.goTo(next.file, { focus: true });
    } else if (event.key === "c") {
      Selection.toggle(entry);
    }
  });
  grid.addEventListener("focusin", event => {
    const tile = event.target.closest(".tile");
    if (tile) setCurrent(tile.entry.file); else if (!event.target.closest(".select")) focusCurrent();
  });
  grid.addEventListener("click", event => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    if (event.shiftKey) Selection.extend(tile.entry);
    else if (event.target.closest(".pick") || event.ctrlKey || event.metaKey) Selection.toggle(tile.entry);
    else Large.open(tile.entry);
  });
  return self;
})();
