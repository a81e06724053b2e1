"use strict";
// Two pictures: side by side, one instead of the other, or one over the other; and what differs.

const Pair = (() => {
  const dialog = document.getElementById("pair"), table = document.getElementById("table");
  const only = document.getElementById("only-different");
  const both = document.getElementById("both"), cut = document.getElementById("cut");
  const self = {};
  let left, right, way = "beside", isFlipped = false;

  self.open = (one, other) => {
    [left, right] = [one, other];
    show();
    if (!dialog.open) fillWindow(dialog);
    focusWay();
  };

  // Going forward in the history opens it again.
  self.reopen = () => {
    if (left && [left, right].every(entry => Pictures.byFile.has(entry.file))) self.open(left, right);
  };
  dialog.addEventListener("close", leaveHistory);

  function show() {
    both.replaceChildren(...[left, right].map(figure));
    showWay();
    table.replaceChildren(tableOf());
    table.classList.toggle("only", only.checked);
  }

  function figure(entry) {
    const made = element("figure"), image = element("img");
    image.src = address(entry.file);
    image.alt = entry.prompt || entry.file;
    image.draggable = false;
    // One over the other, both have one size.
    const pictures = way === "beside" ? [entry] : [left, right];
    image.style.setProperty("--wide", Math.max(...pictures.map(one => one.width || 512)));
    image.style.setProperty("--high", Math.max(...pictures.map(one => one.height || 512)));
    const half = element("span", undefined, "half");
    half.append(image);
    made.append(half, element("figcaption", entry.file));
    return made;
  }

  // beside: next to each other; flip: one at a time in one place; slide: one over the other's half.
  const WAYS = ["beside", "flip", "slide"];

  function showWay() {
    both.className = `${way}${isFlipped ? " flipped" : ""}`;
    cut.parentElement.hidden = way !== "slide";
    dialog.querySelector('[data-do="turn"]').hidden = way !== "flip";
    for (const name of WAYS) dialog.querySelector(`[data-do="${name}"]`).ariaPressed = String(name === way);
    for (const [place, made] of [...both.children].entries()) {
      made.ariaHidden = String(way === "flip" && Boolean(place) !== isFlipped);
    }
    both.style.setProperty("--cut", `${cut.value}%`);
    if (way === "slide") cut.style.width = `${both.querySelector("img").getBoundingClientRect().width}px`;
  }
  // The space bar flips, the arrow keys move the slider.
  function focusWay() {
    if (way !== "beside") (way === "slide" ? cut : dialog.querySelector('[data-do="turn"]')).focus();
  }

  function take(name) {
    way = name;
    isFlipped = false;
    show();
    focusWay();
  }
  new ResizeObserver(() => { if (dialog.open) showWay(); }).observe(both);

  function turn() {
    isFlipped = !isFlipped;
    showWay();
    say((isFlipped ? right : left).file);
  }

  cut.oninput = showWay;
  both.addEventListener("click", () => { if (way === "flip") turn(); });
  // The mouse or a finger takes the slider along.
  for (const kind of ["pointerdown", "pointermove"]) {
    both.addEventListener(kind, event => {
      if (way !== "slide" || !event.buttons) return;
      const rect = both.querySelector("img").getBoundingClientRect();
      cut.value = (event.clientX - rect.left) / rect.width * 100;
      showWay();
    });
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
    const place = shownList.indexOf(Pictures.byFile.get(right.file));
    if (place < 0 || !shownList[place + by]) return;
    right = shownList[place + by];
    show();
    say(`Compared with ${right.prompt || right.file}`);
  }

  dialog.addEventListener("click", event => {
    const asked = event.target.closest("[data-do]");
    if (!asked) return;
    const name = asked.dataset.do;
    if (name === "close") return dialog.close();
    if (name === "turn") return turn();
    if (WAYS.includes(name)) return take(name);
    [left, right] = [right, left];
    show();
  });
  dialog.addEventListener("keydown", event => {
    if (event.target === cut) return; // its own keys
    if (event.key === "f" || (event.key === " " && way === "flip" && !event.target.closest("button, input, a"))) {
      event.preventDefault();
      if (way === "flip") turn(); else take("flip");
    } else if (event.key === "ArrowLeft") step(-1);
    else if (event.key === "ArrowRight") step(1);
  });
  only.onchange = show;
  return self;
})();
