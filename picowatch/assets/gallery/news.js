"use strict";
// What runs, what waits and what went wrong, on top; and asking for it every two seconds.

const News = (() => {
  const POLL = 2000, SILENT = 15000; // milliseconds
  const FEW = 3; // problems that are shown at once
  const part = id => document.getElementById(id);
  const self = { runs: false, inbox: "" };
  let updated = null, heardAt = 0, shownProblems = "", shownWaiting = "", knownProblems = null;

  // Called by now.js.
  globalThis.now = news => {
    if (news.updated !== updated) { updated = news.updated; heardAt = Date.now(); }
    // Clocks of two machines may differ; a status that never changes is an old one.
    const old = Date.now() - heardAt > SILENT || Date.now() / 1000 - news.updated > 3600;
    const runs = news.runs && !old;
    self.runs = runs;
    Grid.hold(() => {
      if (news.inbox !== self.inbox) { self.inbox = news.inbox; showEmpty(); }
      tellWork(news, runs);
      tellWaiting(news);
      tellProblems(news);
    });
  };

  function tellWork(news, runs) {
    const works = runs && news.recipe !== "";
    part("work").className = works ? "works" : runs && !news.trouble ? "idle" : runs ? "trouble" : "off";
    part("line").textContent = runs ? lineOf(news) : "picowatch is not running";
    part("bar").hidden = !works;
    if (works) {
      const share = news.steps ? news.step / news.steps : 0;
      part("bar").max = news.of || 1;
      part("bar").value = Math.min(news.of, news.image - 1 + share);
    }
    document.title = works ? `(${news.image}/${news.of}) picowatch` : "picowatch";
    const preview = part("preview");
    // Between two pictures the last preview stays, so that nothing below it jumps.
    preview.hidden = !works || !(news.preview || preview.src);
    if (works && news.preview) preview.src = `preview.png?${news.updated}`;
  }

  function lineOf(news) {
    if (news.trouble || (news.paused && !news.recipe)) return news.line;
    if (!news.recipe) return "picowatch is running; nothing to do";
    const step = news.step ? ` · step ${news.step} of ${news.steps}` : "";
    const left = news.seconds_left === null ? "" : ` · ${duration(news.seconds_left)} left`;
    const pictures = news.last_image > news.image ? `s ${news.image}–${news.last_image}` : ` ${news.image}`;
    const loading = news.loading ? ` · loading ${news.loading} …` : "";
    return `${news.recipe}: picture${pictures} of ${news.of}${loading}${step}${left}`;
  }

  function duration(seconds) {
    if (seconds < 100) return `${Math.round(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 100 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  function tellWaiting({ images, waiting }) {
    const told = JSON.stringify([images.queued, waiting]);
    if (told === shownWaiting) return;
    shownWaiting = told;
    const count = images.queued, box = part("waiting");
    box.hidden = !count;
    box.querySelector("summary").textContent = `${count.toLocaleString()} ${count === 1 ? "image queued" : "images queued"}`;
    const rows = waiting.map(([recipe, number]) => {
      const row = element("li", recipe);
      row.append(element("small", ` ${number}`));
      return row;
    });
    const more = count - waiting.reduce((sum, [, number]) => sum + number, 0);
    if (more > 0) rows.push(element("li", `and ${more.toLocaleString()} more images`));
    box.querySelector("ol").replaceChildren(...rows);
  }

  const QUOTED = /((?:^ {4}.*\n?)+)/m; // lines of a recipe, with carets below what is wrong
  function tellProblems({ problems, more_problems: more }) {
    const told = JSON.stringify([problems, more]);
    if (told === shownProblems) return;
    shownProblems = told;
    const open = new Set([...part("problems").querySelectorAll("[open]")].map(box => box.dataset.file));
    part("problems").replaceChildren(...problems.map(problem => {
      const box = element("details", undefined, problem.is_error ? "error" : "warning");
      const summary = element("summary", problem.recipe), link = element("a", "Open the file");
      box.dataset.file = problem.file;
      box.open = open.has(problem.file);
      summary.prepend(element("strong", problem.is_error ? "Error " : "Warning "));
      summary.append(element("span", firstWords(problem.text), "first"));
      link.href = address(problem.file);
      const text = element("pre");
      text.append(...problem.text.split(QUOTED).map((part, place) => place % 2 ? element("span", part, "quoted") : part));
      box.append(summary, text, link);
      return box;
    }));
    if (more) part("problems").append(element("p", `and ${more.toLocaleString()} more: look for .error.txt and .warning.txt in the outbox`));
    fold();
    const files = new Set(problems.map(problem => problem.file));
    const fresh = knownProblems && problems.find(problem => !knownProblems.has(problem.file));
    if (fresh) announce(`${fresh.is_error ? "Error" : "Warning"}: ${fresh.recipe}`);
    knownProblems = files;
  }

  // Only the first few, until the user asks for the others.
  let isUnfolded = false;
  function fold() {
    const boxes = [...part("problems").querySelectorAll("details")];
    for (const [place, box] of boxes.entries()) box.hidden = !isUnfolded && place >= FEW;
    const folded = boxes.length - FEW;
    part("fold")?.remove();
    if (folded <= 0) return;
    const button = element("button", isUnfolded ? "Show fewer" : `Show ${folded} more`);
    button.id = "fold";
    button.type = "button";
    button.ariaExpanded = String(isUnfolded);
    button.onclick = () => { isUnfolded = !isUnfolded; fold(); part("fold").focus(); };
    boxes.at(-1).after(button);
  }

  // Of an error file, the sentence that says what is wrong: neither the path nor the quoted line,
  // and of images that failed the reason of the first.
  const IMAGE = /^entry \d+, image \d+, seed \d+:$/;
  function firstWords(text) {
    const lines = text.split("\n").slice(1).filter(line => line.trim() && !line.startsWith("    "));
    const failed = lines.filter(line => IMAGE.test(line)).length;
    const reason = lines.find(line => !IMAGE.test(line)) || "";
    return failed > 1 ? `${failed} images failed. ${reason}` : reason;
  }

  const ask = () => { lookAtPages(); load("now.js"); };
  setInterval(() => { if (!document.hidden) ask(); }, POLL);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  self.ask = ask;
  return self;
})();
