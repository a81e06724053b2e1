"use strict";
// Two pictures side by side, with their differences.

const Pair = (() => {
  const dialog = document.getElementById("pair"), table = document.getElementById("table");
  const only = document.getElementById("only-different");
  const self = {};
  let left, right;

  self.open = (one, other) => {
    [left, right] = [one, other];
    show();
    fillWindow(dialog);
  };
  dialog.addEventListener("close", () => { if (!document.querySelector("dialog[open]")) leaveWindow(); });

  function show() {
    document.getElementById("both").replaceChildren(...[left, right].map(figure));
    table.replaceChildren(tableOf());
    table.classList.toggle("only", only.checked);
  }
  only.onchange = () => table.classList.toggle("only", only.checked);

  function figure(entry) {
    const made = element("figure"), place = element("div"), image = element("img");
    image.src = address(entry.file);
    image.alt = titleOf(entry);
    image.draggable = false;
    const [wide, high] = sidesOf(entry);
    image.style.setProperty("--wide", wide || 512);
    image.style.setProperty("--shape", (wide || 1) / (high || 1));
    place.append(image);
    made.append(place, element("figcaption", entry.file));
    return made;
  }

  function tableOf() {
    const [one, other] = [left, right].map(entry => new Map(settingsOf(entry)));
    const made = element("table"), body = element("tbody");
    for (const name of new Set([...one.keys(), ...other.keys()])) {
      const texts = [one, other].map(settings => settings.get(name) ?? "");
      const row = element("tr"), heading = element("th", name), differs = texts[0] !== texts[1];
      heading.scope = "row";
      row.append(heading, ...differs ? marked(...texts) : texts.map(text => element("td", text)));
      if (differs) {
        row.className = "different";
        heading.append(element("span", " differs", "unseen"));
      }
      body.append(row);
    }
    made.append(body);
    const different = body.querySelectorAll(".different").length;
    document.getElementById("pair-title").textContent = `Compare: ${different} of ${body.rows.length} differ`;
    return made;
  }

  // Two cells; words that the other one lacks, in their order, are marked.
  function marked(one, other) {
    const a = wordsIn(one), b = wordsIn(other), cells = [element("td"), element("td")];
    if (a.length * b.length > 250000) return [element("td", one), element("td", other)];
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

  // The next picture takes the right one's place.
  function step(by) {
    const place = shownList.findIndex(entry => entry.file === right.file);
    if (place < 0 || !shownList[place + by]) return;
    right = shownList[place + by];
    show();
    say(`Compared with ${titleOf(right)}`);
  }

  dialog.addEventListener("click", event => { if (event.target.closest("[data-do]")) dialog.close(); });
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  });
  return self;
})();
