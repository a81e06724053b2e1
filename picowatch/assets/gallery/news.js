"use strict";
// The news at the top: what is running, queued and wrong. Loaded every two seconds.

const News = (() => {
  const POLL = 2000, SILENT = 15000; // milliseconds
  const part = id => document.getElementById(id);
  const self = { runs: false, inbox: "inbox" };
  let updated = null, heardAt = 0;

  // Called by now.js.
  globalThis.now = news => {
    if (news.updated !== updated) { updated = news.updated; heardAt = Date.now(); }
    // Two machines' clocks may differ, so a status is old if it does not change.
    const isOld = Date.now() - heardAt > SILENT || Date.now() / 1000 - news.updated > 3600;
    self.runs = news.runs && !isOld;
    if (self.inbox !== news.inbox) {
      self.inbox = news.inbox;
      Large.findBefore(); // if the large view was opened before the news came
    }
    showEmpty();
    tellWork(news);
    tellWaiting(news);
    tellIgnored(news);
    Problems.tell(news);
  };

  function tellWork(news) {
    const works = self.runs && news.recipe !== "", preview = part("preview");
    part("work").className = works ? "works" : !self.runs ? "off" : news.trouble ? "trouble" : "idle";
    part("line").textContent = self.runs ? lineOf(news) : "picowatch is not running";
    document.title = works ? `(${news.image}/${news.of}) picowatch` : "picowatch";
    part("bar").hidden = !works;
    part("bar").max = news.of || 1;
    part("bar").value = Math.max(0, Math.min(news.of, news.image - 1 + (news.steps && news.step / news.steps)));
    // Between two pictures the last preview stays, so that nothing below jumps.
    preview.hidden = !works || !(news.preview || preview.src);
    if (works && news.preview) preview.src = `preview.png?${news.updated}`;
  }

  function lineOf(news) {
    if (!news.recipe && !news.trouble && !news.paused) return "picowatch is running; nothing to do";
    return news.step ? `${news.line} · step ${news.step} of ${news.steps}` : news.line;
  }

  function tellWaiting({ images: { queued }, waiting }) {
    const more = queued - waiting.reduce((sum, [, count]) => sum + count, 0);
    const rows = waiting.map(([recipe, count]) => {
      const row = element("li", recipe);
      row.append(element("small", ` ${count}`));
      return row;
    });
    if (more > 0) rows.push(element("li", `and ${more.toLocaleString()} more images`));
    part("waiting").hidden = !queued;
    part("waiting").querySelector("summary").textContent = `${queued.toLocaleString()} ${queued === 1 ? "image" : "images"} queued`;
    part("waiting").querySelector("ol").replaceChildren(...rows);
  }

  // Files and folders of the inbox that are not run, such as notes.md, and why.
  function tellIgnored({ ignored = [], ignored_count: count = 0 }) {
    const rows = ignored.map(([path, why]) => {
      const row = element("li", path);
      row.append(element("small", ` ${why}`));
      return row;
    });
    if (count > ignored.length) rows.push(element("li", `and ${(count - ignored.length).toLocaleString()} more`));
    part("ignored").hidden = !count;
    part("ignored").querySelector("summary").textContent = `${count.toLocaleString()} ignored in the inbox`;
    part("ignored").querySelector("ul").replaceChildren(...rows);
  }

  const ask = () => { load("pages.js"); load("now.js"); showNewDay(); };
  setInterval(() => { if (!document.hidden) ask(); }, POLL);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  self.ask = ask;
  return self;
})();

// Errors and warnings of recipes, until they are fixed, or dismissed in this browser.
const Problems = (() => {
  const FEW = 3; // shown at once
  const DISMISSED = `picowatch dismissed ${outboxFolder()}`;
  const box = document.getElementById("problems");
  const keyOf = problem => JSON.stringify([problem.file, problem.text]);
  let problems = [], more = 0, shown = "", known = null, isUnfolded = false;
  let dismissed = new Set(kept(() => JSON.parse(localStorage.getItem(DISMISSED))) ?? []);

  function tell(news) {
    const told = JSON.stringify([news.problems, news.more_problems]);
    if (told === shown) return;
    shown = told;
    problems = news.problems;
    more = news.more_problems;
    show();
    const fresh = known && problems.find(({ file }) => !known.has(file));
    if (fresh) say(`${fresh.is_error ? "Error" : "Warning"}: ${fresh.recipe}`);
    known = new Set(problems.map(({ file }) => file));
  }

  function show() {
    const left = problems.filter(problem => !dismissed.has(keyOf(problem)));
    const open = new Set([...box.querySelectorAll("[open]")].map(made => made.dataset.file));
    const rows = left.slice(0, isUnfolded ? left.length : FEW).map(problem => row(problem, open));
    const buttons = element("p", undefined, "buttons");
    if (left.length > FEW) buttons.append(fold(left.length - FEW));
    if (left.length > 1) buttons.append(button("Dismiss all", () => dismiss(left)));
    if (more) buttons.append(`and ${more.toLocaleString()} more: look for .error.txt and .warning.txt in the outbox`);
    box.replaceChildren(...rows, ...buttons.hasChildNodes() ? [buttons] : []);
  }

  function row(problem, open) {
    const made = element("div", undefined, problem.is_error ? "error" : "warning");
    const details = element("details"), summary = element("summary", problem.recipe), text = element("pre"), link = element("a", "Open the file");
    details.dataset.file = problem.file;
    details.open = open.has(problem.file);
    summary.prepend(element("strong", problem.is_error ? "Error " : "Warning "));
    summary.append(" ", element("span", firstWords(problem.text), "first"));
    text.append(...problem.text.split(QUOTED).map((some, place) => place % 2 ? element("span", some, "quoted") : some));
    link.href = address(problem.file);
    const out = button("✕", () => dismiss([problem]));
    out.title = "Dismiss: the file stays until the recipe is fixed";
    out.ariaLabel = `Dismiss the message about ${problem.recipe}`;
    details.append(summary, text, link);
    made.append(details, out);
    return made;
  }

  function fold(count) {
    const made = button(isUnfolded ? "Show fewer" : `Show ${count} more`, () => {
      isUnfolded = !isUnfolded;
      show();
      document.getElementById("fold")?.focus();
    });
    made.id = "fold";
    made.ariaExpanded = String(isUnfolded);
    return made;
  }

  function button(text, action) {
    const made = element("button", text);
    made.type = "button";
    made.onclick = action;
    return made;
  }

  // A text that changes is another problem. Problems that are gone are forgotten.
  function dismiss(some) {
    const present = new Set(problems.map(keyOf));
    dismissed = new Set([...dismissed, ...some.map(keyOf)].filter(key => present.has(key)));
    kept(() => localStorage.setItem(DISMISSED, JSON.stringify([...dismissed])));
    show();
    say("Dismissed");
  }

  const QUOTED = /((?:^ {4}.*\n?)+)/m; // quoted lines of a recipe, with carets
  const IMAGE = /^entry \d+, image \d+, seed \d+:$/;

  // Return the sentence that says what is wrong, without the path, which settings do not have, and the
  // quoted line; for failed images, the reason of the first.
  function firstWords(text) {
    const lines = text.replace(/^inbox\/.*/, "").split("\n").filter(line => line.trim() && !line.startsWith("    "));
    const failed = lines.filter(line => IMAGE.test(line)).length;
    const reason = lines.find(line => !IMAGE.test(line)) ?? "";
    return failed > 1 ? `${failed} images failed. ${reason}` : reason;
  }

  return { tell };
})();
