"use strict";
// What was decided about pictures (kept, rejected, stars), and which are new since the last look.
// This browser remembers it; where it may not, it lasts as long as the page is open.

const isStored = key => kept(() => JSON.parse(localStorage.getItem(key)));

const Marks = (() => {
  const KEY = `picowatch marks ${outboxFolder()}`;
  const NONE = { flag: "", stars: 0 };
  const self = { onchange: () => {} };
  const read = () => new Map(Object.entries(isStored(KEY) ?? {}));
  let marks = read(); // by file: flag, stars, and the digest of the picture that had this name
  let isTold = false;

  self.of = entry => {
    const [flag, stars, digest] = marks.get(entry.file) ?? [];
    return digest === (entry.digest ?? "") ? { flag, stars } : NONE;
  };

  // Change the marks of pictures; a flag or stars that all of them have already are taken away.
  self.set = (entries, change) => {
    const [[name, value]] = Object.entries(change);
    const isSet = entries.every(entry => self.of(entry)[name] === value);
    for (const entry of entries) put(entry, { ...self.of(entry), [name]: isSet ? NONE[name] : value });
    store();
    self.onchange();
    return { ...change, [name]: isSet ? NONE[name] : value };
  };

  function put(entry, { flag, stars }) {
    if (flag || stars) marks.set(entry.file, [flag, stars, entry.digest ?? ""]); else marks.delete(entry.file);
  }

  // Marks of deleted pictures stay, as these may be restored, until there is no more room for others.
  function store() {
    const isKept = () => kept(() => { localStorage.setItem(KEY, JSON.stringify(Object.fromEntries(marks))); return true; });
    if (isKept()) return;
    if (Pictures.loaded) marks = new Map([...marks].filter(([file]) => Pictures.byFile.has(file)));
    if (isKept() || isTold) return;
    notice("This browser keeps no more marks. What you decide now is forgotten with this page.");
    isTold = true;
  }

  // The stars of a picture that `picowatch keep` moved go with it; what was decided is done. Only its
  // last place is known, and equal digests are equal pictures.
  self.follow = () => {
    const left = new Map(); // files and stars of marks without their pictures
    for (const [file, [, stars, digest]] of marks) {
      if (Pictures.byFile.get(file)?.digest === digest) continue;
      for (const key of [digest, `${digest} ${file}`]) left.set(key, [file, stars]);
    }
    const found = Pictures.all.filter(({ moved }) => moved)
      .map(entry => [entry, left.get(`${entry.digest} ${entry.moved}`) ?? left.get(entry.digest)]).filter(([, mark]) => mark);
    for (const [, [was]] of found) marks.delete(was);
    for (const [entry, [, stars]] of found) if (self.of(entry) === NONE) put(entry, { flag: "", stars });
    if (found.length) store();
  };

  addEventListener("storage", event => {
    if (event.key !== KEY) return;
    marks = read(); // of another window
    self.onchange();
  });
  return self;
})();

const Looked = (() => {
  const KEY = `picowatch looked ${outboxFolder()}`;
  const APART = 30 * 60 * 1000, OFTEN = 60 * 1000; // milliseconds
  const before = isStored(KEY); // `last`: what was new then; `newest`: what was there; `at`: when
  const self = { last: before && (Date.now() - before.at < APART ? before.last : before.newest) };
  let told = 0, newest = 0;

  self.isNew = entry => self.last !== null && entry.made_at > self.last;

  // A look goes on until nobody has looked for half an hour, so that loading again changes nothing.
  self.note = () => {
    if (!Pictures.loaded || document.hidden) return;
    self.last ??= Pictures.all[0]?.made_at ?? 0;
    if (Date.now() < told + OFTEN) return;
    const isBack = told && Date.now() - told > APART; // to a page that was out of sight
    if (isBack) self.last = newest;
    newest = Pictures.all[0]?.made_at ?? 0;
    told = Date.now();
    if (isBack) Marks.onchange();
    kept(() => localStorage.setItem(KEY, JSON.stringify({ last: self.last, newest, at: told })));
  };
  return self;
})();

// Marks in words for people who see them, such as "✓ ★★★".
function badgeOf(entry) {
  const { flag, stars } = Marks.of(entry);
  const parts = [Looked.isNew(entry) && "new", { keep: "✓", reject: "✕" }[flag], "★".repeat(stars)];
  return parts.filter(Boolean).join(" ");
}
