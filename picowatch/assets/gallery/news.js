"use strict";
// The news at the top: what is running, queued and wrong. Loaded every two seconds.

const News = (() => {
  const POLL = 2000, SILENT = 15000; // milliseconds
  const TOTALS = 5; // polls to one of the totals
  const self = { runs: false, inbox: "inbox", flags: [] };
  let updated = null, heardAt = 0;

  // Called by now.js.
  globalThis.now = news => {
    if (news.updated !== updated) { updated = news.updated; heardAt = Date.now(); }
    // Two machines' clocks may differ, so a status is old if it does not change.
    const isOld = Date.now() - heardAt > SILENT || Date.now() / 1000 - news.updated > 3600;
    self.runs = news.runs && !isOld;
    self.flags = ["inbox", "models", "settings"].filter(name => isFromDisk && news[name]).flatMap(name => [`--${name}`, news[name]]);
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
    part("bar").value = news.share ?? 0;
    // Between two pictures the last preview stays, so that nothing below jumps.
    preview.hidden = !works || !(news.preview || preview.src);
    if (works && news.preview) preview.src = `preview.png?${news.updated}`;
  }

  function lineOf(news) {
    if (!news.recipe && !news.trouble && !news.paused) return "picowatch is running; nothing to do";
    const phase = news.phase === "draw" ? "step" : news.phase || "step";
    return news.step ? `${news.line} · ${phase} ${news.step} of ${news.steps}` : news.line;
  }

  function tellWaiting({ images: { queued }, waiting }) {
    const more = queued - waiting.reduce((sum, [, count]) => sum + count, 0);
    tellFolded("waiting", queued, [wide(queued === 1 ? " image" : " images"), " queued"], waiting, more && `${more.toLocaleString()} more images`);
  }

  // Files and folders of the inbox that are not run, such as notes.md, and why.
  function tellIgnored({ ignored = [], ignored_count: count = 0 }) {
    const more = count - ignored.length;
    tellFolded("ignored", count, [" ignored", wide(" in the inbox")], ignored, more && `${more.toLocaleString()} more`);
  }

  // A line, and behind it a list.
  function tellFolded(id, count, words, rows, more) {
    const list = rows.map(([name, text]) => {
      const row = element("li", name);
      row.append(element("small", ` ${text}`));
      return row;
    });
    if (more) list.push(element("li", `and ${more}`));
    part(id).hidden = !count;
    part(id).querySelector("summary").replaceChildren(count.toLocaleString(), ...words);
    part(id).lastElementChild.replaceChildren(...list);
  }

  let asked = 0;
  const ask = () => {
    load("pages.js");
    load("now.js");
    if (asked++ % TOTALS === 0) load("totals.js");
    showNewDay();
    Looked.note();
  };
  setInterval(() => { if (!document.hidden) ask(); }, POLL);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
  self.ask = ask;
  return self;
})();

// Errors and warnings of recipes, behind a line, until they are fixed, or dismissed in this browser.
const Problems = (() => {
  const DISMISSED = `picowatch dismissed ${outboxFolder()}`;
  const box = part("problems");
  const keyOf = problem => JSON.stringify([problem.file, problem.text]);
  let problems = [], more = 0, shown = "", known = null;
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

  // The line says how many there are, and what is wrong with the newest.
  function show() {
    const left = problems.filter(problem => !dismissed.has(keyOf(problem)));
    const errors = left.filter(problem => problem.is_error), [first] = left;
    const open = new Set([...box.querySelectorAll("[open]")].map(made => made.dataset.file));
    const [summary, list] = box.children, buttons = element("p", undefined, "buttons");
    list.replaceChildren(...left.map(problem => row(problem, left.length === 1 || open.has(problem.file))));
    box.hidden = !first && !more;
    if (box.hidden) return;
    box.className = errors.length ? "error" : "warning";
    summary.replaceChildren(element("strong", inCounts(errors.length, left.length - errors.length)),
      " ", element("span", first ? `${first.recipe}: ${firstWords(first.text)}` : "", "first"));
    if (errors.length > 1) buttons.append(retryButton(commonFolder(errors)));
    if (left.length > 1) buttons.append(button("Dismiss all", () => dismiss(left)));
    if (more) buttons.append(`and ${more.toLocaleString()} more: look for .error.txt and .warning.txt in the outbox`);
    if (buttons.hasChildNodes()) list.append(buttons);
  }

  function inCounts(errors, warnings) {
    const counts = [[errors, "error"], [warnings, "warning"]].filter(([count]) => count);
    if (!counts.length) return `${more.toLocaleString()} more errors and warnings`;
    return counts.map(([count, word]) => `${count} ${word}${count === 1 ? "" : "s"}`).join(", ") + (more ? " and more" : "");
  }

  // The folder of all errors; "" if there are several.
  function commonFolder(errors) {
    const folders = new Set(errors.map(({ recipe }) => folderOf(recipe)));
    return folders.size === 1 && !more ? [...folders][0] : "";
  }
  const retryButton = name => button("Copy retry command", () =>
    copy(commandLine("retry", name), "The command that tries again is copied. Run it in a terminal."));

  function row(problem, isOpen) {
    const made = element("div", undefined, problem.is_error ? "error" : "warning");
    const details = element("details"), summary = element("summary", problem.recipe), text = element("pre");
    const link = element("a", "Open the file"), buttons = element("p", undefined, "buttons");
    details.dataset.file = problem.file;
    details.open = isOpen;
    summary.prepend(element("strong", problem.is_error ? "Error " : "Warning "));
    summary.append(" ", element("span", firstWords(problem.text), "first"));
    text.append(...problem.text.split(QUOTED).map((some, place) => place % 2 ? element("span", some, "quoted") : some));
    link.href = address(problem.file);
    const out = button("✕", () => dismiss([problem]));
    out.title = "Dismiss: the file stays until the recipe is fixed";
    out.ariaLabel = `Dismiss the message about ${problem.recipe}`;
    if (problem.is_error && problem.recipe !== "settings") buttons.append(retryButton(problem.recipe));
    buttons.append(link);
    details.append(summary, text, buttons);
    made.append(details, out);
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
