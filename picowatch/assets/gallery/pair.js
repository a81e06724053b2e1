"use strict";
// Two to four pictures side by side, with their differences.

const Pair = (() => {
  const dialog = part("pair"), table = part("table"), only = part("only-different");
  const self = {};
  let compared = []; // entries

  self.open = entries => {
    compared = entries;
    show();
    fillWindow(dialog);
  };
  dialog.addEventListener("close", () => { if (!document.querySelector("dialog[open]")) leaveWindow(); });

  function show() {
    const both = part("both");
    both.replaceChildren(...compared.map(figure));
    both.dataset.count = compared.length;
    table.replaceChildren(tableOf());
    table.classList.toggle("only", only.checked);
    self.tellMarks();
  }

  self.tellMarks = () => {
    for (const made of dialog.querySelectorAll("figure")) made.querySelector(".badge").textContent = badgeOf(made.entry);
  };
  only.onchange = () => table.classList.toggle("only", only.checked);

  function figure(entry) {
    const made = element("figure"), place = element("div"), image = element("img");
    image.src = shownFile(entry);
    image.alt = titleOf(entry);
    image.draggable = false;
    const [wide, high] = sidesOf(entry);
    image.style.setProperty("--wide", wide || 512);
    image.style.setProperty("--shape", (wide || 1) / (high || 1));
    place.append(image);
    const caption = element("figcaption", entry.file);
    caption.append(" ", element("span", "", "badge"));
    made.tabIndex = 0; // what is decided by a key concerns the picture with the focus
    made.entry = entry;
    made.append(place, caption);
    return made;
  }

  function tableOf() {
    const settings = compared.map(entry => new Map(settingsOf(entry)));
    const made = element("table"), body = element("tbody");
    for (const name of new Set(settings.flatMap(its => [...its.keys()]))) {
      const texts = settings.map(its => its.get(name) ?? ""), [first, ...others] = texts;
      const row = element("tr"), heading = element("th", name), differs = others.some(text => text !== first);
      heading.scope = "row";
      row.append(heading, ...differs ? markedAll(first, others) : texts.map(text => element("td", text)));
      if (differs) {
        row.className = "different";
        heading.append(element("span", " differs", "unseen"));
      }
      body.append(row);
    }
    made.append(body);
    const different = body.querySelectorAll(".different").length;
    part("pair-title").textContent = `Compare: ${different} of ${body.rows.length} differ`;
    return made;
  }

  // Cells; in those of the others, words that the first one lacks are marked, of two in both.
  function markedAll(first, others) {
    const pairs = others.map(other => marked(first, other));
    return [others.length === 1 ? pairs[0][0] : element("td", first), ...pairs.map(([, cell]) => cell)];
  }

  // Two cells; words that the other one lacks, in their order, are marked.
  function marked(first, other) {
    const a = wordsIn(first), b = wordsIn(other), cells = [element("td"), element("td")];
    if (a.length * b.length > 250000) return [element("td", first), element("td", other)];
    const common = commonWords(a, b);
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) {
        cells[0].append(a[i++]);
        cells[1].append(b[j++]);
      } else if (j === b.length || (i < a.length && common[i + 1][j] >= common[i][j + 1])) {
        cells[0].append(element("mark", a[i++]));
      } else {
        cells[1].append(element("mark", b[j++]));
      }
    }
    return cells;
  }
  const wordsIn = text => text.match(/\s+|[^\s,]+|,/g) ?? [];

  // The longest common subsequence: `[i][j]` is its length in a from i and b from j.
  function commonWords(a, b) {
    const length = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        length[i][j] = a[i] === b[j] ? length[i + 1][j + 1] + 1 : Math.max(length[i + 1][j], length[i][j + 1]);
      }
    }
    return length;
  }

  // The next picture takes the last one's place.
  function step(by) {
    const last = compared.at(-1), place = shownList.findIndex(entry => entry.file === last.file);
    if (place < 0 || !shownList[place + by]) return;
    compared = [...compared.slice(0, -1), shownList[place + by]];
    show();
    say(`Compared with ${titleOf(compared.at(-1))}`);
  }

  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
    Decisions.key(event, [event.target.closest("figure")?.entry ?? compared.at(-1)]);
  });
  return self;
})();
