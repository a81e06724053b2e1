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
      row.append(heading, ...marked(texts));
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

  // A cell for each text; words that any other text lacks are marked.
  function marked(texts) {
    const words = texts.map(text => text.match(/\s+|[^\s,]+|,/g) ?? []), sets = words.map(its => new Set(its));
    return words.map(its => {
      const cell = element("td");
      for (const word of its) cell.append(sets.every(some => some.has(word)) ? word : element("mark", word));
      return cell;
    });
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
