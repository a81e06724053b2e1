"use strict";
// The grid: rows that fill the width, of which only those near the window are in the document.

const Grid = (() => {
  const GAP = 6, HEADING = 40, MARGIN = 1200; // pixels
  const grid = document.getElementById("grid"), days = document.getElementById("days");
  const tiles = new Map(), headings = new Map();
  let shown = [], boxes = [], dayBoxes = [], height = 190, current = 0, width = 0;
  const self = {};
  let headingOf = dayOf; // of an entry: rows begin anew where it changes

  // -- laying out

  // A box for each picture: rows of nearly `height`, stretched to the width, a new one each day.
  function layOut() {
    width = grid.clientWidth;
    boxes = new Array(shown.length);
    dayBoxes = [];
    let top = 0, row = [], shapes = 0, day = null;
    const end = last => {
      if (!row.length) return;
      const full = (width - GAP * (row.length - 1)) / shapes;
      const high = last ? Math.min(full, height) : full;
      let left = 0;
      for (const place of row) {
        const wide = high * shape(shown[place]);
        boxes[place] = { left, top, width: wide, height: high };
        left += wide + GAP;
      }
      top = Math.round(top + high + GAP); // whole, so that scrolling by it leaves what is looked at
      row = []; shapes = 0;
    };
    shown.forEach((entry, place) => {
      const its = headingOf(entry);
      if (its !== day) {
        end(true);
        dayBoxes.push({ top, text: its });
        top += HEADING;
        day = its;
      }
      row.push(place);
      shapes += shape(entry);
      if (shapes * height + GAP * (row.length - 1) >= width) end(false);
    });
    end(true);
    grid.style.height = `${top}px`;
  }

  let today = "", names = new Map(); // of days, for formatting dates is slow
  const dayNow = () => Math.floor((Date.now() / 1000 - new Date().getTimezoneOffset() * 60) / 86400);
  function dayOf(entry) {
    if (!entry.made_at) return "Earlier";
    const key = Math.floor((entry.made_at - offset(entry.made_at)) / 86400);
    const nowKey = dayNow();
    if (today !== nowKey) { today = nowKey; names = new Map([[nowKey, "Today"], [nowKey - 1, "Yesterday"]]); }
    if (!names.has(key)) {
      names.set(key, new Date(entry.made_at * 1000).toLocaleDateString(undefined, { dateStyle: "long" }));
    }
    return names.get(key);
  }
  const offsets = new Map(); // of the local time in seconds, by quarters of an hour: clocks change at one
  function offset(time) {
    const quarter = Math.floor(time / 900);
    if (!offsets.has(quarter)) offsets.set(quarter, new Date(time * 1000).getTimezoneOffset() * 60);
    return offsets.get(quarter);
  }

  // -- drawing what is near

  // The first place whose box ends below `y`: tops never fall from place to place.
  function firstBelow(y) {
    let low = 0, high = boxes.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (boxes[middle].top + boxes[middle].height < y) low = middle + 1; else high = middle;
    }
    return low;
  }

  let lastTop = 0, lastHigh = innerHeight, hurries = false, settled = 0;

  // Where somebody rushes by, pictures are not loaded until it calms down.
  function lookAtSpeed(top) {
    hurries = Math.abs(top - lastTop) > innerHeight / 4;
    lastTop = top;
    lastHigh = innerHeight;
    clearTimeout(settled);
    if (hurries) settled = setTimeout(draw, 100);
  }

  function draw() {
    const top = -grid.getBoundingClientRect().top;
    lookAtSpeed(top);
    const near = new Map();
    for (let place = firstBelow(top - MARGIN); place < boxes.length; place++) {
      if (boxes[place].top > top + innerHeight + MARGIN) break;
      near.set(shown[place].file, place);
    }
    // What has the focus stays, so that Tab comes back to it.
    if (shown[current]) near.set(shown[current].file, current);
    for (const [file, tile] of tiles) if (!near.has(file)) { tile.remove(); tiles.delete(file); }
    // In the document they stand in their order, for those who have it read to them.
    let last = null;
    for (const [file, place] of [...near].sort((a, b) => a[1] - b[1])) last = put(file, place, last);
    drawDays(top);
  }

  function put(file, place, before) {
    let tile = tiles.get(file);
    if (!tile || tile.entry !== shown[place]) {
      const had = tile && tile.contains(document.activeElement);
      const made = newTile(shown[place]);
      if (tile) tile.replaceWith(made); else if (before) before.after(made); else grid.prepend(made);
      tiles.set(file, tile = made);
      if (had) tile.firstChild.focus({ preventScroll: true });
    }
    if (!hurries && !tile.image.src) tile.image.src = thumbnail(tile.entry);
    tile.firstChild.tabIndex = place === current ? 0 : -1;
    if (tile.box === boxes[place]) return tile;
    const box = tile.box = boxes[place];
    tile.style.transform = `translate(${box.left}px, ${box.top}px)`;
    tile.style.width = `${box.width}px`;
    tile.style.height = `${box.height}px`;
    tile.ariaPosInSet = place + 1;
    tile.ariaSetSize = shown.length;
    mark(tile);
    return tile;
  }

  function drawDays(top) {
    for (const box of dayBoxes) {
      const isNear = box.top > top - MARGIN && box.top < top + innerHeight + MARGIN;
      let heading = headings.get(box.text);
      if (!isNear) { if (heading) { heading.remove(); headings.delete(box.text); } continue; }
      if (!heading) {
        heading = element("p", box.text);
        headings.set(box.text, heading);
        days.append(heading);
      }
      heading.style.transform = `translateY(${box.top}px)`;
    }
    const texts = new Set(dayBoxes.map(box => box.text));
    for (const [text, heading] of headings) if (!texts.has(text)) { heading.remove(); headings.delete(text); }
  }

  function newTile(entry) {
    const tile = element("div", undefined, entry.sheet ? "tile sheet" : "tile");
    tile.role = "listitem";
    tile.entry = entry;
    const open = element("button", undefined, "open");
    const image = element("img");
    image.alt = "";
    image.decoding = "async";
    image.draggable = false;
    tile.image = image;
    image.onload = () => {
      tile.classList.add("loaded");
      if (entry.boxes && !open.querySelector("svg")) image.after(paper(entry, image.src));
    };
    image.onerror = () => {
      image.onerror = () => drop(entry.file);
      image.src = address(entry.file);
    };
    const kind = entry.sheet ? "Contact sheet: " : "", title = entry.prompt || entry.file;
    const origin = [entry.recipe, entry.seed === undefined ? "" : `seed ${entry.seed}`].filter(Boolean);
    open.type = "button";
    open.ariaLabel = kind + [title, ...origin].join(", ");
    const caption = element("span", undefined, "caption");
    caption.ariaHidden = "true";
    caption.append(element("span", title), element("small", origin.join(" · ")));
    open.append(image, caption);
    const pick = element("button", "✓", "pick");
    pick.type = "button";
    pick.tabIndex = -1;
    pick.title = "Pick to compare (c)";
    pick.ariaLabel = "Pick to compare";
    const star = element("button", "★", "star");
    star.type = "button";
    star.tabIndex = -1;
    star.title = "Star (s)";
    star.ariaLabel = "Star";
    tile.append(open, star, pick);
    return tile;
  }

  function mark(tile) {
    const picked = isPicked(tile.entry.file);
    tile.classList.toggle("picked", picked);
    tile.lastChild.ariaPressed = String(picked);
    const starred = Stars.has(tile.entry.file);
    tile.classList.toggle("starred", starred);
    tile.lastChild.previousSibling.ariaPressed = String(starred);
  }

  // The picture that stays where it is: the current one, if it is in the window, or one in the middle.
  function anchorIn(top, high) {
    const box = boxes[current];
    if (box && box.top + box.height > top && box.top < top + high) return current;
    let place = Math.min(firstBelow(top + high / 2), boxes.length - 1);
    while (boxes[place + 1]?.top === boxes[place]?.top && boxes[place]?.left < width / 2 - height / 2) place++;
    return place;
  }

  // -- what happens to it

  // Show these entries; what the user looks at stays where it is.
  self.show = (entries, { keep, folders }) => {
    headingOf = folders ? entry => folderOf(entry) || "/" : dayOf;
    const top = -grid.getBoundingClientRect().top;
    const anchor = anchorIn(top, innerHeight);
    const before = keep && top > 0 && shown[anchor] ? boxes[anchor].top : null;
    const now = keep ? left(entries) : () => 0, place = now(anchor);
    current = now(current);
    shown = entries;
    layOut();
    if (before !== null && boxes[place]) scrollBy(0, boxes[place].top - before);
    const hadFocus = grid.contains(document.activeElement);
    draw();
    if (hadFocus && shown[current] && !grid.contains(document.activeElement)) focusCurrent();
  };

  // Where a place of the pictures that are shown is in others; where it is gone, the next one's.
  function left(entries) {
    const places = new Map(entries.map((entry, place) => [entry.file, place]));
    const isLeft = entry => places.has(entry.file);
    return place => {
      const entry = shown.slice(place).find(isLeft) ?? shown.slice(0, place).findLast(isLeft);
      return entry ? places.get(entry.file) : 0;
    };
  }

  // Whatever becomes higher or lower above the grid, it stays where it is, once it is scrolled.
  self.hold = change => {
    const before = grid.getBoundingClientRect().top;
    change();
    if (before < 0) scrollBy(0, grid.getBoundingClientRect().top - before);
  };

  // Also where the window was turned: what was in its middle stays there.
  self.resize = next => {
    const place = lastTop > 0 ? anchorIn(lastTop, lastHigh) : -1, middle = ({ top, height }) => top + height / 2;
    const share = place < 0 ? 0 : (middle(boxes[place]) - lastTop) / lastHigh;
    height = next;
    layOut();
    if (place >= 0) scrollBy(0, grid.getBoundingClientRect().top + middle(boxes[place]) - share * innerHeight);
    draw();
  };

  // Whether headings say Today of another day: the page was open over midnight.
  self.isOld = () => shown.length > 0 && headingOf === dayOf && today !== dayNow();

  // The headings, in their order, and going to one.
  self.headings = () => dayBoxes.map(box => box.text);
  self.goToHeading = text => {
    const box = dayBoxes.find(one => one.text === text);
    if (!box) return;
    scrollBy(0, grid.getBoundingClientRect().top + box.top - document.querySelector("header").offsetHeight);
    const first = boxes.findIndex(one => one.top > box.top);
    if (first >= 0) self.goTo(shown[first].file, { focus: false });
    draw();
  };

  self.remark = () => { for (const tile of tiles.values()) mark(tile); };

  // Make a picture the current one, and bring it into the window.
  self.goTo = (file, { focus }) => {
    const found = shown.findIndex(entry => entry.file === file), place = found < 0 ? current : found;
    if (!shown[place]) return;
    const old = shown[current] && tiles.get(shown[current].file);
    if (old) old.firstChild.tabIndex = -1;
    current = place;
    const box = boxes[place], rect = grid.getBoundingClientRect();
    const top = rect.top + box.top, under = document.querySelector("header").offsetHeight + HEADING;
    const covered = document.getElementById("bottom").offsetHeight, over = covered && covered + 24; // and its margin
    if (top < under) scrollBy(0, top - under);
    else if (top + box.height > innerHeight - over) scrollBy(0, top + box.height - innerHeight + over + GAP);
    draw();
    if (focus) focusCurrent();
  };
  const focusCurrent = () => tiles.get(shown[current].file).firstChild.focus({ preventScroll: true });

  function step(key) {
    const box = boxes[current];
    if (key === "ArrowRight") return Math.min(current + 1, shown.length - 1);
    if (key === "ArrowLeft") return Math.max(current - 1, 0);
    if (key === "Home") return 0;
    if (key === "End") return shown.length - 1;
    const middle = box.left + box.width / 2, down = key === "ArrowDown" ? 1 : -1;
    let best = current, rowTop = null, least = Infinity;
    for (let place = current + down; boxes[place]; place += down) {
      if (boxes[place].top === box.top) continue;
      rowTop ??= boxes[place].top;
      if (boxes[place].top !== rowTop) break;
      const far = Math.abs(boxes[place].left + boxes[place].width / 2 - middle);
      if (far < least) { least = far; best = place; }
    }
    return best;
  }

  grid.addEventListener("keydown", event => {
    if (!shown.length || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key.startsWith("Arrow") || event.key === "Home" || event.key === "End") {
      event.preventDefault();
      self.goTo(shown[step(event.key)].file, { focus: true });
    } else if (event.key === "c") {
      pick(shown[current]);
    } else if (event.key === "s") {
      Stars.toggle(shown[current]);
    }
  });
  grid.addEventListener("focusin", event => {
    const tile = event.target.closest(".tile");
    if (!tile && shown.length) return self.goTo(shown[current].file, { focus: true });
    if (!tile) return;
    const place = shown.indexOf(tile.entry);
    if (place >= 0 && place !== current) self.goTo(tile.entry.file, { focus: false });
  });
  grid.addEventListener("click", event => {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    if (event.target.closest(".star")) Stars.toggle(tile.entry);
    else if (event.target.closest(".pick") || event.shiftKey) pick(tile.entry); else Large.open(tile.entry);
  });

  let due = false;
  const soon = () => { if (!due) { due = true; requestAnimationFrame(() => { due = false; draw(); }); } };
  addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(() => { if (grid.clientWidth !== width) self.resize(height); else soon(); }).observe(grid);
  return self;
})();
